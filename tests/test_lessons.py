"""The house rules that a machine can check, for every notebook of the course."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

import nbcheck
from helpers.checks import progress
from helpers.checks.quiz import static

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "lessons").glob("*.ipynb"))


@pytest.fixture(params=LESSONS, ids=lambda p: p.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [c for c in notebook.cells if c.cell_type == "code"]


def text_of(notebook) -> str:
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def test_there_are_lessons_with_numbered_names():
    assert LESSONS and all(re.fullmatch(r"\d\d_[a-z_]+", p.stem) for p in LESSONS)


def test_it_is_a_valid_notebook_without_scraps(notebook):
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "course"}
    assert notebook.metadata.kernelspec.display_name == "Python 3 (ipykernel)"


def test_it_has_one_title_and_says_outcome_needs_time_and_memory_first(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and "**In this lesson you " in first.source
    for row in ("| You need |", "| Time |", "| Memory |", "| Download |"):
        assert row in first.source, row
    prose = re.sub(r"```.*?```", "", text_of(notebook), flags=re.S)
    assert len(re.findall(r"^# ", prose, re.M)) == 1


def test_it_ends_with_what_was_measured_and_three_questions(notebook, path):
    text = text_of(notebook)
    assert "## What you measured" in text and text.index("## What you measured") < text.index("## Check yourself")
    assert text.count("<details>") == text.count("</details>")
    before, cell, links = notebook.cells[-3:]
    assert "## Check yourself" in before.source and "<details>" not in before.source.split("## Check yourself")[1], "one place for each answer"
    assert cell.cell_type == "code" and links.cell_type == "markdown" and links.source.startswith("**")
    assert cell.metadata.get("jupyter") == {"source_hidden": True}, "the code shows the answers"


@pytest.fixture
def quizzes(notebook, path) -> list:
    """What the quiz cell displays."""
    shown = []
    exec(notebook.cells[-2].source, {"display": lambda *views: shown.extend(views)})
    return shown


def test_each_option_of_its_quiz_teaches_and_the_place_tells_nothing(quizzes):
    assert [quiz.question[:3] for quiz in quizzes] == ["1. ", "2. ", "3. "]
    assert all(len(quiz.options) in (3, 4) and sum(option.right for option in quiz.options) == 1 for quiz in quizzes)
    feedback = [option.feedback for quiz in quizzes for option in quiz.options]
    assert len(set(feedback)) == len(feedback) and min(map(len, feedback)) > 40, "each option has a feedback of its own"
    places = [[option.right for option in quiz.options].index(True) for quiz in quizzes]
    assert len(set(places)) > 1, "the right options stand at one place"


def test_its_quiz_can_be_read_without_a_kernel(quizzes, notebook):
    stored = [output.data for output in notebook.cells[-2].outputs]
    assert [data.get("text/html") for data in stored[1::2]] == [static(quiz.question, quiz.options) for quiz in quizzes]
    assert all("run this cell" in data["text/plain"] and nbcheck.WIDGET_VIEW not in data for data in stored[::2])


def test_lesson_00_shows_the_progress_of_nobody_on_every_machine(tmp_path, monkeypatch):
    """A learner who has done exercises can run the notebook check: it does not see their progress."""
    entry = {"points": 2, "of": 2, "tries": 1, "last": "2026-01-01T00:00:00+00:00", "done": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "progress.json").write_text(json.dumps({"version": 1, "exercises": {"lab08/1": entry}}))
    monkeypatch.setattr("helpers.fetch.cache_dir", lambda: tmp_path)
    notebook = nbformat.read(ROOT / "lessons" / "00_start_here.ipynb", as_version=4)
    cell = next(c for c in code_cells(notebook) if "progress.show()" in c.source)
    table, figure = (output.data["text/plain"] for output in cell.outputs)
    assert (table, figure) == (repr(progress.show()), repr(progress.picture())), "labs changed: python course.py refresh lessons/00_start_here.ipynb"
    monkeypatch.delenv("COURSE_PROGRESS")
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    assert repr(progress.show()) != table


def test_code_cells_are_short_and_their_tags_are_known(notebook):
    for cell in code_cells(notebook):
        assert 1 <= len(cell.source.strip().splitlines()) <= 25, cell.source[:80]
        nbcheck.limits(cell)
        assert cell.execution_count is not None, cell.source[:80]


def test_stored_outputs_hold_nothing_that_changes_from_run_to_run(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            stored = "\n".join(str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/")) + output.get("text", "")
            for bad in (r"\d+%\|", r"Warning", r" at 0x[0-9a-f]+", r"/(home|root|tmp|Users)/", r"\x1b\[", r"\b\d+(\.\d+)?\s?(seconds|ms|it/s)\b", r"VBox\(",
                        r"pip install"):  # advice about packages is for nobody: helpers are imported first, they quiet the libraries
                assert not re.search(bad, stored), (bad, cell.source[:80])
            assert output.output_type != "error" or "raises-exception" in cell.metadata.get("tags", [])


def test_shown_floats_state_a_tolerance(notebook):
    """Rounding alone is never safe: a cell that prints floats that it computed says how far they may move."""
    for cell in code_cells(notebook):
        printed = "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in cell.outputs)
        if re.search(r":\.\df\}|round\(", cell.source) and nbcheck.FLOAT.search(printed):
            stated = nbcheck.limits(cell)
            assert stated["rtol"] or stated["atol"], cell.source[:80]


def test_figures_are_pictures_with_a_finding(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert re.fullmatch(r"\[figure\] .+ \(.+\)", output.data["text/plain"], re.S)


def test_links_lead_somewhere(notebook, path):
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", text_of(notebook)):
        assert (path.parent / target).exists(), target


def test_the_readme_maps_it(path):
    assert f"(lessons/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
