"""The ship / don't-ship card: what a rule asks for, what is missing, and what the hash notices."""

from __future__ import annotations

import dataclasses

import pytest

from helpers import evaluation as ev
from helpers.evaluation import Interval, Rule, card, rules_hash

SURE, UNSURE = Interval(0.9, 0.85, 0.94), Interval(0.9, 0.7, 0.99)
RULES = [Rule("right", "share of right tones", "at_least", 0.8), Rule("lead", "lead over the prompt", "better_than", 0),
         Rule("invented", "share of invented facts", "at_most", 0.05), Rule("cost", "prompt tokens per request", "at_most", 200, by="estimate")]
GOOD = {"right": SURE, "lead": Interval(0.1, 0.02, 0.2), "invented": Interval(0.01, 0.0, 0.05), "cost": 180}


@pytest.mark.parametrize("need, value, by, found, met", [
    ("at_least", 0.8, "bound", SURE, True), ("at_least", 0.8, "bound", UNSURE, False), ("at_least", 0.8, "estimate", UNSURE, True),
    ("at_least", 0.85, "bound", SURE, True), ("at_least", 0.95, "estimate", SURE, False),
    ("at_most", 0.95, "bound", SURE, True), ("at_most", 0.95, "bound", UNSURE, False), ("at_most", 0.94, "bound", SURE, True), ("at_most", 0.9, "estimate", UNSURE, True),
    ("better_than", 0, "bound", Interval(0.1, 0.0, 0.2), False), ("better_than", 0, "bound", Interval(0.1, 0.001, 0.2), True),
    ("better_than", 0, "estimate", Interval(0.1, -0.1, 0.2), True), ("better_than", 0.1, "estimate", Interval(0.1, -0.1, 0.2), False),
    ("at_least", 0, "bound", Interval(float("nan"), float("nan"), float("nan")), False), ("at_most", 1, "bound", Interval(float("nan"), float("nan"), float("nan")), False),
])
def test_a_rule_looks_at_the_side_that_it_names(need, value, by, found, met):
    assert Rule("x", "a metric", need, value, by).met(found) is met


def test_ship_needs_every_rule():
    assert card(RULES, GOOD).ship and card(RULES, GOOD).decision == "Ship: every rule is met."
    for name in GOOD:
        worse = {**GOOD, name: Interval(0.5, -500, 500) if name != "cost" else 201}
        made = card(RULES, worse)
        assert not made.ship and f"1 of 4 rules not met ({name})" in made.decision


def test_what_was_not_measured_is_not_met():
    made = card(RULES, {k: v for k, v in GOOD.items() if k != "lead"})
    assert not made.ship and [line.verdict for line in made.lines] == ["met", "not measured", "met", "met"]
    assert not card(RULES, {}).ship and "4 of 4" in card(RULES, {}).decision


def test_the_hash_notices_every_change_of_a_rule_and_no_number():
    first = rules_hash(RULES)
    assert card(RULES, GOOD).hash == card(RULES, {}).hash == first and len(first) == 8 and int(first, 16) >= 0
    changes = {"name": "other", "metric": "other", "need": "better_than", "value": 0.81, "by": "estimate"}
    assert set(changes) == {f.name for f in dataclasses.fields(Rule)}
    others = [rules_hash([dataclasses.replace(RULES[0], **{k: v}), *RULES[1:]]) for k, v in changes.items()]
    assert len({first, *others, rules_hash(RULES[::-1]), rules_hash(RULES[:-1])}) == len(others) + 3
    assert rules_hash([Rule("a", "b", "at_most", 1)]) == rules_hash([Rule("a", "b", "at_most", 1.0)]), "1 and 1.0 are one number"


def test_rules_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RULES[0].value = 0.1


def test_both_forms_show_every_line_the_decision_and_the_hash():
    made = card(RULES, {k: v for k, v in GOOD.items() if k != "lead"})
    markdown = made._repr_markdown_()
    assert str(made) == repr(made)
    for text in (str(made), markdown):
        for part in ("interval at least 0.8", "interval more than 0", "estimate at most 200", "not measured", "Don't ship", made.hash):
            assert part in text, part
    assert "0.900 [0.850, 0.940]" in str(made)
    assert "| estimate at most 200 | 180 | met |" in markdown, "a plain number has no interval to show"
    assert markdown.splitlines()[1] == "| --- | --- | --- | --- |" and len([x for x in markdown.splitlines() if x.startswith("| ")]) == 6


def test_text_cannot_break_the_table_or_bring_markup_in():
    markdown = card([Rule("a|b", "<script>alert(1)</script> *x*\n$y$", "at_most", 1)], {})._repr_markdown_()
    line = markdown.splitlines()[2]
    assert line.replace("\\|", "").count("|") == 5 and "<" not in line and "\\*x\\*" in line and "\\$y\\$" in line


@pytest.mark.parametrize("call", [
    lambda: Rule("a", "b", "about", 1), lambda: Rule("a", "b", "at_most", 1, by="feeling"), lambda: Rule("", "b", "at_most", 1), lambda: Rule("a", "", "at_most", 1),
    lambda: Rule("a", "b", "at_most", float("nan")), lambda: rules_hash([]), lambda: card([], {}), lambda: card([RULES[0], RULES[0]], {}),
    lambda: card(RULES, {"rigth": SURE}), lambda: card(RULES, {"right": 0.9}),
])
def test_bad_input_is_refused_with_what_was_expected_and_found(call):
    with pytest.raises(ValueError, match="expected.*got.*Fix"):
        call()


def test_the_card_is_exported():
    assert {"Card", "Rule", "card", "rules_hash"} <= set(ev.__all__)
