"""Scores of records, intervals, tests and power, and the probe's rules: hand-worked cases, reference libraries, simulation."""

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


@pytest.mark.parametrize("p", np.arange(1, 10) / 10)
def test_wilson_covers_about_95_percent(p):
    """In 20,000 test sets of 100 rows, the share of right rows being p in truth."""
    intervals = [ev.proportion(np.repeat([1, 0], [k, 100 - k])) for k in range(101)]
    covers = np.array([i.low <= p <= i.high for i in intervals])
    assert 0.93 <= covers[np.random.default_rng(1).binomial(100, p, size=20_000)].mean() <= 0.97


def test_wilson_by_hand():
    # 8 of 10: centre (0.8 + z^2/20) / (1 + z^2/10), half width z sqrt(0.016 + z^2/400) / (1 + z^2/10), with z = 1.959964
    interval = ev.proportion([1] * 8 + [0] * 2)
    assert (interval.low, interval.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)


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


# ---------------------------------------------------------------- paired test and power


def test_the_permutation_test_by_hand():
    # three rows differ, all for a: of 8 ways to flip them, two are as extreme (all for a, all for b)
    assert ev.permutation_test([1, 1, 1, 0], [0, 0, 0, 0]) == 2 / 8
    # differences 3, 1, -1: sums of at least 3 in size are +-3 (twice each) and +-5
    assert ev.permutation_test([3, 1, 0], [0, 0, 1]) == 6 / 8
    assert ev.permutation_test([1, 0, 1], [1, 0, 1]) == 1
    assert ev.permutation_test([1] * 3 + [0] * 40, [0] * 43) == 2 / 8, "rows that do not differ say nothing, and p stays exact"
    # no flip of 0.2, -0.5, -0.1, 0.4, 0.1 gives less than 0.1, though some floating sums fall short in the last bit
    assert ev.permutation_test([0.2, -0.5, -0.1, 0.4, 0.1], [0] * 5) == 1


@pytest.mark.parametrize("seed", range(6))
def test_the_permutation_test_equals_scipy_where_both_are_exact(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 2, (2, 11)) if seed % 2 else rng.normal(0.4, 1, (2, 9)) + [[seed / 4], [0]]).astype(float)
    theirs = stats.permutation_test((a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert ev.permutation_test(a, b) == pytest.approx(theirs.pvalue, abs=1e-12)
    assert ev.permutation_test(a, b) == ev.permutation_test(b, a)


def test_the_permutation_test_agrees_with_scipy_where_both_draw():
    rng = np.random.default_rng(7)
    a, b = rng.normal(0.25, 1, 80), rng.normal(0, 1, 80)
    theirs = stats.permutation_test((a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=20_000,
                                    vectorized=True, rng=np.random.default_rng(1)).pvalue
    assert 0.01 < theirs < 0.5 and ev.permutation_test(a, b, n=20_000) == pytest.approx(theirs, abs=0.015)
    assert ev.permutation_test(a, b, seed=1) == ev.permutation_test(a, b, seed=1) != ev.permutation_test(a, b, seed=2)


def test_a_drawn_p_value_counts_the_observed_order_and_is_never_zero():
    assert ev.permutation_test(np.ones(60), np.zeros(60), n=999) == 1 / 1000


def test_the_permutation_test_raises_few_false_alarms():
    rng = np.random.default_rng(8)
    alarms = [ev.permutation_test(*(rng.random((2, 40)) < 0.5), n=200, seed=i) <= 0.05 for i in range(400)]
    assert 0.01 <= np.mean(alarms) <= 0.075


def test_rows_needed_by_hand():
    # q = 0.15, d = 0.05: (1.959964 * 0.387298 + 0.841621 * 0.384057)^2 / 0.0025 = (0.759091 + 0.323231)^2 / 0.0025 = 468.57
    assert ev.rows_needed(0.05, 0.6, discordant=0.15) == 469
    assert ev.rows_needed(0.05, 0.6) == ev.rows_needed(0.05, 0.6, discordant=0.6 * 0.35 + 0.65 * 0.4) == ev.rows_needed(-0.05, 0.65)


@pytest.mark.parametrize("difference, rate, discordant, power", [(0.05, 0.6, 0.15, 0.8), (0.1, 0.5, None, 0.8), (-0.1, 0.8, 0.2, 0.9), (0.2, 0.3, 0.3, 0.5)])
def test_rows_needed_gives_the_power_it_promises(difference, rate, discordant, power):
    n = ev.rows_needed(difference, rate, discordant, power)
    other = rate + difference
    q = rate * (1 - other) + other * (1 - rate) if discordant is None else discordant
    only_b, only_a, _ = np.random.default_rng(9).multinomial(n, [(q + difference) / 2, (q - difference) / 2, 1 - q], size=20_000).T
    seen = np.abs(only_b - only_a) > stats.norm.ppf(0.975) * np.sqrt(only_b + only_a)  # McNemar's test
    assert seen.mean() == pytest.approx(power, abs=0.03)


def test_more_rows_for_less_difference_more_discord_and_more_power():
    base = ev.rows_needed(0.1, 0.5, 0.3)
    assert ev.rows_needed(0.05, 0.5, 0.3) > 3.5 * base and ev.rows_needed(0.1, 0.5, 0.4) > base and ev.rows_needed(0.1, 0.5, 0.3, power=0.9) > base
    assert ev.rows_needed(0.1, 0.5, 0.3, level=0.99) > base and ev.rows_needed(0.1, 0.5, 0.1) < base


@pytest.mark.parametrize("call", [
    lambda: ev.exact_match(["x"], []), lambda: ev.exact_match([], []), lambda: ev.proportion([]), lambda: ev.proportion([0.5]),
    lambda: ev.bootstrap([]), lambda: ev.compare_paired([1, 0], [1]), lambda: ev.compare_paired(np.ones((2, 2)), np.ones((2, 2))),
    lambda: ev.permutation_test([1, 0], [1]), lambda: ev.permutation_test([], []), lambda: ev.rows_needed(0, 0.5), lambda: ev.rows_needed(0.2, 0.9),
    lambda: ev.rows_needed(0.1, 0.5, discordant=0.05), lambda: ev.rows_needed(0.1, 0.85, discordant=0.5), lambda: ev.rows_needed(0.1, 0.5, power=1),
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


def test_the_package_shows_what_its_modules_hold():
    assert all(hasattr(ev, name) for name in ev.__all__) and ev.__all__ == sorted(ev.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
