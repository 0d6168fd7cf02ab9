"""A question with answers to choose from, and what to say to each: for the self-check questions of lessons and labs.

Radio buttons built on `observe`, so that an error is shown and never swallowed. All of it works by keyboard (Tab to an option,
Space to choose it), the feedback is a status that screen readers read out, and where no kernel runs a folded text holds the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Sequence

import ipywidgets
from IPython.display import display

LONGEST = 90  # characters of an option: a radio button does not break its line


@dataclass(frozen=True)
class Option:
    """One answer to choose. `feedback`: why it is right, or what its mistake is."""

    text: str
    feedback: str
    right: bool = False


class Quiz:
    """The view that `quiz` makes. `choice`: the radio buttons; set `choice.value` to an option's text to choose it. `result`: the feedback."""

    def __init__(self, question: str, options: Sequence[Option]) -> None:
        _check(question, options)
        self.question, self.options = question, tuple(options)
        self.choice = ipywidgets.RadioButtons(options=[option.text for option in options], value=None, description="Your answer:",
                                              layout={"width": "max-content"}, style={"description_width": "initial"})
        self.result = ipywidgets.HTML()
        self.widget = ipywidgets.VBox([ipywidgets.HTML(f"<b>{escape(question)}</b>"), self.choice, self.result])
        self.choice.observe(lambda change: self._answer(change["new"]), "value")
        self._say("Choose an answer.")

    def _answer(self, text: str | None) -> None:
        chosen = next((option for option in self.options if option.text == text), None)
        self._say("Choose an answer." if chosen is None else _feedback(chosen))

    def _say(self, text: str) -> None:
        self.result.value = f'<div role="status" aria-live="polite">{escape(text)}</div>'

    def _ipython_display_(self) -> None:
        view = {"model_id": self.widget.model_id, "version_major": 2, "version_minor": 0}
        display({"application/vnd.jupyter.widget-view+json": view, "text/plain": "A question with radio buttons. They need a running kernel: run this cell."}, raw=True)
        display({"text/html": static(self.question, self.options), "text/plain": static_text(self.question, self.options)}, raw=True)


def quiz(question: str, *options: Option) -> Quiz:
    """Radio buttons for one question; each option answers with its own feedback. Below stands the same as folded text.

    Raises ValueError unless there are two or more different options, exactly one of them right, each with its feedback and no longer
    than 90 characters.
    """
    return Quiz(question, options)


def static(question: str, options: Sequence[Option]) -> str:
    """The question, its options and their feedback as HTML, folded twice: first the options, then the answers."""
    listed = "".join(f"<li>{escape(option.text)}</li>" for option in options)
    said = "".join(f"<li>{escape(option.text)}: {escape(_feedback(option))}</li>" for option in options)
    return (f"<details><summary>Without buttons: {escape(question)}</summary><ol type=\"A\">{listed}</ol>"
            f"<details><summary>Answers</summary><ol type=\"A\">{said}</ol></details></details>")


def static_text(question: str, options: Sequence[Option]) -> str:
    """The question, its options and their feedback as text."""
    return "\n".join([question, *(f"{chr(65 + n)}. {option.text}\n   {_feedback(option)}" for n, option in enumerate(options))])


def _feedback(option: Option) -> str:
    return f"{'Right.' if option.right else 'Not right.'} {option.feedback}"


def _check(question: str, options: Sequence[Option]) -> None:
    texts, rights = [option.text for option in options], sum(option.right for option in options)
    if not question.strip() or len(set(texts)) < max(len(texts), 2) or rights != 1:
        raise ValueError(f"quiz: expected a question and two or more different options, one of them right, got {len(texts)} options, {len(set(texts))} "
                         f"different, {rights} right. Fix: mark one option with right=True.")
    for option in options:
        if not option.text.strip() or not option.feedback.strip() or len(option.text) > LONGEST:
            raise ValueError(f"quiz: expected an option of 1 to {LONGEST} characters with feedback, got {option}. Fix: shorten it, or move the reason to the feedback.")
