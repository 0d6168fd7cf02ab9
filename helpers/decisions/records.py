"""The decision record: one page of Markdown that says what was decided, from which answers, on which rows. Explained in lesson 01."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from .answers import QUESTIONS, Answers
from .evidence import Rows
from .verdict import Recommendation, recommend


def record(answers: Answers, rows: Rows | None = None) -> str:
    """The decision record of a worksheet as Markdown. Errors as for `recommend`."""
    found = recommend(answers, rows)
    lines = [f"# Decision: {_cell(answers.use_case)}", "", f"**{found.verdict}**: {found.sentence}", "", "## Reasons", ""]
    lines += [f"- {_cell(line)}" for line in found.lines()] or ["- none"]
    lines += ["", "## Conditions", "", *([f"- {one}" for one in found.conditions] or ["- none"])]
    lines += ["", "## The cheapest experiment that would change this", "", found.experiment, "", "## Costs of tuning", ""]
    lines += [f"- {line}" for line in str(found.bill).splitlines()]
    lines += ["", "## The answers", "", "| part | question | answer |", "|---|---|---|"]
    lines += [f"| {q.part} | {q.text} | {_cell(_said(q.name, getattr(answers, q.name)))} |" for q in QUESTIONS if q.name != "use_case"]
    lines += ["", "## The rows", "", *(f"{n}. {_cell(str(cite))}" for n, cite in enumerate(found.rows, 1))]
    lines += ["", "Scores in brackets are 95 % intervals. The files lie in lessons/results.", ""]
    return "\n".join(lines)


def write_record(answers: Answers, path: str | Path, rows: Rows | None = None) -> Recommendation:
    """Write the record to a file, whole or not at all, and return the recommendation. Raises OSError when it cannot be written."""
    path, text = Path(path), record(answers, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return recommend(answers, rows)


def _said(name: str, value: Any) -> str:
    if name == "config":
        sizes = [f"{value[key]:,} {words}" for key, words in (("num_hidden_layers", "layers"), ("hidden_size", "wide")) if key in value]
        return ", ".join(sizes) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value) or "nothing"
    return "not measured" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str) -> str:
    """Text that cannot break a table or start a new line."""
    return " ".join(str(text).split()).replace("|", "\\|")
