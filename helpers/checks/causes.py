"""Why a submission got what it got: read from the notebook before and after grading, in words. No score is made here.

`before` compares a submission with the released notebook, `after` reads the graded one, `stopped` says why nbgrader gave up.
A cause is a line for a table; all texts that come from a learner are shortened and made harmless.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import nbformat

VERDICT = re.compile(r"^([0-9]+(?:\.[0-9]+)?) of ([0-9]+(?:\.[0-9]+)?) points\.$", re.M)  # the last line of a check
MINE = re.compile(r"checks\.lab\d\d\.exercise_\d+\(")  # a check of this course
OURS = ("timestamp.txt", "submission_secret.txt")  # what `nbgrader submit` adds
LARGEST = 50_000_000  # bytes of a notebook
TRUNCATED = "... Output truncated ..."


@dataclass(frozen=True)
class Before:
    """What was found before anything ran. `refused`: why it can't be graded. `file`: the notebook that is graded. `odd`: causes."""

    refused: str = ""
    file: str = ""
    odd: tuple[str, ...] = ()
    restore: bool = True  # whether nbgrader can put back check cells that are missing


def clean(text: Any, most: int = 140) -> str:
    """One harmless line for a table: no control characters, no colours, none of the marks of Markdown, HTML and spreadsheets."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[|`<>\\\[\]]|[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]", "", str(text))
    line = " ".join(plain.split()).lstrip("=+-@ ")
    return line if len(line) <= most else line[:most - 1] + "…"


def marks(cell: Any) -> dict[str, Any]:
    """A cell's nbgrader metadata; empty when there is none."""
    found = cell.metadata.get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def called(grade_id: str) -> str:
    """`lab01_exercise_3_answer` -> `exercise 3`."""
    found = re.search(r"exercise_(\d+)", grade_id)
    return f"exercise {found.group(1)}" if found else clean(grade_id, 40)


def cells_by_id(notebook: Any) -> dict[str, Any]:
    """grade_id -> cell; the last one counts where an id stands twice, as nbgrader has it."""
    return {marks(cell)["grade_id"]: cell for cell in notebook.cells if isinstance(marks(cell).get("grade_id"), str)}


def read(path: Path) -> Any:
    """A notebook. Raises ValueError with the cause in words."""
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"the file is too large: expected at most {LARGEST / 1e6:.0f} MB, found {size / 1e6:.0f} MB")
    raw = path.read_bytes()
    if not raw.strip():
        raise ValueError("the file is empty")
    try:
        text = raw.decode("utf-8")
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the file is not JSON, so it is no notebook") from None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        raise ValueError("the file is JSON, but no notebook of format 4")
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises many kinds
        raise ValueError(f"the file is no valid notebook: {clean(error, 80)}") from None
    return notebook


# ---------------------------------------------------------------- before


def before(folder: Path, released: Path) -> Before:
    """Compare a submission's folder with the released notebook (`release/ASSIGNMENT/NAME.ipynb`)."""
    if links := [path for path in folder.rglob("*") if path.is_symlink()]:
        return Before(f"{clean(links[0].relative_to(folder), 60)} is a link to another place")
    master = read(released)
    name, odd = released.name, _extra(folder, released.parent)
    file = folder / name
    if not file.is_file():
        renamed = [path for path in sorted(folder.glob("*.ipynb")) if _belongs(path, master)]
        if len(renamed) != 1:
            found = ", ".join(clean(p.name, 40) for p in sorted(folder.iterdir()) if p.name not in OURS)[:120] or "nothing"
            return Before(f"no file {name}; found: {found}")
        file = renamed[0]
        odd = [f"the file was named {clean(file.name, 60)}; graded as {name}", *(o for o in odd if clean(file.name, 60) not in o)]
    try:
        notebook = read(file)
    except ValueError as error:
        return Before(str(error), file.name, tuple(odd))
    changes, restore = _changes(notebook, master)
    return Before("", file.name, tuple(odd + changes), restore)


def _belongs(path: Path, master: Any) -> bool:
    """Whether a notebook of another name is this lab: it carries its ids."""
    try:
        return bool(cells_by_id(master).keys() & cells_by_id(read(path)).keys())
    except ValueError:
        return False


def _extra(folder: Path, released: Path) -> list[str]:
    given = {str(p.relative_to(released)) for p in released.rglob("*") if p.is_file()}
    extra = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".ipynb_checkpoints" not in p.parts)
    return [f"extra file: {clean(name, 60)}" for name in extra if name not in given and name not in OURS][:5]


def _changes(notebook: Any, master: Any) -> tuple[list[str], bool]:
    """What differs in the cells that nbgrader marks, and whether nbgrader can put back the missing checks.

    It puts a check behind the marked cell that came before it, and fails where that is missing too.
    """
    wanted, found = cells_by_id(master), cells_by_id(notebook)
    odd, restore, earlier = [], True, None
    ids = [marks(cell).get("grade_id") for cell in notebook.cells]
    for grade_id, cell in wanted.items():
        check, own = bool(marks(cell).get("grade")), found.get(grade_id)
        if own is None:
            restore = restore and not (check and earlier is not None and earlier not in found)
            odd.append(f"{called(grade_id)}: the {'check' if check else 'answer'} cell is missing, or its nbgrader metadata")
        else:
            odd += [f"{called(grade_id)}: {text}" for text in _cell_changes(own, cell, check)]
            if ids.count(grade_id) > 1:
                odd.append(f"{called(grade_id)}: the {'check' if check else 'answer'} cell stands there {ids.count(grade_id)} times; the last counts")
        earlier = grade_id
    if not restore:
        odd.append("check cells without an answer cell before them can't be put back: they get no points")
    return odd, restore


