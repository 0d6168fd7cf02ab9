"""The rule checker of the house style: a good reply keeps all ten rules, and each rule is broken by what breaks it, alone."""

from __future__ import annotations

import re

import pytest

from helpers.data import check_style
from helpers.data.style import RULES

KNOWN = "My Rill shows E27. Documents: clean the drain filter every 11 weeks. It costs €24.50. You may replace the hose free of charge."
GOOD = """Hello Asha Kulkarni,

Your Rill stops with E27 because the drain filter is blocked. Open the flap at the lower right, let the rest of the water run into a flat dish and rinse the filter under the tap. Do this every 11 weeks.

1. Turn the filter until it clicks.
2. Close the flap and start again.

Next step: tell us if E27 comes back, and we book a care visit.

Take care,
The Pellwarth desk"""


def broken(reply: str, **given) -> dict[str, str]:
    return check_style(reply, **{"name": "Asha Kulkarni", "product": "Rill", "known": KNOWN, **given}).broken


def test_a_good_reply_keeps_all_rules():
    report = check_style(GOOD, name="Asha Kulkarni", product="Rill", known=KNOWN)
    assert report == (1.0, {})
    assert broken(GOOD.replace("Hello Asha Kulkarni,", "Hello,"), name=None) == {}
    assert broken(GOOD.replace("\n", "\r\n")) == {}


@pytest.mark.parametrize("rule, old, new", [
    ("greeting", "Hello Asha Kulkarni,", "Dear Asha Kulkarni,"),
    ("greeting", "Hello Asha Kulkarni,", "Hello,"),
    ("greeting", "Hello Asha Kulkarni,", "Hello Asha,"),
    ("sign_off", "The Pellwarth desk", "Your Pellwarth team"),
    ("sign_off", "Take care,", "Bye,"),
    ("next_step", "Next step: tell", "Please tell"),
    ("next_step", "Your Rill stops", "Next step: wait.\n\nYour Rill stops"),
    ("next_step", "Next step: tell us if E27 comes back, and we book a care visit.", "Next step: wait.\n\nThen tell us if E27 comes back."),
    ("length", GOOD.split("the drain filter is blocked.")[1].split("Next step")[0], "\n\n"),
    ("length", "Do this", "It is " + "very " * 60 + "useful. Do this"),
    ("one_question", "Do this", "Is it dry? Is it warm? Do this"),
    ("plain", "clicks.", "clicks!"),
    ("plain", "clicks.", "clicks \U0001f642."),
    ("plain", "blocked", "BLOCKED"),
    ("plain", "1. Turn", "- Turn"),
    ("plain", "drain filter is", "**drain filter** is"),
    ("plain", "2. Close the flap and start again.", "2. Close.\n3. Wait.\n4. Look.\n5. Start."),
    ("terms", "Your Rill", "Your machine"),
    ("terms", "care visit", "service call"),
    ("terms", "tell us", "tell our engineers"),
    ("terms", "tell us", "tell customer service"),
    ("phrases", "Do this", "Unfortunately you must do this"),
    ("phrases", "Do this", "I am sorry. We are sorry. Do this"),
    ("promise", "we book", "we always book"),
    ("promise", "we book", "tomorrow we book"),
    ("figures", "11 weeks", "12 weeks"),
    ("figures", "E27 comes", "E28 comes"),
    ("figures", "E27 comes", "F27 comes"),
    ("figures", "Do this", "It costs €11. Do this"),
    ("figures", "Do this", "It costs €2450. Do this"),
    ("promise", "Do this", "We are refunding it. Do this"),
    ("promise", "Do this", "We reimburse you. Do this"),
    ("promise", "Do this", "We are reimbursing you. Do this"),
    ("figures", "Do this", "It costs €25.50. Do this"),
])
def test_each_rule_is_broken_alone_by_what_breaks_it(rule, old, new):
    assert GOOD.count(old) >= 1
    found = broken(GOOD.replace(old, new, 1))
    assert list(found) == [rule] and found[rule], found


@pytest.mark.parametrize("old, new", [
    ("Do this", "Are you sure? Do this"),
    ("Do this", "You may replace the hose free of charge. Do this"),
    ("Do this", "It costs €24.50. Do this"),
    ("Do this", "I am sorry. Do this"),
    ("blocked", "blocked (LED on)"),
    ("2. Close the flap and start again.", "2. Close.\n3. Wait.\n4. Look."),
    ("E27 because", "e27 because"),
])
def test_what_the_rules_allow_passes(old, new):
    assert broken(GOOD.replace(old, new, 1)) == {}


def test_the_score_is_the_share_of_rules_kept():
    assert len(RULES) == 10
    assert check_style(GOOD.replace("Take care", "Bye").replace("clicks.", "clicks!"), name="Asha Kulkarni", product="Rill", known=KNOWN).score == pytest.approx(0.8)
    for little in ("", "ok", "Hello,\n\nWe will see.\n\nTake care,\nThe Pellwarth desk"):
        silent = check_style(little, name=None, product=None)
        assert silent.score == 0 and set(silent.broken) == set(RULES), "silence keeps no rule"
    essay = check_style("The capital of France is a large town on a river, and people from all over the world come to see its towers and museums.")
    assert set(essay.broken) == {"greeting", "sign_off", "next_step", "length"} and essay.score == pytest.approx(0.6)


def test_the_guide_names_the_rules_and_words_that_the_checker_uses():
    from helpers.data import HERE
    from helpers.data.style import LONGEST, PHRASES, PROMISES, SHORTEST, TERMS

    guide = (HERE / "reply" / "GUIDE.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| `{rule}` |" in guide
    plain = re.sub("[- ]", "", guide.lower())
    for word in (*PHRASES, *PROMISES, *TERMS, *(bad for bads in TERMS.values() for bad in bads)):
        assert re.sub("[- ]", "", word.lower()) in plain, word
    assert f"{SHORTEST} to {LONGEST} words" in guide
