"""What was reached in the labs, in one small local file; and which exercises there are. Standard library only, but for the lock.

The file lies beside the models' cache, outside the repository; the variable `COURSE_PROGRESS` names another, and `COURSE_PROGRESS=off`
keeps nothing. Every write is made whole under a lock: to a temporary file, to the disk, then renamed. So two notebooks may write at
once, and a crash at any moment leaves the file as it was before or after.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from helpers import fetch

LABS = Path(__file__).parents[2] / "labs"
WAIT = 10  # seconds for the lock
Entry = dict[str, Any]
Book = dict[str, Entry]  # "lab08/2" -> {"points", "of", "tries", "last", "done"}


def path() -> Path | None:
    """Where progress is kept; None when it is not: switched off, in a solution notebook, or while nbgrader grades."""
    own = os.environ.get("COURSE_PROGRESS", "")
    if own.lower() == "off" or os.environ.get("NBGRADER_EXECUTION") or Path.cwd().name == "solutions":
        return None
    return Path(own).expanduser() if own else fetch.cache_dir() / "progress.json"


def read() -> Book:
    """What is stored, exercise by exercise; empty when there is nothing. Raises ValueError for a file that holds something else."""
    file = path()
    if file is None or not file.exists():
        return {}
    try:
        book = json.loads(file.read_text(encoding="utf-8"))["exercises"]
        if not all(set(entry) >= {"points", "of", "tries", "last", "done"} for entry in book.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file}: expected the progress that the labs keep, found something else. "
                         "Fix: python course.py progress --reset puts the file aside and begins anew.") from None
    return book


def record(lab: str, number: int, points: float, of: int) -> None:
    """Keep the result of one try; the best counts. What goes wrong is said in a line and stops nobody's work."""
    def add(book: Book) -> Book:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        old = book.get(f"{lab}/{number}", {"points": 0, "tries": 0, "done": None})
        best = max(old["points"], points)
        done = old["done"] or (now if best >= of else None)
        return book | {f"{lab}/{number}": {"points": best, "of": of, "tries": old["tries"] + 1, "last": now, "done": done}}

    try:
        _change(add)
    except (OSError, ValueError) as error:  # filelock's Timeout is an OSError
        print(f"(Your progress was not stored: {error})")


def reset() -> Path | None:
    """Begin anew. The old file is kept beside under another name, which is returned; None when there was none."""
    file = path()
    if file is None or not file.exists():
        return None
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    aside = file.with_name(f"{file.stem}-{stamp}{file.suffix}")
    with _lock(file):
        os.replace(file, aside)
    return aside


def export(target: str | Path) -> Path:
    """Write all exercises with what was reached to a file: CSV for `.csv`, else JSON. The file is replaced whole."""
    target, table = Path(target).expanduser(), rows()
    if target.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(table[0]) if table else ["lab"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        _write(target, text.getvalue())
    else:
        _write(target, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    return target


def rows() -> list[dict[str, Any]]:
    """One row per exercise of the labs: lab, exercise, title, minutes, points, of, tries, state (done, begun or open)."""
    book, table = read(), []
    for lab, number, title, minutes, of in catalogue():
        entry = book.get(f"{lab}/{number}", {"points": 0, "tries": 0, "done": None})
        state = "done" if entry["done"] else "begun" if entry["tries"] else "open"
        table.append({"lab": lab, "exercise": number, "title": title, "minutes": minutes, "points": entry["points"], "of": of,
                      "tries": entry["tries"], "state": state})
    return table


def catalogue(folder: Path | None = None) -> list[tuple[str, int, str, int, int]]:
    """The exercises that stand in the lab notebooks: lab, number, title, minutes, points."""
    found = []
    for notebook in sorted((folder or LABS).glob("[0-9][0-9]_*.ipynb")):
        lab, title, minutes = f"lab{notebook.name[:2]}", "", 0
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if heading := re.search(r"^## Exercise (\d+): (.+)$", source, re.M):
                title = heading.group(2).strip()
                minutes = int((re.search(r"(\d+) minutes", source) or [0, 0])[1])
            marks = cell.get("metadata", {}).get("nbgrader", {})
            if marks.get("grade") and (call := re.search(rf"checks\.{lab}\.exercise_(\d+)\(", source)):
                found.append((lab, int(call.group(1)), title, minutes, int(marks["points"])))
    return found


def show() -> Any:
    """The progress as a table (a pandas DataFrame), for a notebook; one row per lab. `picture` draws it."""
    import pandas as pd

    table = pd.DataFrame(rows(), columns=["lab", "exercise", "title", "minutes", "points", "of", "tries", "state"])
    table["done"] = table["state"] == "done"
    return table.groupby("lab").agg(exercises=("exercise", "count"), done=("done", "sum"), points=("points", "sum"), of=("of", "sum"), tries=("tries", "sum"))


def picture() -> Any:
    """The progress as a figure (`plots.Chart`): one bar per lab, points reached of points there are."""
    from helpers import plots

    labs = show()
    return plots.progress_bars({lab: (float(row.points), int(row.of)) for lab, row in labs.iterrows()})


def text() -> str:
    """The progress as plain text, one line per exercise and the sum."""
    table = rows()
    lines = [f"{r['lab']}  {r['exercise']}  {r['state']:<5}  {r['points']:>4g} of {r['of']} points  {r['title']}" for r in table]
    done, points, of = sum(r["state"] == "done" for r in table), sum(r["points"] for r in table), sum(r["of"] for r in table)
    return "\n".join([*lines, f"{done} of {len(table)} exercises done, {points:g} of {of} points"])


# ---------------------------------------------------------------- the file


def _change(change: Callable[[Book], Book]) -> None:
    file = path()
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with _lock(file):
        _write(file, json.dumps({"version": 1, "exercises": change(read())}, indent=1) + "\n")


def _lock(file: Path) -> Any:
    try:
        from filelock import FileLock
    except ImportError:
        raise OSError("expected the package filelock, found none. Fix: run once: python course.py lab") from None
    return FileLock(f"{file}.lock", timeout=WAIT)


def _write(file: Path, content: str) -> None:
    """Replace a file whole: never half of the old and half of the new."""
    part = file.with_name(f"{file.name}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
