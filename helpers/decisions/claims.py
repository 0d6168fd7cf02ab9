"""The claims ledger: what documents say beside what this course measured, with the verdict computed from stored rows. Explained in lesson 09.

A claim's check reads rows or a lesson's stored output, which the tests run and compare, and returns what it found. `ledger` runs them all.
A check whose rows are not there yet says so, and names the command.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Callable, Iterable, Mapping

import pandas as pd

from helpers import results
from helpers.evaluation import Interval

from . import evidence
from .evidence import Cite, Rows

HOLDS, WHEN, NOT = "holds", "holds when", "does not hold here"
OPEN, UNTESTED, PENDING = "not told apart here", "not tested here", "not measured yet"  # OPEN: measured, and the interval holds 0
VERDICTS = (HOLDS, WHEN, NOT, OPEN, UNTESTED, PENDING)
DOCUMENTS = {
    "tuning": "Fine-tuning your LLM (Marathi and Nepali translations)", "slmops": "SLMOps: fine-tuning (Marathi translation)",
    "expert": "Let Phi-3 become an industry expert (Marathi translation)", "scenarios": "Fine-tuning scenarios (Marathi translation)",
    "sisters": "Pages that stand beside the last two",
}


@dataclass(frozen=True)
class LessonCite:
    """What a lesson stores as output under one of its headings."""

    lesson: str
    heading: str
    value: str

    def __str__(self) -> str:
        return f"lesson {self.lesson}, {self.heading}: {self.value}"


@dataclass(frozen=True)
class Finding:
    """What a check found. `seen`: in words and numbers; `when`: the condition of "holds when"."""

    verdict: str
    seen: str
    sources: tuple[Cite | LessonCite, ...] = ()
    when: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a document that a cell can test, or why none can. `where`: the lesson that measures it."""

    id: str
    document: str
    says: str
    where: str
    check: Callable[[Rows], Finding] | None = None
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    claim: Claim
    finding: Finding

    def __str__(self) -> str:
        condition = f" {self.finding.when}" if self.finding.when else ""
        return f"{self.claim.id}. “{self.claim.says}” {self.finding.verdict}{condition}: {self.finding.seen}"


class Pending(LookupError):
    """Rows that a check needs are not measured yet; the message is the command that measures them."""


CLAIMS: list[Claim] = []


def claim(id: str, document: str, says: str, where: str) -> Callable[[Callable[[Rows], Finding]], Callable[[Rows], Finding]]:
    """Put a check into the ledger."""
    def add(check: Callable[[Rows], Finding]) -> Callable[[Rows], Finding]:
        CLAIMS.append(Claim(id, document, says, where, check))
        return check

    return add


def untested(id: str, document: str, says: str, why: str) -> None:
    """Put a claim into the ledger that this course does not test."""
    CLAIMS.append(Claim(id, document, says, "", None, why))


def all_claims() -> tuple[Claim, ...]:
    """All claims, document by document."""
    from . import claims_costs, claims_data, claims_documents  # noqa: F401  importing them fills CLAIMS, once

    return tuple(sorted(CLAIMS, key=lambda one: list(DOCUMENTS).index(one.document)))


def ledger(rows: Rows | None = None) -> list[Entry]:
    """Every claim with its finding, from the stored rows or from `rows`. Raises LookupError where a lesson lost the output that a claim reads."""
    rows = evidence.stored_rows() if rows is None else rows
    return [Entry(one, judge(one, rows)) for one in all_claims()]


def ledger_table(entries: Iterable[Entry]) -> pd.DataFrame:
    """The ledger as a table: one line per claim, index its id; columns `document`, `says`, `verdict` with its condition, `seen` and `sources`."""
    return pd.DataFrame([{
        "id": one.claim.id, "document": DOCUMENTS[one.claim.document], "says": one.claim.says,
        "verdict": f"{one.finding.verdict} {one.finding.when}".strip(),
        "seen": one.finding.seen, "sources": "; ".join(map(str, one.finding.sources)),
    } for one in entries]).set_index("id")


def judge(one: Claim, rows: Rows) -> Finding:
    """The finding of one claim; "not measured yet" where rows are missing."""
    if one.check is None:
        return Finding(UNTESTED, one.why)
    try:
        return one.check(rows)
    except Pending as missing:
        return Finding(PENDING, f"{missing}")


# ---------------------------------------------------------------- what checks are made of


def row(rows: Rows, family: str, /, **wanted: Any) -> Mapping[str, Any]:
    """The last row of a family with the wanted recipe. Raises Pending where there is none."""
    found = evidence.pick(rows, family, **wanted)
    if not found:
        raise Pending(evidence.command(family, wanted.get("need")))
    return found[-1]


def technique(need: str, name: str, rows: Rows) -> evidence.Measured:
    """A technique measured on a need. Raises Pending where it is not."""
    found = evidence.measured(need, rows)
    if name not in found:
        raise Pending(evidence.measuring(need))
    return found[name]


def either(condition: bool, seen: str, *sources: Cite | LessonCite) -> Finding:
    """HOLDS or NOT."""
    return Finding(HOLDS if condition else NOT, seen, sources)


def by_lead(lead: Interval | None, seen: str, *sources: Cite | LessonCite) -> Finding:
    """What the paired lead of the claim's side says: HOLDS when its whole interval is above 0, NOT when below, else OPEN.

    Raises Pending without one: then the scores row by row are not stored, and nothing is paired."""
    if lead is None:
        raise Pending("the scores row by row, of both")
    return Finding(HOLDS if lead.low > 0 else NOT if lead.high < 0 else OPEN, f"{seen}, lead {lead}", sources)


def by_scores(a: Interval, b: Interval, seen: str, *sources: Cite | LessonCite) -> Finding:
    """As `by_lead` where only the two scores are stored: their intervals must lie apart."""
    return Finding(HOLDS if apart(a, b) else NOT if apart(b, a) else OPEN, seen, sources)


def apart(a: Interval, b: Interval) -> bool:
    """Whether a lies above b with its whole interval."""
    return a.low > b.high


def lesson_output(stem: str, heading: str) -> str:
    """The stored outputs, as text, of the cells under a heading of a lesson, such as ("05_lora", "Train")."""
    return _outputs(stem, (results.rows.FOLDER.parent / f"{stem}.ipynb").stat().st_mtime_ns).get(heading, "")


def read_lesson(stem: str, heading: str, pattern: str) -> tuple[re.Match[str], LessonCite]:
    """The first match of a pattern in what a lesson stores under a heading. Raises LookupError when it is gone."""
    found = re.search(pattern, lesson_output(stem, heading))
    if not found:
        raise LookupError(f"lessons/{stem}.ipynb, {heading!r}: expected an output that matches {pattern!r}, found none. "
                          "Fix: mend the claim that reads it, or refresh the lesson.")
    return found, LessonCite(stem[:2], heading, " ".join(found[0].split()))


@cache
def _outputs(stem: str, _changed: int) -> dict[str, str]:
    notebook = json.loads((results.rows.FOLDER.parent / f"{stem}.ipynb").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    heading = ""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = ([line.lstrip("# ") for line in text.splitlines() if line.startswith("#")] or [heading])[-1]
            continue
        for output in cell.get("outputs", ()):
            found.setdefault(heading, []).extend(_texts(output))
    return {name: "\n".join(parts) for name, parts in found.items()}


def _texts(output: Mapping[str, Any]) -> Iterable[str]:
    yield "".join(output.get("text", ""))
    yield "".join(output.get("data", {}).get("text/plain", ""))
