"""The ship / don't-ship card: the rules are written before the numbers, and the numbers decide. Explained in lesson 08."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Literal, Mapping, NamedTuple, Sequence

from .intervals import Interval

NEEDS = {"at_least": "at least", "at_most": "at most", "better_than": "more than"}
SIDES = {"bound": "interval", "estimate": "estimate"}


@dataclass(frozen=True)
class Rule:
    """One condition for shipping.

    `name`: the key of the measured value; `metric`: what is measured, in words, with its unit. `need`: `at_least` and `at_most`
    take the value itself, `better_than` does not (a difference must be more than 0). `by`: `bound` asks it of the worst value in
    the interval (its low end, for `at_most` its high end), `estimate` of the estimate alone. Raises ValueError for another need,
    another `by`, an empty name, or a value that is not a finite number.
    """

    name: str
    metric: str
    need: Literal["at_least", "at_most", "better_than"]
    value: float
    by: Literal["bound", "estimate"] = "bound"

    def __post_init__(self) -> None:
        for what, found, allowed in (("need", self.need, NEEDS), ("by", self.by, SIDES)):
            if found not in allowed:
                raise ValueError(f"Rule: expected {what} to be one of {', '.join(allowed)}, got {found!r}. Fix: choose one of them.")
        if not self.name or not self.metric:
            raise ValueError(f"Rule: expected a name and a metric in words, got {self.name!r} and {self.metric!r}. Fix: say what is measured.")
        if not math.isfinite(self.value):
            raise ValueError(f"Rule: expected a finite number to compare with, got {self.value}. Fix: decide the number before you measure.")

    def required(self) -> str:
        """The condition in words, such as "interval at least 0.8"."""
        return f"{SIDES[self.by]} {NEEDS[self.need]} {self.value:g}"

    def met(self, measured: Interval) -> bool:
        """Whether a measured value keeps the rule. A value that is not a number keeps none."""
        worst = measured.high if self.need == "at_most" else measured.low
        found = worst if self.by == "bound" else measured.estimate
        if self.need == "better_than":
            return found > self.value
        return found <= self.value if self.need == "at_most" else found >= self.value


class Line(NamedTuple):
    """One line of a card. `verdict`: met, not met, or not measured."""

    rule: Rule
    measured: Interval | None
    verdict: str


@dataclass(frozen=True, repr=False)
class Card:
    """The rules beside what was measured. `hash` belongs to the rules alone; see `rules_hash`."""

    lines: tuple[Line, ...]
    hash: str

    @property
    def ship(self) -> bool:
        """True when every rule is met. A rule that was not measured is not met."""
        return all(line.verdict == "met" for line in self.lines)

    @property
    def decision(self) -> str:
        """The decision and its reason in one sentence."""
        failed = [line.rule.name for line in self.lines if line.verdict != "met"]
        return "Ship: every rule is met." if self.ship else f"Don't ship: {len(failed)} of {len(self.lines)} rules not met ({', '.join(failed)})."

    def _cells(self) -> list[list[str]]:
        return [[f"{line.rule.name}: {line.rule.metric}", line.rule.required(), _shown(line.measured), line.verdict] for line in self.lines]

    def __str__(self) -> str:
        table = [["rule", "required", "measured", "verdict"], *self._cells()]
        widths = [max(len(row[k]) for row in table) for k in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        return "\n".join([*lines, self.decision, f"rules {self.hash}"])

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        rows = [["rule", "required", "measured", "verdict"], ["---"] * 4, *([_plain(cell) for cell in row] for row in self._cells())]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n**{_plain(self.decision)}** Rules `{self.hash}`."


def rules_hash(rules: Sequence[Rule]) -> str:
    """Eight hexadecimal digits that change when any rule, or their order, changes (SHA-256, the first 32 bits).

    Print it before you measure: the same digits on the card at the end show that the rules did not change after the numbers.
    It guards against memory and temptation, not against somebody who writes both afterwards. Raises ValueError as `card` does.
    """
    if not rules:
        raise ValueError("rules: expected at least one, got none. Fix: write down what must hold before anybody uses the system.")
    names = [rule.name for rule in rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"rules: expected each name once, got {', '.join(twice)} twice or more. Fix: give every rule a name of its own.")
    text = json.dumps([{**asdict(rule), "value": float(rule.value)} for rule in rules], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def card(rules: Sequence[Rule], measured: Mapping[str, Interval | float]) -> Card:
    """Hold measured values against rules that were written before.

    `measured`: name of a rule -> what was measured, in the rule's unit. A rule without a value counts as not met. A plain number
    has no interval, so it can serve only a rule with `by="estimate"`. Raises ValueError for no rules, a name that two rules have,
    a measured name that no rule has, and a plain number where a bound is asked for. After the idea of release criteria in "The ML
    Test Score" (Breck et al. 2017). Explained in lesson 08.
    """
    digest = rules_hash(rules)
    if unknown := sorted(set(measured) - {rule.name for rule in rules}):
        raise ValueError(f"card: expected measured values under the names of rules, got {', '.join(unknown)}. "
                         f"Fix: use {', '.join(rule.name for rule in rules)}; a new rule needs new numbers.")
    lines = []
    for rule in rules:
        found = measured.get(rule.name)
        if found is not None and not isinstance(found, Interval):
            if rule.by == "bound":
                raise ValueError(f"card: {rule.name}: expected an Interval, because the rule asks for its bound, got {found!r}. "
                                 "Fix: use proportion, bootstrap or compare_paired, or write the rule for the estimate.")
            found = Interval(float(found), float(found), float(found))
        lines.append(Line(rule, found, "not measured" if found is None else "met" if rule.met(found) else "not met"))
    return Card(tuple(lines), digest)


def _shown(measured: Interval | None) -> str:
    """A measured value; a plain number without an interval that it does not have."""
    if measured is None:
        return "-"
    bare = measured.low == measured.estimate == measured.high
    return f"{measured.estimate:.3f}".rstrip("0").rstrip(".") if bare else str(measured)


def _plain(text: str) -> str:
    """Text that means nothing to Markdown or HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    return "".join("\\" + c if c in "\\|*_`[]$" else c for c in text)
