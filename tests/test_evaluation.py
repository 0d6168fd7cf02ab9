"""Scores and intervals against hand-worked cases, reference libraries and simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from helpers import evaluation as ev

GOLD = {"product": "Pip", "problem": "leak", "error_codes": ["E1", "E2"], "age_months": 1, "order": "PW-123456", "name": None,
        "safety": False}


def answer(**changes) -> str:
    return json.dumps({**GOLD, **changes})


@pytest.mark.parametrize("text, expected", [
    (answer(), True), ("  " + answer() + "\n", True), ("Here it is: " + answer(), False), (answer()[:-1], False), ("[]", False),
    ("null", False), ("", False), ("```json\n" + answer() + "\n```", False), ('{"a": NaN}', False), ('{"a": 1, "a": 2}', False), ("[" * 100_000, False),
])
def test_valid_json_is_one_object_and_nothing_else(text, expected):
    assert ev.valid_json([text])[0] == expected


@pytest.mark.parametrize("changes, expected", [
    ({}, True), ({"product": "Kettle"}, False), ({"age_months": "1"}, False), ({"age_months": -1}, False), ({"order": "123456"}, False),
    ({"safety": None}, False), ({"extra": 1}, False), ({"error_codes": None}, False), ({"name": ""}, False), ({"error_codes": [], "name": "Asha"}, True), ({"error_codes": ["e-14"]}, False), ({"order": "PW-४८२९१३"}, False),
])
def test_valid_record_holds_to_the_schema(changes, expected):
    assert ev.valid_record([answer(**changes)])[0] == expected


def test_a_valid_record_is_valid_json_first():
    twice = answer()[:-1] + ', "name": null}'
    assert ev.valid_json([twice])[0] == ev.valid_record([twice])[0] == 0


@pytest.mark.parametrize("text, expected", [
    (answer(), True), (json.dumps(dict(reversed(GOLD.items()))), True), (answer(safety=0), False), (answer(age_months=True), False),
    (answer(age_months=1.0), False), (answer(error_codes=["E2", "E1"]), False), (answer(extra=None), False), ("nonsense", False),
])
def test_exact_match_compares_values_not_text(text, expected):
    assert ev.exact_match([text], [GOLD])[0] == expected


@pytest.mark.parametrize("field, value, counts", [
    ("product", "Pip", (1, 0, 0)), ("product", "Rill", (0, 1, 1)), ("product", None, (0, 0, 1)), ("name", "Asha", (0, 1, 0)),
    ("name", None, (0, 0, 0)), ("safety", True, (0, 1, 0)), ("safety", False, (0, 0, 0)), ("error_codes", ["E1"], (1, 0, 1)),
    ("error_codes", ["E2", "E9", "E1"], (2, 1, 0)), ("error_codes", [], (0, 0, 2)), ("age_months", "1", (0, 1, 1)),
])
def test_field_counts_by_hand(field, value, counts):
    assert tuple(ev.field_counts([answer(**{field: value})], [GOLD], field)[0]) == counts


def test_an_answer_that_is_no_json_misses_everything_that_was_said():
    total = sum(ev.field_counts(["?"], [GOLD], f).sum(axis=0) for f in GOLD)
    assert tuple(total) == (0, 0, 6)  # product, problem, two codes, age, order


def test_f1_equals_scikit_learn_on_a_yes_no_field():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    gold = [{**GOLD, "safety": bool(x)} for x in rng.random(200) < 0.3]
    said = rng.random(200) < 0.4
    ours = ev.f1(ev.field_counts([answer(safety=bool(s)) for s in said], gold, "safety"))
    assert ours == pytest.approx(f1_score([g["safety"] for g in gold], said), abs=1e-12)


def test_macro_f1_is_the_mean_of_the_fields_and_perfect_answers_get_what_there_is_to_get():
    gold = [{**GOLD, "name": "A", "safety": True}] * 3
    answers = [json.dumps(gold[0]), json.dumps({**gold[0], "name": "B"}), "?"]
    by_field = ev.field_f1(answers, gold)
    assert ev.macro_f1(answers, gold).estimate == pytest.approx(np.mean(list(by_field.values())))
    assert ev.macro_f1([json.dumps(g) for g in gold], gold).estimate == 1.0


def test_a_perfect_system_scores_one_even_where_a_field_is_never_filled():
    interval = ev.macro_f1([answer()] * 5, [GOLD] * 5)
    assert (interval.estimate, interval.low, interval.high) == (1.0, 1.0, 1.0)


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_wilson_covers_about_95_percent(p):
    rng = np.random.default_rng(1)
    hits = 0
    for k in rng.binomial(100, p, size=800):
        interval = ev.proportion(np.repeat([1, 0], [k, 100 - k]))
        hits += interval.low <= p <= interval.high
    assert 0.925 <= hits / 800 <= 0.985


def test_wilson_is_not_certain_at_the_ends():
    none, every = ev.proportion(np.zeros(80)), ev.proportion(np.ones(80))
    assert none.low == pytest.approx(0, abs=1e-12) and 0.03 < none.high < 0.06
    assert every.high == pytest.approx(1) and 0.94 < every.low < 0.97


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(2).normal(3, 2, size=60)
    ours = ev.bootstrap(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.03) and ours.high == pytest.approx(theirs.high, abs=0.03)
    assert ours.estimate == pytest.approx(values.mean())


def test_bootstrap_covers_about_95_percent():
    rng = np.random.default_rng(3)
    hits = sum(i.low <= 0.3 <= i.high for i in (ev.bootstrap(rng.random(100) < 0.3, n=500) for _ in range(400)))
    assert 0.92 <= hits / 400 <= 0.98


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(4)
    hardness = rng.random(200)
    a, b = (hardness < 0.6).astype(float), (hardness < 0.5).astype(float)  # b fails wherever a fails
    paired = ev.compare_paired(a, b)
    unpaired = ev.compare_paired(a, rng.permutation(b))
    assert paired.excludes_zero() and paired.estimate == pytest.approx((a - b).mean())
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_two_equal_systems_do_not_differ():
    same = np.random.default_rng(5).random(50) < 0.5
    assert not ev.compare_paired(same, same).excludes_zero()


def test_the_seed_fixes_the_interval():
    values = np.arange(30) % 7
    assert ev.bootstrap(values, seed=1) == ev.bootstrap(values, seed=1) != ev.bootstrap(values, seed=2)


@pytest.mark.parametrize("call", [
    lambda: ev.exact_match(["x"], []), lambda: ev.exact_match([], []), lambda: ev.proportion([]), lambda: ev.proportion([0.5]),
    lambda: ev.bootstrap([]), lambda: ev.compare_paired([1, 0], [1]), lambda: ev.compare_paired(np.ones((2, 2)), np.ones((2, 2))),
])
def test_bad_input_is_refused_with_what_was_expected_and_found(call):
    with pytest.raises(ValueError, match="expected.*got"):
        call()


def test_report_has_a_row_per_system():
    table = ev.report({"a": [answer()], "b": ["?"]}, [GOLD])
    assert table.loc["a", "exact"] == 1 and table.loc["b", "valid JSON"] == 0
    assert (table["exact low"] <= table["exact"]).all() and (table["exact"] <= table["exact high"]).all()


# ---------------------------------------------------------------- the general probe


@pytest.mark.parametrize("check, right, wrong", [
    ({"type": "contains", "any": ["paris"]}, ["It is Paris.", "PARIS"], ["parisian food", "", "London"]),
    ({"type": "contains", "any": ["new york"]}, ["in New York,"], ["new  yorkers"]),
    ({"type": "contains_all", "all": ["cat", "dog"]}, ["a dog and a cat"], ["a dog"]),
    ({"type": "exact", "any": ["the cat sat"]}, ["The cat  sat.", '"the cat sat"'], ["the cat sat down", ""]),
    ({"type": "starts", "any": ["yes"]}, ["Yes, it is", "yes"], ["Oh yes", "", "Yesterday we went"]),
    ({"type": "number", "value": 12}, ["12", "7 + 5 = 12.", "12.0"], ["12 or 13", "twelve", "", "-12", "112"]),
    ({"type": "number", "value": 1200}, ["1,200 in all"], ["1,2", "200"]),
    ({"type": "words", "low": 1, "high": 2}, ["blue", "light blue"], ["", "a light blue"]),
    ({"type": "items", "count": 3}, ["a, b, c", "a\nb\nc\n"], ["a, b", "a b c"]),
    ({"type": "lacks", "none": ["e"]}, ["dog"], ["horse", "E", ""]),
    ({"type": "upper"}, ["NIGHT 7."], ["Night", "", "77"]),
])
def test_a_rule_of_the_probe_tells_right_from_wrong(check, right, wrong):
    stored = {"any": None, "all": None, "none": None, "value": None, "low": None, "high": None, "count": None, **check}
    for rule in (check, stored):  # a datasets row has every key, most of them None
        assert all(ev.passes(text, rule) for text in right), right
        assert not any(ev.passes(text, rule) for text in wrong), wrong


def test_prose_has_no_rule_to_pass():
    with pytest.raises(ValueError, match="perplexity"):
        ev.passes("text", {"type": "perplexity"})


@pytest.mark.parametrize("check", [{}, {"type": "sounds nice"}])
def test_an_unknown_rule_is_refused(check):
    with pytest.raises(ValueError, match="expected a type that the docstring lists"):
        ev.passes("text", check)