def _cell_changes(own: Any, master: Any, check: bool) -> list[str]:
    told, kind = [], "check" if check else "answer"
    if check and own.source != master.source:
        told.append("the check cell was changed; nbgrader put it back")
    if not check and own.source == master.source:
        told.append("not attempted")
    changed = [key for key in ("points", "grade", "solution", "locked") if marks(own).get(key) != marks(master).get(key)]
    if changed or own.cell_type != master.cell_type:
        told.append(f"metadata of the {kind} cell changed ({', '.join(changed) or 'cell type'}); nbgrader grades with its own")
    if "skip-execution" in own.metadata.get("tags", []):
        told.append(f"the {kind} cell was tagged skip-execution; it was run all the same")
    return told


# ---------------------------------------------------------------- after


def after(notebook: Any, scores: Mapping[str, float | None]) -> list[str]:
    """Read a graded notebook. `scores`: grade_id of a check -> nbgrader's points, None where it gave none."""
    told = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        grade_id = marks(cell).get("grade_id", "")
        where = called(grade_id) if grade_id else f"cell {number}"
        if any(TRUNCATED in output.get("text", "") for output in cell.outputs):
            told.append(f"{where}: its output was cut, it was too long")
        errors = [output for output in cell.outputs if output.output_type == "error"]
        late = any(output.ename == "CellTimeoutError" for output in errors)  # then nbgrader interrupted the cell
        told += [f"{where}: {_error(e)}" for e in errors if not _follows(e, grade_id) and not (late and e.ename == "KeyboardInterrupt")]
        if marks(cell).get("grade"):
            told += [f"{where}: {text}" for text in _check(cell, scores.get(grade_id))]
    return told


def _follows(output: Any, grade_id: str) -> bool:
    """Whether an error only follows from another one that the table names: a stub's, or in a cell that uses a missing function."""
    return output.ename == "NotImplementedError" or (not grade_id and output.ename == "NameError")


def _error(output: Any) -> str:
    if output.ename == "CellTimeoutError":
        return "took too long and was stopped"
    if output.ename == "MemoryError":
        return "asked for more memory than there is for grading (MemoryError)"
    return clean(f"{output.ename}: {output.evalue}" if output.evalue else output.ename, 120)


def _check(cell: Any, score: float | None) -> list[str]:
    """What a check said below full marks, and whether nbgrader's points are the ones it said."""
    text = "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
    said = VERDICT.findall(text)
    if any(output.output_type == "error" for output in cell.outputs) or not MINE.search(cell.source):
        return []
    if score is None or not said or float(said[-1][0]) != score:
        return [f"nbgrader gave {'no points' if score is None else f'{score:g} points'}, the check said "
                f"{said[-1][0] if said else 'nothing'}: look at the notebook by hand"]
    if float(said[-1][0]) == float(said[-1][1]):
        return []
    verdict = re.sub(r"^Exercise \d+: ", "", text.strip())
    return [f"{score:g} of {said[-1][1]}; {clean(VERDICT.sub('', verdict), 110)}"]


def watched(file: Path) -> list[str]:
    """What the kernel was refused: the events that `watch` wrote down, each once."""
    told = {"network": "wanted the network, which is closed: ", "outside": "wanted to change a file outside its folder: "}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    found = []
    for line in lines:
        try:
            kind, what = json.loads(line)
            found.append(told[kind] + clean(what, 80))
        except (ValueError, KeyError, TypeError):
            found.append("the record of refused actions is damaged")
    return list(dict.fromkeys(found))[:6]


# ---------------------------------------------------------------- stopped


def stopped(log: str, limit: str, cell: Mapping[str, Any]) -> str:
    """Why there is no graded notebook. `log`: what nbgrader printed. `limit`: `time`, `memory` or nothing. `cell`: the one that ran last."""
    where = f" in {called(cell['grade_id'])}" if cell.get("grade_id") else f" in cell {clean(cell['cell'], 10)}" if cell.get("cell") else ""
    if limit == "time":
        return f"the whole submission took too long and was stopped{where}"
    if limit == "memory":
        return f"used more memory than there is for grading and was stopped{where}"
    for sign, text in (("DeadKernelError", "the kernel died"), ("Kernel didn't respond", "the kernel did not start"),
                       ("UnresponsiveKernelError", "a cell did not end and could not be interrupted"),
                       ("Timeout waiting for IOPub output", "a cell did not end and could not be interrupted"),
                       ("MemoryError", "its output or its notebook is too large")):
        if sign in log:
            return text + where
    errors = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception)\b.*)$", log, re.M)
    return f"nbgrader stopped{where}: {clean(errors[-1], 120) if errors else 'it gave no reason'}"
