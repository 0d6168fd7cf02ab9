"""The class's gradebook, which is nbgrader's: a blank one for each submission, what was graded taken in, scores read. No learner's code runs here."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping

from . import causes, process
from .process import Limits

AUTOGRADE = (sys.executable, "-m", "nbgrader", "autograde")
REFUSED = "not graded: "
TRIES = 4  # of the second stage
NO_CODE = {"sanitize_preprocessors": ("DeduplicateIds", "OverwriteKernelspec", "OverwriteCells", "CheckCellMetadata"),
           "autograde_preprocessors": ("IgnorePattern", "SaveAutoGrades", "AssignLatePenalties", "CheckCellMetadata")}


class GradingError(Exception):
    """The class can't be graded; the text says what to mend."""


@dataclass(frozen=True)
class Row:
    """One submission. `score` is None where it was not graded; `causes` are what stood out; `seconds` it took."""

    name: str
    score: float | None
    maximum: float
    causes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def cause(self) -> str:
        return (REFUSED if self.score is None else "") + ("; ".join(self.causes) or "all checks passed")


@dataclass(frozen=True)
class Batch:
    """What all submissions of one assignment share. `blank`: a gradebook with the assignment and nobody in it."""

    course: Path
    assignment: str
    work: Path
    limits: Limits

    @property
    def blank(self) -> Path:
        return self.work / "blank.db"

    @property
    def graded(self) -> Path:
        return self.work / "graded"

    @property
    def fresh(self) -> Path:
        """Where the second stage writes."""
        return self.work / "fresh"

    @property
    def released(self) -> Path:
        return next(iter(sorted((self.course / "release" / self.assignment).glob("*.ipynb"))))


def find_tools() -> None:
    """nbgrader starts `alembic` by its name: put it on the PATH, for an environment that was not activated."""
    scripts, paths = str(Path(sys.executable).parent), os.environ.get("PATH", "").split(os.pathsep)
    if scripts not in paths:
        os.environ["PATH"] = os.pathsep.join([scripts, *filter(None, paths)])


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """nbgrader's Gradebook of a file. Raises GradingError where the database is locked or broken."""
    from nbgrader.api import Gradebook
    from sqlalchemy.exc import SQLAlchemyError

    find_tools()
    try:
        with Gradebook(f"sqlite:///{file}") as book:
            yield book
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise GradingError(f"{file.name}: expected nbgrader's gradebook, free to use, found: {causes.clean(str(error).splitlines()[0], 200)}. "
                           "Fix: close Formgrader and other programs that use it, grade again; nothing was changed.") from error


def blank(course: Path, target: Path) -> None:
    """A copy of the gradebook with the assignments and without people, also not in the file's unused pages. Raises GradingError."""
    shutil.copyfile(course / "gradebook.db", target)
    with opened(target) as book:
        for student in [student.id for student in book.students]:
            book.remove_student(student)
    with sqlite3.connect(target) as connection:
        connection.execute("VACUUM")
    connection.close()


def take_in(batch: Batch, names: Iterable[str]) -> set[str]:
    """nbgrader takes the graded notebooks of `names` into the class's folder and gradebook. Gives back whose: it may refuse some.

    It works on copies; what is the class's changes at the end, when all is well. Where it refuses a notebook, or where somebody writes
    into the gradebook meanwhile, it begins again. Raises GradingError; then nothing was changed.
    """
    book, wanted, why = batch.course / "gradebook.db", set(names), ""
    for _ in range(TRIES):
        for folder in batch.graded.iterdir() if batch.graded.is_dir() else ():
            if folder.name not in wanted:
                shutil.rmtree(folder)
        if not wanted:
            return wanted
        before = book.read_bytes()
        taken, why = _second_stage(batch, wanted)
        if taken == wanted and book.read_bytes() == before:
            _put(batch, taken)
            return taken
        if not taken:
            break
        wanted, why = taken, "somebody else wrote into it"
    raise GradingError(f"gradebook.db: expected nbgrader to write it, found: {why}. Fix: close Formgrader, grade again; nothing was changed.")


