"""The lab notebooks: student editions are what nbgrader's converter makes, hints and checks stand where they should, every stub fails."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import numpy as np
import pytest

import nbcheck
import student_edition
from helpers.checks import progress

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = sorted((ROOT / "labs" / "solutions").glob("*.ipynb"))
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


@pytest.fixture(params=SOLUTIONS, ids=lambda p: p.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def solution(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def student(path):
    return nbformat.read(ROOT / "labs" / path.name, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def exercises(notebook) -> list[tuple]:
    """(answer cell, check cell, cell with the hints) of each exercise."""
    cells = notebook.cells
    return [(cells[n - 1], cells[n], cells[n + 1]) for n, cell in enumerate(cells) if cell.metadata.get("nbgrader", {}).get("grade")]


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# ---------------------------------------------------------------- one source


def test_every_student_edition_has_a_solution():
    assert SOLUTIONS and [p.name for p in SOLUTIONS] == [p.name for p in sorted((ROOT / "labs").glob("*.ipynb"))]
    assert all(re.fullmatch(r"\d\d_[a-z_]+", p.stem) for p in SOLUTIONS)


def test_the_committed_student_edition_is_what_the_converter_makes(path):
    committed = (ROOT / "labs" / path.name).read_text(encoding="utf-8")
    assert committed == student_edition.student_edition(path), f"run: python tests/student_edition.py labs/solutions/{path.name}"


def test_nbgraders_own_command_makes_the_same(tmp_path):
    """`nbgrader generate_assignment` in a course folder of its own, with the same stub; its database is not wanted here."""
    for path in SOLUTIONS:
        (tmp_path / "source" / "labs").mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / "labs" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "nbgrader_config.py").write_text(f"c = get_config()\nc.CourseDirectory.course_id = 'course'\nc.ClearSolutions.code_stub = {{'python': {student_edition.STUB!r}}}\n")
    done = subprocess.run([sys.executable, "-m", "nbgrader", "generate_assignment", "labs", "--create", "--no-db"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    for path in SOLUTIONS:
        released = nbformat.read(tmp_path / "release" / "labs" / path.name, as_version=4)
        ours = nbformat.read(ROOT / "labs" / path.name, as_version=4)
        for theirs, cell in zip(released.cells, ours.cells, strict=True):
            assert theirs.source.replace("](../../", "](../") == cell.source and theirs.metadata == cell.metadata


def test_no_solution_stands_in_a_student_edition(solution, student):
    text = nbformat.writes(student)
    assert BEGIN not in text and END not in text and all(not cell.outputs and cell.execution_count is None for cell in code_cells(student))
    assert student_edition.STUB in text


# ---------------------------------------------------------------- what an exercise is made of


def test_it_is_a_valid_notebook_that_was_run_and_has_no_scraps(solution):
    nbformat.validate(solution)
    assert set(solution.metadata) <= {"kernelspec", "language_info", "course"}
    for cell in code_cells(solution):
        assert 1 <= len(cell.source.strip().splitlines()) <= 25 and cell.execution_count is not None, cell.source[:80]
        nbcheck.limits(cell)
        for output in cell.outputs:
            stored = "\n".join(str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/")) + output.get("text", "")
            for bad in (r"\d+%\|", r"Warning", r" at 0x[0-9a-f]+", r"/(home|root|tmp|Users)/", r"\x1b\[", r"VBox\("):
                assert not re.search(bad, stored), (bad, cell.source[:80])
            assert output.output_type != "error"
        if re.search(r":\.\df\}", cell.source) and nbcheck.FLOAT.search("".join(o.get("text", "") for o in cell.outputs)):
            assert nbcheck.limits(cell)["rtol"] or nbcheck.limits(cell)["atol"], cell.source[:80]


def test_it_says_outcome_needs_and_time_first_and_what_was_practised_last(solution):
    first, text = solution.cells[0].source, prose(solution)
    assert first.startswith("# Lab: ") and "**In this lab you " in first and len(re.findall(r"^# ", text, re.M)) == 1
    assert all(row in first for row in ("| You need |", "| Time |", "| Memory |", "| Download |")) and "## What you practised" in text
    stated, summed = int(re.search(r"\| Time \| about (\d+) minutes", first).group(1)), sum(map(int, re.findall(r"· about (\d+) minutes ·", text)))
    assert 20 <= stated <= 60 and abs(stated - summed) <= 6, (stated, summed)


def test_each_exercise_has_its_weight_its_check_and_three_hints(solution):
    found, text = exercises(solution), prose(solution)
    assert 3 <= len(found) <= 6
    assert len(re.findall(r"^Difficulty [1-5] of 5 · importance [1-5] of 5 · about \d+ minutes · \d+ points$", text, re.M)) == len(found)
    assert len(re.findall(r"^## Exercise \d+: Predict, then ", text, re.M)) >= 1 and len(re.findall(r"^## Exercise \d+: Repair ", text, re.M)) >= 1
    for number, (answer, check, hints) in enumerate(found, start=1):
        assert answer.metadata.nbgrader.solution and BEGIN in answer.source and f".exercise_{number}(" in check.source
        assert check.metadata.nbgrader.locked and check.metadata.nbgrader.grade_id == answer.metadata.nbgrader.grade_id.removesuffix("_answer")
        assert re.findall(r"<details><summary>(Hint \d: [a-z ]+)</summary>", hints.source) == ["Hint 1: a nudge", "Hint 2: a pointer", "Hint 3: the answer"]
        assert hints.source.count("</details>") == 3


def test_the_third_hint_is_the_solution(solution):
    for answer, _, hints in exercises(solution):
        region = answer.source.rsplit(BEGIN, 1)[1].split(END)[0]
        told = re.search(r"```python\n(.*?)\n```", hints.source, re.S).group(1)
        assert told == textwrap.dedent(region.strip("\n").rstrip()), answer.source[:60]


def test_points_in_the_notebook_the_text_and_the_check_agree(solution, path):
    from helpers import checks

    lab = getattr(checks, f"lab{path.stem[:2]}")
    stated = [int(p) for p in re.findall(r"^Difficulty .* · (\d+) points$", prose(solution), re.M)]
    for number, (_, check, _) in enumerate(exercises(solution), start=1):
        exercise = getattr(lab, f"exercise_{number}")
        assert exercise.points == check.metadata.nbgrader.points == stated[number - 1]
        assert (exercise.prediction is not None) == (check.source.count(",") == 1)
    assert [found[4] for found in progress.catalogue() if found[0] == f"lab{path.stem[:2]}"] == stated


def test_links_lead_somewhere(path, solution, student):
    for notebook, folder in ((solution, path.parent), (student, ROOT / "labs")):
        links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", prose(notebook))
        assert links and all((folder / link).exists() for link in links), links


# ---------------------------------------------------------------- stubs fail, solutions pass


def checked(answer: str, check: str) -> object:
    """What a check cell gives back, after its answer cell; of the cells before, a stub uses NumPy alone."""
    from helpers import checks

    space = {"checks": checks, "np": np}
    exec(answer, space)
    return eval(check, space)


def test_every_stub_fails_its_check_and_is_told_so(student, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    for answer, check, _ in exercises(student):
        points = checked(answer.source, check.source)
        out = capsys.readouterr().out
        assert points is not None and float(repr(points)) == 0 and "0 of " in out and re.search("not done yet|predict first", out), out


def test_every_solution_was_stored_with_full_marks(solution):
    """nbval runs them again and compares."""
    for _, check, _ in exercises(solution):
        text = "".join(output.get("text", "") for output in check.outputs)
        assert "right. " in text and f"{check.metadata.nbgrader.points} of {check.metadata.nbgrader.points} points." in text
        assert all(output.output_type == "stream" for output in check.outputs), "full marks give nothing back"


def test_nbgrader_reads_none_as_full_marks_and_a_number_as_partial_credit(solution):
    """The check cell's outputs, as a kernel stores them."""
    from nbgrader.utils import determine_grade

    from helpers.checks.exercise import Points

    for _, check, _ in exercises(solution):
        most = check.metadata.nbgrader.points
        assert determine_grade(check) == (most, most)
        check.outputs = [*check.outputs, nbformat.v4.new_output("execute_result", {"text/plain": repr(Points(0.5))})]
        assert determine_grade(check) == (0.5, most)
