"""A learner's own chat JSONL, or one of the two small sets in labs/data: read, checked and split, or refused with one error. Explained in lab 11."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn, Sequence

from .contract import DataError, Row, read_chat
from .splits import SPLITS, Pair, leaks, near_duplicates, stratified_split

FOLDER = Path(__file__).resolve().parents[2] / "labs" / "data"
SETS = ("library", "bicycles")
LEAST = {"train": 32, "test": 12}  # rows; with fewer, no lead short of an overwhelming one can be told from luck
LEAST_IN_ALL = 60  # of these a fifth is test
FEW_ANSWERS = 20  # up to so many different answers count as labels, which a split shares out alike


def load_own(source: str | Path, instruction: str | None = None, likeness: float = 0.5) -> dict[str, list[Row]]:
    """The parts train, validation and test of a chat JSONL file, each row with the turns system, user, assistant.

    `source`: a path, or "library" or "bicycles" for one of the two sets in labs/data. `instruction`: the system turn of rows that
    have none. Rows keep the `split` that the file gives them; where no row has one, a tenth goes to validation and a fifth to test,
    each label shared out alike. `likeness`: two questions that share more than this part of their word sequences count as the same
    (0 to 1, as in `near_duplicates`); raise it only after you have read the pairs.

    Raises DataError at the first thing that would spoil a measurement: what `read_chat` refuses, other turns, an instruction that is
    missing, splits that are unknown or given in part, too few rows, and questions of the test part that also stand in another part.
    """
    path = FOLDER / f"{source}.jsonl" if source in SETS else Path(source)
    rows = [_with_instruction(path, row, instruction) for row in read_chat(path)]
    parts = _split(path, rows, likeness)
    for part, least in LEAST.items():
        if len(parts[part]) < least:
            _refuse(path, f"at least {least} rows in the part {part}", f"{len(parts[part])} (of {len(rows)} in all)",
                    "add rows, or take \"library\" or \"bicycles\" until you have them")
    if found := leaks(parts, likeness):
        _refuse(path, "no question of one part in another part", _pairs(found),
                "delete one of each pair, so that the test asks what the training has not shown")
    return parts


def _with_instruction(path: Path, row: Row, instruction: str | None) -> Row:
    roles = [turn["role"] for turn in row["messages"]]
    if roles == ["system", "user", "assistant"]:
        return row
    if roles != ["user", "assistant"]:
        _refuse(path, "the turns user, assistant, with a system turn before them or without", f"{', '.join(roles)} in the row {row['id']!r}",
                "make one row of each question with its answer")
    if not (instruction or "").strip():
        _refuse(path, "an instruction in each row: a system turn before the question", f"none in the row {row['id']!r}",
                "give load_own(…, instruction=\"…\"), one sentence that says what to answer")
    return row | {"messages": [{"role": "system", "content": instruction}, *row["messages"]]}


def _split(path: Path, rows: Sequence[Row], likeness: float) -> dict[str, list[Row]]:
    given = [row.get("split") for row in rows]
    if any(given):
        if odd := next((row for row in rows if row.get("split") not in SPLITS), None):
            _refuse(path, f"a `split` in each row or in none, out of {', '.join(SPLITS)}", f"{odd.get('split')!r} in the row {odd['id']!r}",
                    "mend it, or remove `split` from all rows")
        return {part: [row for row in rows if row["split"] == part] for part in SPLITS}
    if len(rows) < LEAST_IN_ALL:
        _refuse(path, f"at least {LEAST_IN_ALL} rows, or a `split` in each", f"{len(rows)} rows without one",
                "add rows, or take \"library\" or \"bicycles\" until you have them")
    if found := near_duplicates(rows, likeness):
        _refuse(path, "each question once, since any of its copies may fall into the test part",
                _pairs(found), "delete one of each pair")
    answers = {row["messages"][-1]["content"] for row in rows}
    return stratified_split(rows, lambda row: row["messages"][-1]["content"] if len(answers) <= FEW_ANSWERS else "")


def _pairs(found: Sequence[Pair]) -> str:
    return f"{len(found)} pair{'s' if len(found) > 1 else ''} nearly or exactly the same, first the rows {found[0].first!r} and {found[0].second!r}"


def _refuse(path: Path, expected: str, found: str, fix: str) -> NoReturn:
    raise DataError(f"{path}: expected {expected}; found {found}. Fix: {fix}.")