def _second_stage(batch: Batch, names: set[str]) -> tuple[set[str], str]:
    """`nbgrader autograde` into a copy of the gradebook. Gives back whose notebooks came through, and the last line that it printed.

    It puts points and checks back once more from its own copy, and counts them from the outputs.
    """
    shutil.rmtree(batch.fresh, ignore_errors=True)
    batch.fresh.mkdir()
    shutil.copyfile(batch.course / "gradebook.db", batch.fresh / "gradebook.db")
    _forget_scores(batch, names)
    folders = {"db_url": f"sqlite:///{batch.fresh / 'gradebook.db'}", "submitted_directory": batch.graded,
               "autograded_directory": batch.fresh / "autograded"}
    settings = [f"--CourseDirectory.{trait}={value}" for trait, value in folders.items()]
    settings += [f"--Autograde.{trait}=nbgrader.preprocessors.{name}" for trait, used in NO_CODE.items() for name in used]
    command = [*AUTOGRADE, batch.assignment, "--OverwriteCells.add_missing_cells=False", *settings]
    log = batch.work / "gradebook.txt"
    ended = process.run(command, batch.course, dict(os.environ), replace(batch.limits, seconds=120 + 20 * len(names)), log)
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    last = next((causes.clean(line, 200) for line in reversed(lines) if line.strip()), "it gave no reason")
    if ended.limit:
        return set(), f"the limit of {ended.limit} was passed"
    return {name for name in names if (batch.fresh / "autograded" / name / batch.assignment / batch.released.name).is_file()}, last


def _forget_scores(batch: Batch, names: set[str]) -> None:
    """The automatic points of an earlier run go, so that none of them stays where a check is missing now. What people gave stays."""
    from nbgrader.api import MissingEntry

    with opened(batch.fresh / "gradebook.db") as book:
        for name in names:
            try:
                for notebook in book.find_submission(batch.assignment, name).notebooks:
                    for one in notebook.grades:
                        one.auto_score = None
            except MissingEntry:
                pass
        book.db.commit()


def _put(batch: Batch, names: set[str]) -> None:
    """The new gradebook and notebooks take the place of the class's; the gradebook in one step, also where Formgrader has it open."""
    from nbgrader.utils import rmtree

    def impatient(status: int, *_: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):  # else it would wait for ever
            raise sqlite3.OperationalError("the database is locked")

    with contextlib.closing(sqlite3.connect(batch.fresh / "gradebook.db")) as source:
        with contextlib.closing(sqlite3.connect(batch.course / "gradebook.db")) as target:
            try:
                source.backup(target, progress=impatient)
            except sqlite3.Error as error:
                raise GradingError(f"gradebook.db: expected to write it, found: {error}. Fix: close Formgrader, grade again; nothing was changed."
                                   ) from error
    for name in names:
        place = batch.course / "autograded" / name / batch.assignment
        if place.exists():
            rmtree(str(place))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(batch.fresh / "autograded" / name / batch.assignment, place)


def with_score(batch: Batch, row: Row, taken: set[str]) -> Row:
    """The row with nbgrader's score and what the graded notebook tells. `taken`: whose notebooks nbgrader took in."""
    from nbgrader.api import MissingEntry

    with opened(batch.course / "gradebook.db") as book:
        maximum = float(book.find_assignment(batch.assignment).max_score)
        try:
            submission = book.find_submission(batch.assignment, row.name)
        except MissingEntry:
            submission = None
        if row.name not in taken:
            refused = () if row.maximum < 0 else ("nbgrader could not read the graded notebook",)
            old = ("the gradebook still holds the score of an earlier submission",) if submission and submission.score else ()
            return replace(row, maximum=maximum, causes=(*refused, *row.causes, *old))
        points = {one.cell.name: one.auto_score for notebook in submission.notebooks for one in notebook.grades}
        file = batch.course / "autograded" / row.name / batch.assignment / batch.released.name
        return replace(row, score=float(submission.score), maximum=maximum, causes=row.causes + _told(file, points))


def _told(file: Path, points: Mapping[str, float | None]) -> tuple[str, ...]:
    """What a graded notebook tells. It raises nothing: a notebook of a kind that nobody thought of must not cost the others their rows."""
    try:
        return tuple(causes.after(causes.read(file), points))
    except Exception as error:
        return (f"the graded notebook can't be read: look at it by hand: {causes.clean(f'{type(error).__name__}: {error}')}",)
