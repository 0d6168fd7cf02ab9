"""What an exercise is, and how an answer is judged: right, a mistake with a name, or what was expected and found."""

from __future__ import annotations

import contextlib
import copy
import sys
import textwrap
import traceback
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from . import progress
from .compare import difference, form, plain, same, show
from .limit import TimeUp, within

SECONDS = 20.0  # the learner's code is ended after this time
WIDTH = 88  # characters of a line; JupyterLab breaks longer ones within words


@dataclass(frozen=True)
class Mistake:
    """A likely wrong answer. `made` makes it, with the arguments of the right answer; `message` tells the learner what it is.

    `message` may be a function of the first case's arguments where the two differ. `credit`: the share of the points that it is worth.
    """

    made: Callable[..., Any]
    message: str | Callable[..., str]
    credit: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """A number that the learner predicts before measuring it; any number from `low` to `high` will do. `what`: what it is, with its unit.

    `measured` is the true one. `typical`: what people often predict (from, to) and what to say to it.
    """

    what: str
    low: float
    high: float
    measured: Callable[[], float]
    typical: Sequence[tuple[float, float, str]] = ()

    def comment(self, predicted: float) -> str:
        """What to say when it was measured."""
        said = next((f" {text}" for low, high, text in self.typical if low <= predicted <= high), "")
        return f"You predicted {predicted:g}; measured: {self.measured():.3g}.{said}"


@dataclass(frozen=True)
class Verdict:
    """`credit`: the share of the points, 0 to 1. `text`: what the learner reads."""

    credit: float
    text: str


class Points(float):
    """Points below full marks: a plain number as text, which nbgrader reads as partial credit; a notebook shows nothing more than the verdict."""

    def _repr_html_(self) -> str:
        return ""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab. Calling it with the learner's function checks it: `checks.lab08.exercise_1(field_f1)`.

    `right`: a right answer, a function. `cases`: makes the inputs, name -> arguments; it runs when the check runs. `mistakes`: the
    likeliest wrong answers. `returns`: what the function gives back, in words. `after`: what to say when it is right. `read`: brings what
    the function returns into the form that is compared. `also_right`: other answers that count as right. `rtol`, `atol`: how far
    numbers may differ. With a `prediction`, a function that returns it comes first: `exercise_2(predict, measure)`.
    """

    lab: str
    number: int
    points: int
    right: Callable[..., Any]
    cases: Callable[[], Mapping[str, tuple]]
    mistakes: Sequence[Mistake]
    returns: str
    after: str
    read: Callable[[Any], Any] = plain
    also_right: Sequence[Callable[..., Any]] = ()
    rtol: float = 1e-6
    atol: float = 1e-9
    prediction: Prediction | None = None

    def __call__(self, *answers: Callable[..., Any]) -> Points | None:
        """Print the verdict, keep the progress; None for full marks, else the points (nbgrader takes both)."""
        verdict = self.judge(*answers)
        points = round(verdict.credit * self.points, 2)
        print(textwrap.fill(f"Exercise {self.number}: {verdict.text}", WIDTH, break_long_words=False, break_on_hyphens=False))
        print(f"{points:g} of {self.points} points.")
        progress.record(self.lab, self.number, points, self.points)
        return None if points == self.points else Points(points)

    def judge(self, *answers: Callable[..., Any]) -> Verdict:
        """What the answer is worth and what to say to it. It raises nothing that the learner's code raises."""
        wanted = 1 + (self.prediction is not None)
        if len(answers) != wanted or not all(map(callable, answers)):
            given = show(plain(next((a for a in answers if not callable(a)), None))) if len(answers) == wanted else f"{len(answers)} of them"
            return Verdict(0, f"expected {'a function' if wanted == 1 else 'two functions, the prediction and the measurement'}, found {given}. "
                              "Fix: pass the function's name without brackets.")
        try:
            return self._judge(*answers)
        except TimeUp:
            return Verdict(0, f"your code ran longer than {SECONDS:g} seconds and was stopped. Does a loop never end? "
                              "Fix: look at what ends it; for `while`, print the condition for a few rounds.")

    def _judge(self, *answers: Callable[..., Any]) -> Verdict:
        if self.prediction is None:
            return self._measured(answers[0])
        predicted = within(SECONDS, lambda: _run(answers[0], ()))
        if text := self._prediction_problem(predicted):
            return Verdict(0, text)
        verdict = self._measured(answers[1])
        if verdict.credit < 1:
            return Verdict(verdict.credit, f"your prediction, {predicted.value:g}, is noted. Now the measurement: {verdict.text}")
        return Verdict(1, f"{verdict.text} {self.prediction.comment(float(predicted.value))}")

    def _prediction_problem(self, predicted: Outcome) -> str:
        if predicted.stub:
            return "predict first: put a number into the first function. A wrong prediction costs nothing."
        if predicted.error:
            return f"your prediction {predicted.error}."
        value, p = predicted.value, self.prediction
        if isinstance(value, (int, float)) and not isinstance(value, bool) and p.low <= value <= p.high:
            return ""
        return f"expected as prediction {p.what}, a number from {p.low:g} to {p.high:g}, found {show(value)}. Fix: return such a number."

    def _measured(self, answer: Callable[..., Any]) -> Verdict:
        cases = dict(self.cases())
        found = within(SECONDS, lambda: {name: _run(answer, arguments, self.read) for name, arguments in cases.items()})
        if any(outcome.stub for outcome in found.values()):
            return Verdict(0, "not done yet: the function still raises NotImplementedError. Replace that line by your code.")
        expected = {name: _run(self.right, arguments, self.read) for name, arguments in cases.items()}
        wrong = self._wrong(found, expected)
        if not wrong or any(not self._wrong(found, {n: _run(right, a, self.read) for n, a in cases.items()}) for right in self.also_right):
            return Verdict(1, f"right. {self.after}")
        if mistake := self._named(found, wrong, cases):
            text = mistake.message if isinstance(mistake.message, str) else mistake.message(*cases[wrong[0]])
            return Verdict(mistake.credit, f"not yet right. {text}")
        return Verdict(0, self._unnamed(wrong[0], found[wrong[0]], expected[wrong[0]], len(cases) - len(wrong), len(cases)))

    def _named(self, found: Mapping[str, Outcome], wrong: list[str], cases: Mapping[str, tuple]) -> Mistake | None:
        """Of the mistakes that give what was found in all wrong cases, the one that gives it in the most cases, and at least in half of them.

        An error is the mistake's only when it says the same: many mistakes end in a ValueError.
        """
        fits = {}
        for number, mistake in enumerate(self.mistakes):
            made = {name: _run(mistake.made, arguments, self.read) for name, arguments in cases.items()}
            other = self._wrong(found, made)
            if not set(other) & set(wrong) and 2 * len(other) <= len(cases) and all(found[name].says == made[name].says for name in wrong):
                fits[number] = len(other)
        return self.mistakes[min(fits, key=fits.get)] if fits else None

    def _wrong(self, found: Mapping[str, Outcome], expected: Mapping[str, Outcome]) -> list[str]:
        return [name for name in found if not found[name].same(expected[name], self.rtol, self.atol)]

    def _unnamed(self, case: str, found: Outcome, expected: Outcome, good: int, cases: int) -> str:
        tally = f"{good} of {cases} cases are right. The first that is not: {case}. "
        if found.error:
            return f"not yet right. {tally}Expected {self.returns}, but your function {found.error}."
        if found.value is None:
            return f"not yet right. Your function gave back None; expected {self.returns}. Fix: is the `return` missing?"
        if found.unread and not expected.unread:
            return f"not yet right. {tally}Expected {self.returns}; found {form(found.value)}."
        return f"not yet right. {tally}It should return {self.returns}; {difference(found.value, expected.value, self.rtol, self.atol)}."


