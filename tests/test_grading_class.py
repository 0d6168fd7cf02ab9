"""A class graded from end to end with nbgrader: release, fetch, submit, collect, autograde, feedback; 22 submissions, most of them odd."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import nbformat
import pytest

import classroom
from classroom import CELL_SECONDS, FULL, HANDED_IN, LAB, nbgrader
from helpers.checks import grading

pytestmark = pytest.mark.trains  # takes more than a minute
ESCAPED = Path.home() / "grading-escaped.txt"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The class's folder with what all have handed in, collected."""
    folder = tmp_path_factory.mktemp("class")
    with classroom.at_home(folder):
        course = classroom.released(folder)
        for name in HANDED_IN:
            classroom.submit(course, folder, name)
        nbgrader("collect", LAB, folder=course)
        yield course


@pytest.fixture(scope="module")
def table(course):
    """The rows of the table by name, made by the documented command; it may take twenty minutes where a machine is busy."""
    command = ["grade", str(course), LAB, f"--cell-seconds={CELL_SECONDS}", "--minutes=20", "--memory-gb=4", "--jobs=4"]
    assert grading.main(command) == 0
    with open(course / "results" / f"{LAB}.csv", encoding="utf-8", newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def test_nobody_is_left_out(table, course):
    assert list(table) == sorted(HANDED_IN) and len(table) >= 20
    assert (course / "results" / f"{LAB}.md").read_text(encoding="utf-8").count("\n| ") == len(table)


@pytest.mark.parametrize("name", HANDED_IN)
def test_each_has_its_score_and_its_cause(table, name):
    row, wanted = table[name], HANDED_IN[name]
    assert (float(row["score"]) if row["score"] else None) == wanted.score and float(row["maximum"]) == FULL, row
    assert wanted.cause in row["cause"] and row["cause"].startswith("not graded: ") == (wanted.score is None), row
    assert (row["cause"] == "all checks passed") == name.startswith("good"), row


def test_the_scores_are_those_of_the_gradebook_and_the_ungraded_have_none(table, course):
    from nbgrader.api import Gradebook, MissingEntry

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        for name, wanted in HANDED_IN.items():
            if wanted.score is None:
                with pytest.raises(MissingEntry):
                    book.find_submission(LAB, name)
            else:
                assert book.find_submission(LAB, name).score == wanted.score


def test_nbgrader_put_the_changed_and_the_deleted_check_back(table, course):
    source = nbformat.read(classroom.SOLUTION, as_version=4)
    for name, number in (("check_tampered", 3), ("check_deleted", 2)):
        handed_in, graded = (nbformat.read(course / step / name / LAB / f"{LAB}.ipynb", as_version=4) for step in ("submitted", "autograded"))
        right = classroom.cell(source, number, check=True).source
        assert right not in [cell.source for cell in handed_in.cells]
        assert classroom.cell(graded, number, check=True).source.endswith(right)


def test_nothing_was_changed_outside_and_only_graded_work_is_kept(table, course):
    assert not ESCAPED.exists()
    assert sorted(p.name for p in (course / "autograded").iterdir()) == sorted(n for n, h in HANDED_IN.items() if h.score is not None)


def test_feedback_reaches_the_learner(table, course):
    """With the learner's own folder and cache, as `nbgrader fetch_feedback` has it."""
    nbgrader("generate_feedback", LAB, "--student=partly", folder=course)
    nbgrader("release_feedback", LAB, "--student=partly", folder=course)
    own = course.parent / "learners" / "partly"
    nbgrader("fetch_feedback", LAB, f"--Exchange.cache={own / 'cache'}", folder=own)
    pages = list((own / LAB / "feedback").rglob(f"{LAB}.html"))
    assert len(pages) == 1 and "You hold the share against the target" in pages[0].read_text(encoding="utf-8")


def test_a_later_submission_that_cannot_be_graded_keeps_the_earlier_score_and_says_so(table, course):
    file = course / "submitted" / "good" / LAB / f"{LAB}.ipynb"
    shutil.copyfile(file, kept := file.with_suffix(".kept"))
    try:
        file.chmod(0o644)
        file.write_text("")
        [row] = grading.grade(course, LAB, ["good"])
        assert row.score is None and "the gradebook still holds the score of an earlier submission" in row.causes
    finally:
        shutil.move(kept, file)
