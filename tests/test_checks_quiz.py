"""The question with radio buttons: its feedback, what it refuses, and what stands there without a kernel."""

from __future__ import annotations

import ipywidgets
import pytest

from helpers.checks.quiz import Option, Quiz, quiz

A = Option("All tokens", "Count them in one row.", right=True)
B = Option("The <answer>", "The setting does nothing here.")


def test_nothing_is_chosen_at_first_and_each_option_has_its_own_feedback():
    view = quiz("Which tokens?", A, B)
    assert isinstance(view.choice, ipywidgets.RadioButtons) and view.choice.value is None and "Choose an answer." in view.result.value
    view.choice.value = "The <answer>"
    assert "Not right. The setting does nothing here." in view.result.value
    view.choice.value = "All tokens"
    assert "Right. Count them in one row." in view.result.value and 'role="status"' in view.result.value


def test_an_error_in_the_view_is_not_swallowed(monkeypatch):
    view = quiz("Which tokens?", A, B)
    monkeypatch.setattr(Quiz, "_say", lambda self, text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        view.choice.value = "All tokens"


def test_without_a_kernel_the_same_can_be_read(monkeypatch):
    shown = []
    monkeypatch.setattr("helpers.checks.quiz.display", lambda bundle, raw: shown.append(bundle))
    quiz("Which <tokens>?", A, B)._ipython_display_()
    widget, fallback = shown
    assert "widget-view" in "".join(widget) and "run this cell" in widget["text/plain"]
    assert fallback["text/plain"] == "Which <tokens>?\nA. All tokens\n   Right. Count them in one row.\nB. The <answer>\n   Not right. The setting does nothing here."
    assert "<details>" in fallback["text/html"] and "Which &lt;tokens&gt;?" in fallback["text/html"] and "<answer>" not in fallback["text/html"]


@pytest.mark.parametrize("question, options", [
    ("", (A, B)), ("Which?", (A,)), ("Which?", (B, Option("Other", "No."))), ("Which?", (A, Option("Other", "No.", right=True))), ("Which?", (A, A)),
    ("Which?", (A, Option("x" * 91, "Too long for a button."))), ("Which?", (A, Option("Other", " "))),
])
def test_a_question_that_can_not_be_answered_is_refused_with_the_fix(question, options):
    with pytest.raises(ValueError, match="Fix:"):
        quiz(question, *options)