@dataclass(frozen=True)
class Outcome:
    """What came of one call: a value (`unread`: of a form that the check can't read), or an error: in words, its type and what it says itself."""

    value: Any = None
    error: str = ""
    kind: str = ""
    says: str = ""
    unread: bool = False

    @property
    def stub(self) -> bool:
        return self.kind == "NotImplementedError"

    def same(self, other: Outcome, rtol: float, atol: float) -> bool:
        return self.kind == other.kind and (bool(self.kind) or same(self.value, other.value, rtol, atol))


def _run(function: Callable[..., Any], arguments: tuple, read: Callable[[Any], Any] = plain) -> Outcome:
    """One call on copies of the arguments, so that an answer that changes them can't spoil the next call.

    Warnings are left out and what goes to stderr comes to stdout: nbgrader gives no points to a check that wrote to stderr.
    """
    arguments = tuple(copy.deepcopy(a) if isinstance(a, (list, dict)) or hasattr(a, "tolist") else a for a in arguments)
    try:
        with contextlib.redirect_stderr(sys.stdout), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = function(*arguments)
    except (Exception, SystemExit) as error:
        return Outcome(error=_in_words(error, function), kind=type(error).__name__, says=str(error))
    if value is None:
        return Outcome()
    try:
        return Outcome(read(value))
    except (Exception, SystemExit):  # an answer of another form than `read` knows is shown as it is
        return Outcome(plain(value), unread=True)


def _in_words(error: BaseException, function: Callable[..., Any]) -> str:
    """An error and the line of the learner's code where it arose, without a traceback."""
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    line = f", at the line `{frames[-1].line}`" if frames and frames[-1].line else ""
    text = " ".join(str(error).split())
    return f"stopped with {type(error).__name__}{': ' + text[:200] if text else ''}{line}"
