"""The class's gradebook, which is nbgrader's: a blank one for each submission, what was graded taken in, and scores read. No code of a learner runs here."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Mapping

from . import causes, process
from .process import Limits

AUTOGRADE = (sys.executable, "-m", "nbgrader", "autograde")
REFUSED = "not graded: "
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
    def released(self) -> Path:
        return next(iter(sorted((self.course / "release" / self.assignment).glob("*.ipynb"))))


def blank(course: Path, target: Path) -> None:
    """A copy of the gradebook with the assignments and without people, also not in the file's unused pages."""
    from nbgrader.api import Gradebook

    shutil.copyfile(course / "gradebook.db", target)
    with Gradebook(f"sqlite:///{target}") as book:
        for student in [student.id for student in book.students]:
            book.remove_student(student)
    with sqlite3.connect(target) as connection:
        connection.execute("VACUUM")
    connection.close()


def take_in(batch: Batch) -> None:
    """nbgrader takes the graded notebooks into the class's folder and gradebook. No code of a learner runs here.

    It puts points and checks back once more from its own copy, and counts them from the outputs.
    """
    if not batch.graded.is_dir():
        return
    _forget_scores(batch)
    settings = [f"--Autograde.{trait}=nbgrader.preprocessors.{name}" for trait, names in NO_CODE.items() for name in names]
    command = [*AUTOGRADE, batch.assignment, "--force", f"--CourseDirectory.submitted_directory={batch.graded}",
               "--OverwriteCells.add_missing_cells=False", *settings]
    log, count = batch.work / "gradebook.txt", len(list(batch.graded.iterdir()))
    ended = process.run(command, batch.course, dict(os.environ), replace(batch.limits, seconds=120 + 20 * count), log)
    if ended.limit or (ended.code and not list((batch.course / "autograded").glob(f"*/{batch.assignment}"))):
        raise GradingError(f"nbgrader could not write the gradebook: {log.read_text(encoding='utf-8', errors='replace')[-1500:]}")


def _forget_scores(batch: Batch) -> None:
    """The automatic points of an earlier run go, so that none of them stays where a check is missing now. What people gave stays."""
    from nbgrader.api import Gradebook, MissingEntry

    with Gradebook(f"sqlite:///{batch.course / 'gradebook.db'}") as book:
        for folder in batch.graded.iterdir():
            try:
                for notebook in book.find_submission(batch.assignment, folder.name).notebooks:
                    for one in notebook.grades:
                        one.auto_score = None
            except MissingEntry:
                pass
        book.db.commit()


def with_score(batch: Batch, row: Row) -> Row:
    """The row with nbgrader's score and what the graded notebook tells."""
    from nbgrader.api import Gradebook, MissingEntry

    with Gradebook(f"sqlite:///{batch.course / 'gradebook.db'}") as book:
        maximum = float(book.find_assignment(batch.assignment).max_score)
        try:
            submission = book.find_submission(batch.assignment, row.name)
        except MissingEntry:
            submission = None
        if row.maximum < 0:
            old = ("the gradebook still holds the score of an earlier submission",) if submission and submission.score else ()
            return replace(row, maximum=maximum, causes=row.causes + old)
        file = batch.course / "autograded" / row.name / batch.assignment / batch.released.name
        if submission is None or not file.is_file():
            return replace(row, maximum=maximum, causes=("nbgrader could not read the graded notebook", *row.causes))
        points = {one.cell.name: one.auto_score for notebook in submission.notebooks for one in notebook.grades}
        return replace(row, score=float(submission.score), maximum=maximum, causes=row.causes + _told(file, points))


def _told(file: Path, points: Mapping[str, float | None]) -> tuple[str, ...]:
    """What a graded notebook tells. It raises nothing: a notebook of a kind that nobody thought of must not cost the others their rows."""
    try:
        return tuple(causes.after(causes.read(file), points))
    except Exception as error:
        return (f"the graded notebook can't be read: look at it by hand: {causes.clean(f'{type(error).__name__}: {error}')}",)
