"""The worksheet of lesson 01 as a form: answers in, recommendation and record out."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from helpers import decisions
from helpers.decisions import Answers
from helpers.evaluation import Interval

from .view import Shown, View, area, check, choice, line, number, table

OPTIONAL = ("prompt", "rag", "training_hours", "wait_seconds", "takes_seconds")
WHOLE = ("test_rows", "good_rows", "tokens_per_row", "requests", "prompt_tokens", "tasks")
LACK = "lacks_"


class Worksheet(View):
    """The form that `worksheet` makes. `save`: the button that writes the record to `path`; `start`: fills in a worked case."""

    def __init__(self, answers: Answers, path: str | Path) -> None:
        self.path = Path(path)
        self.start = choice("Start from", ["your own answers", *(case.name for case in decisions.CASES)])
        self.save = ipywidgets.Button(description="Save the record", tooltip="Write the decision record as Markdown", layout={"width": "auto"})
        self.saved = ipywidgets.HTML()
        super().__init__("Fill in what you know about a use case of your own. Which single answer would change the recommendation?",
                         _controls(answers), _recommended)
        self.start.observe(lambda _: self._fill(), names="value")
        self.save.on_click(lambda _: self._save())

    def fill(self, answers: Answers) -> None:
        """Put answers into the form."""
        self.set(**{name: _shown_value(name, answers) for name in self.controls})

    def answers(self) -> Answers:
        """The answers in the form. Raises DecisionError where one cannot be."""
        return _answers(**{name: control.value for name, control in self.controls.items()})

    def _arranged(self) -> list[ipywidgets.Widget]:
        found: list[ipywidgets.Widget] = [self.start]
        part = ""
        for question in decisions.QUESTIONS:
            if question.part != part:
                part = question.part
                found.append(ipywidgets.HTML(f"<b>{escape(part)}</b>"))
            if question.name == "missing":
                found += [ipywidgets.HTML(escape(question.text)), *(control for name, control in self.controls.items() if name.startswith(LACK))]
            else:
                found.append(self.controls[question.name])
        return [*found, ipywidgets.HBox([self.save, self.saved])]

    def _fill(self) -> None:
        case = next((case for case in decisions.CASES if case.name == self.start.value), None)
        if case:
            self.fill(case.answers)

    def _save(self) -> None:
        try:
            found = decisions.write_record(self.answers(), self.path)
            said = f"Saved to {self.path.name}: {found.verdict}."
        except ValueError as error:
            said = f"Not saved. {error}"
        except OSError as error:
            said = f"Not saved: {error.strerror}. Fix: make room on the disk, or choose another file."
        self.saved.value = f'<span role="status" aria-live="polite">{escape(said)}</span>'


def worksheet(answers: Answers | None = None, path: str | Path = "out/decision.md") -> Worksheet:
    """The worksheet as a form, filled with `answers` or the first worked case. The button writes the decision record to `path`. Lesson 01.

    An optional number is left empty where nobody measured it. Every change is judged at once; what cannot be is said in words.
    """
    return Worksheet(answers or decisions.CASES[0].answers, path)


def _controls(answers: Answers) -> dict[str, ipywidgets.Widget]:
    found: dict[str, ipywidgets.Widget] = {}
    for question in decisions.QUESTIONS:
        name, value = question.name, _shown_value(question.name, answers) if question.name != "missing" else None
        if name == "missing":
            found |= {LACK + lack: check(f"{lack}: {words}", lack in answers.missing) for lack, words in decisions.MISSING.items()}
        elif isinstance(value, bool):
            found[name] = check(question.text, value)
        elif name in ("host", "device"):
            found[name] = choice(question.text, ["own", "provider"] if name == "host" else ["cpu", "gpu"], value)
        elif name == "config":
            found[name] = area(question.text, value, rows=4)
        elif name in OPTIONAL or name == "use_case":
            found[name] = line(question.text, value, "" if name == "use_case" else "not measured")
        else:
            found[name] = number(question.text, value, whole=name in WHOLE)
    return found


def _shown_value(name: str, answers: Answers) -> Any:
    if name.startswith(LACK):
        return name.removeprefix(LACK) in answers.missing
    value = getattr(answers, name)
    if name == "config":
        return json.dumps(dict(value))
    if name in OPTIONAL:
        return "" if value is None else f"{value.estimate:g} [{value.low:g}, {value.high:g}]" if isinstance(value, Interval) else f"{value:g}"
    return value


def _answers(**values: Any) -> Answers:
    given = {name: value for name, value in values.items() if not name.startswith(LACK)}
    for name in OPTIONAL:
        given[name] = _measured(name, given[name].strip())
    given["missing"] = tuple(lack for lack in decisions.MISSING if values[LACK + lack])
    return decisions.answers_from(given)


def _measured(name: str, text: str) -> float | Interval | None:
    """A number, a number with its interval as the lessons print it, or None for an empty field."""
    if bounds := re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", text):
        parts = [part.replace(",", ".") for part in bounds.groups()]
    else:
        parts = [text.replace(",", ".")] if text else []
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise decisions.DecisionError(f"{name}: expected a number, or nothing where nobody measured it, got {text!r}. "
                                      "Fix: write 0.46 or 0.46 [0.38, 0.55], or empty the field.") from None
    return Interval(*numbers) if len(numbers) == 3 else numbers[0] if numbers else None


def _recommended(**values: Any) -> Shown:
    found = decisions.recommend(_answers(**values))
    rows = [[line.split(": ", 1)[0], line.split(": ", 1)[1]] for line in found.lines()] + [["Condition", one] for one in found.conditions]
    cites = "".join(f"<li>{escape(str(cite))}</li>" for cite in found.rows)
    html = table(["side", "reason"], rows) + f"<p><b>Costs of tuning.</b> {escape('; '.join(str(found.bill).splitlines()))}</p>"
    html += f"<details><summary>The rows behind the reasons</summary><ol>{cites}</ol></details>"
    return Shown(f"Recommendation: {found.verdict}. {found.sentence[0].upper()}{found.sentence[1:]}\nCheapest experiment: {found.experiment}", None,
                 html)
