"""Grading a class, the quick part: causes are read from notebooks and logs, limits end what passes them, tables are harmless."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

import classroom
from classroom import LAB, cell
from helpers.checks import causes, gradebook, grading, process, watch
from helpers.checks.process import Limits

RELEASED = grading.ROOT / "labs" / f"{LAB}.ipynb"


@pytest.fixture
def solved():
    """The released lab with other answers than the stubs, so that every exercise was attempted."""
    notebook = nbformat.read(RELEASED, as_version=4)
    for number in range(1, 6):
        cell(notebook, number).source += "\n# mine"
    return notebook


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "timestamp.txt").write_text("2026-01-01")
    return tmp_path


def twin(one):
    other = copy.deepcopy(one)
    other.id = "other"
    return other


def found(folder, notebook, name=LAB) -> causes.Before:
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return causes.before(folder, RELEASED)


# ---------------------------------------------------------------- before


def test_a_submission_without_anything_odd_has_no_cause(folder, solved):
    assert found(folder, solved) == causes.Before("", f"{LAB}.ipynb", (), True)


@pytest.mark.parametrize("content, cause", [
    (b"", "the file is empty"), (b" \n", "the file is empty"), (b"<html>", "the file is not JSON"), (b"\xff\xfe\x00", "the file is not JSON"),
    (b"[1]", "the file is JSON, but no notebook"), (b'{"cells": 3}', "the file is JSON, but no notebook"),
    (b'{"cells": [{"cell_type": 5}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "the file is no valid notebook"),
    (b'{"cells": ' + b"[" * 100_000, "the file is not JSON"),
])
def test_a_file_that_is_no_notebook_is_refused_with_its_cause(folder, content, cause):
    (folder / f"{LAB}.ipynb").write_bytes(content)
    assert causes.before(folder, RELEASED).refused.startswith(cause)


def test_a_notebook_that_is_too_large_is_not_read(folder):
    with open(folder / f"{LAB}.ipynb", "wb") as stream:
        stream.truncate(60_000_000)
    assert causes.before(folder, RELEASED).refused == "the file is too large: expected at most 50 MB, found 60 MB"


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own")
def test_a_link_is_not_followed(folder):
    (folder / f"{LAB}.ipynb").symlink_to(classroom.SOLUTION)
    assert causes.before(folder, RELEASED).refused == f"{LAB}.ipynb is a link to another place"


def test_a_renamed_notebook_is_found_by_its_ids_and_another_one_is_not(folder, solved):
    nbformat.write(nbformat.v4.new_notebook(), folder / "shopping.ipynb")
    lost = causes.before(folder, RELEASED)
    assert lost.refused == f"no file {LAB}.ipynb; found: shopping.ipynb"
    moved = found(folder, solved, "lab one")
    assert not moved.refused and moved.file == "lab one.ipynb"
    assert moved.odd == (f"the file was named lab one.ipynb; graded as {LAB}.ipynb", "extra file: shopping.ipynb")
    assert found(folder, solved, "lab two").refused, "two notebooks of the lab: nobody knows which one counts"


@pytest.mark.parametrize("change, cause, restore", [
    (lambda n: n.cells.remove(cell(n, 2, True)), "exercise 2: the check cell is missing, or its nbgrader metadata", True),
    (lambda n: n.cells.remove(cell(n, 3)), "exercise 3: the answer cell is missing, or its nbgrader metadata", True),
    (lambda n: cell(n, 4, True).metadata.pop("nbgrader"), "exercise 4: the check cell is missing, or its nbgrader metadata", True),
    (lambda n: [n.cells.remove(cell(n, 2)), n.cells.remove(cell(n, 2, True))], "exercise 2: the check cell is missing, or its nbgrader metadata", False),
    (lambda n: cell(n, 1, True).update(source="1 + 1"), "exercise 1: the check cell was changed; nbgrader put it back", True),
    (lambda n: cell(n, 1, True).metadata.nbgrader.update(points=99), "exercise 1: metadata of the check cell changed (points)", True),
    (lambda n: cell(n, 1, True).metadata.update(tags=["skip-execution"]), "exercise 1: the check cell was tagged skip-execution", True),
    (lambda n: n.cells.append(twin(cell(n, 5))), "exercise 5: the answer cell stands there 2 times; the last counts", True),
    (lambda n: cell(n, 3).update(source=cell(n, 3).source.removesuffix("\n# mine")), "exercise 3: not attempted", True),
])
def test_each_change_of_a_marked_cell_is_named(folder, solved, change, cause, restore):
    change(solved)
    before = found(folder, solved)
    assert not before.refused and any(text.startswith(cause) for text in before.odd) and before.restore is restore, before


# ---------------------------------------------------------------- after


def graded(source: str, text: str, *outputs) -> tuple:
    """A notebook with one check cell that printed `text`."""
    one = nbformat.v4.new_code_cell(source, metadata={"nbgrader": {"grade": True, "grade_id": "lab01_exercise_4", "points": 3}})
    one.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text), *outputs] if text else list(outputs)
    return nbformat.v4.new_notebook(cells=[one])


def error(name: str, value: str = ""):
    return nbformat.v4.new_output("error", ename=name, evalue=value, traceback=[])


CHECK = "checks.lab01.exercise_4(rule)"


@pytest.mark.parametrize("notebook, score, told", [
    (graded(CHECK, "Exercise 4: right. Good.\n3 of 3 points.\n"), 3.0, []),
    (graded(CHECK, "Exercise 4: not yet right. You never look.\n0.5 of 3 points.\n"), 0.5, ["exercise 4: 0.5 of 3; not yet right. You never look."]),
    (graded(CHECK, ""), 3.0, ["exercise 4: nbgrader gave 3 points, the check said nothing: look at the notebook by hand"]),
    (graded(CHECK, "Exercise 4: right. Good.\n3 of 3 points.\n"), 0.0, ["exercise 4: nbgrader gave 0 points, the check said 3: look at the notebook by hand"]),
    (graded(CHECK, "Exercise 4: right. Good.\n3 of 3 points.\n"), None, ["exercise 4: nbgrader gave no points, the check said 3: look at the notebook by hand"]),
    (graded(CHECK, "1.1.1 of 2 points.\n"), 0.0, ["exercise 4: nbgrader gave 0 points, the check said nothing: look at the notebook by hand"]),
    (graded("assert rule", ""), 3.0, []),
    (graded(CHECK, "", error("MemoryError")), 0.0, ["exercise 4: asked for more memory than there is for grading (MemoryError)"]),
    (graded(CHECK, "", error("KeyboardInterrupt"), error("CellTimeoutError")), 0.0, ["exercise 4: took too long and was stopped"]),
    (graded(CHECK, "", error("NameError", "name 'rule' is not defined")), 0.0, ["exercise 4: NameError: name 'rule' is not defined"]),
])
def test_the_graded_notebook_tells_why_points_are_missing_and_when_to_look(notebook, score, told):
    assert causes.after(notebook, {"lab01_exercise_4": score}) == told


def test_in_other_cells_only_what_does_not_follow_from_an_answer_is_named():
    cells = [nbformat.v4.new_code_cell("x", outputs=[error(name, "why")]) for name in ("NotImplementedError", "NameError", "ValueError")]
    cut = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("stream", text="a\n... Output truncated ...")])
    assert causes.after(nbformat.v4.new_notebook(cells=[*cells, cut]), {}) == ["cell 3: ValueError: why", "cell 4: its output was cut, it was too long"]


@pytest.mark.parametrize("log, limit, cause", [
    ("", "time", "the whole submission took too long and was stopped in exercise 2"),
    ("", "memory", "used more memory than there is for grading and was stopped in exercise 2"),
    ("nbclient.exceptions.DeadKernelError: Kernel died", "", "the kernel died in exercise 2"),
    ("E\nTimeout waiting for IOPub output", "", "a cell did not end and could not be interrupted in exercise 2"),
    ("Traceback\nKeyError: 'a'\n", "", "nbgrader stopped in exercise 2: KeyError: 'a'"),
    ("nothing", "", "nbgrader stopped in exercise 2: it gave no reason"),
])
def test_a_submission_without_a_graded_notebook_has_a_cause(log, limit, cause):
    assert causes.stopped(log, limit, {"grade_id": "lab01_exercise_2_answer", "cell": 9}) == cause
    assert causes.stopped(log, limit, {"cell": 9}) == cause.replace("exercise 2", "cell 9")
    assert causes.stopped(log, limit, {}) == cause.replace(" in exercise 2", "")


# ---------------------------------------------------------------- what a kernel is refused


@pytest.mark.parametrize("event, arguments, refused", [
    ("socket.connect", (None, ("93.184.216.34", 80)), ("network", "93.184.216.34")),
    ("socket.connect", (None, ("127.0.0.1", 80)), None),
    ("socket.connect", (None, "/tmp/socket"), None),
    ("socket.getaddrinfo", ("example.org", 80, 0, 0, 0), ("network", "example.org")),
    ("socket.getaddrinfo", (b"example.org", 80, 0, 0, 0), ("network", "example.org")),
    ("socket.getaddrinfo", (None, 80, 0, 0, 0), None),
    ("open", ("/own/a.txt", "w", os.O_WRONLY), None),
    ("open", ("/owner/a.txt", "w", os.O_WRONLY), ("outside", "/owner/a.txt")),
    ("open", ("/own/../etc/a.txt", "w", os.O_WRONLY), ("outside", "/etc/a.txt")),
    ("open", ("/etc/hosts", "r", os.O_RDONLY), None),
    ("open", ("/etc/hosts", "a", None), ("outside", "/etc/hosts")),
    ("open", (3, "w", os.O_WRONLY), None),
    ("os.remove", ("/etc/hosts", -1), ("outside", "/etc/hosts")),
    ("os.rename", ("/own/a", "/etc/b", -1, -1), ("outside", "/etc/b")),
    ("shutil.rmtree", (b"/etc", None), ("outside", "/etc")),
])
@pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux and macOS")
def test_the_network_and_changes_outside_are_refused_and_nothing_else(event, arguments, refused):
    real = refused and (refused[0], os.path.realpath(refused[1]) if refused[0] == "outside" else refused[1])
    assert watch.refusal(event, arguments, ["/own"]) == real


def test_a_watched_process_is_stopped_and_what_it_wanted_is_written_down(tmp_path):
    outside = grading.ROOT / "escaped.txt"
    code = f"""from helpers.checks import watch
watch.start({str(tmp_path)!r})
import urllib.request
for act in (lambda: open({str(outside)!r}, "w"), lambda: urllib.request.urlopen("http://example.org"), lambda: open("inside.txt", "w")):
    try:
        act()
    except Exception as error:
        print(error)
"""
    environment = {k: v for k, v in os.environ.items() if not grading.PRIVATE.search(k)} | {watch.EVENTS: str(tmp_path / "events"), "PYTHONPATH": str(grading.ROOT)}
    assert process.run([sys.executable, "-c", code], tmp_path, environment, Limits(), tmp_path / "log").code == 0
    assert causes.watched(tmp_path / "events") == [f"wanted to change a file outside its folder: {causes.clean(outside, 80)}", "wanted the network, which is closed: example.org"]
    assert not outside.exists() and (tmp_path / "inside.txt").exists()


# ---------------------------------------------------------------- limits


def limited(tmp_path, code: str, **limits) -> process.Ended:
    return process.run([sys.executable, "-c", code], tmp_path, os.environ, Limits(**limits), tmp_path / "log")


def test_a_program_that_keeps_the_limits_ends_by_itself(tmp_path):
    ended = limited(tmp_path, "print('said'); raise SystemExit(3)")
    assert (ended.code, ended.limit) == (3, "") and (tmp_path / "log").read_text() == "said\n"


def test_time_ends_a_program_and_all_that_it_started_also_what_cut_itself_loose(tmp_path):
    child = f"import os, time; open({str(tmp_path)!r} + '/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True); time.sleep(600)"
    ended = limited(tmp_path, code, seconds=5)
    assert ended.limit == "time" and ended.seconds < 60
    deadline = time.monotonic() + 20
    pid = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_memory_of_all_processes_together_ends_a_program(tmp_path):
    child = "import time; hog = bytearray(b'x') * 150_000_000; time.sleep(600)"
    code = f"import subprocess, sys, time; [subprocess.Popen([sys.executable, '-c', {child!r}]) for _ in range(3)]; time.sleep(600)"
    assert limited(tmp_path, code, memory_gb=0.3, seconds=100).limit == "memory"


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="the system has no such limit")
def test_one_process_that_asks_for_too_much_gets_a_memory_error_and_goes_on(tmp_path):
    code = "import time; time.sleep(0.5)\ntry:\n    bytearray(2_000_000_000)\nexcept MemoryError:\n    print('refused')"
    ended = limited(tmp_path, code, memory_gb=1)
    assert (ended.code, ended.limit) == (0, "") and (tmp_path / "log").read_text() == "refused\n"


# ---------------------------------------------------------------- the table


ROWS = [grading.Row("anna", 11.5, 13.0, ("exercise 1: 0.5 of 2",), 6.4), grading.Row("bo", None, 13.0, ("the file is empty",)), grading.Row("cy", 13.0, 13.0)]


def test_the_table_shows_score_cause_and_seconds_and_a_dash_where_nothing_was_graded():
    assert grading.markdown(ROWS).splitlines()[2:] == ["| anna | 11.5 | 13 | exercise 1: 0.5 of 2 | 6 |", "| bo | – | 13 | not graded: the file is empty | 0 |",
                                                       "| cy | 13 | 13 | all checks passed | 0 |"]
    assert grading.as_csv(ROWS).splitlines()[1:] == ["anna,11.5,13,exercise 1: 0.5 of 2,6", "bo,,13,not graded: the file is empty,0", "cy,13,13,all checks passed,0"]


def test_grading_one_again_keeps_the_rows_of_the_others(tmp_path):
    grading._write(tmp_path / "lab", ROWS)
    grading._write(tmp_path / "lab", [grading.Row("bo", 4.0, 13.0)])
    assert [(row.name, row.score, row.cause) for row in grading.stored(tmp_path / "lab.csv")] == [
        ("anna", 11.5, "exercise 1: 0.5 of 2"), ("bo", 4.0, "all checks passed"), ("cy", 13.0, "all checks passed")]
    assert (tmp_path / "lab.md").read_text(encoding="utf-8").count("\n") == 5 and not list(tmp_path.glob("*.part"))


def test_a_table_of_another_form_is_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / f"{LAB}.csv").write_text("name;score;maximum\nanna;1,5;2\n")
    assert grading.main(["grade", str(tmp_path), LAB]) == 1
    assert "expected the table that grading wrote, found another form" in capsys.readouterr().out


def test_a_table_that_cannot_be_written_was_printed_before(tmp_path, capsys, monkeypatch):
    def held_open(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(grading, "grade", lambda *_: ROWS)
    monkeypatch.setattr(os, "replace", held_open)
    assert grading.main(["grade", str(tmp_path), LAB]) == 1
    told = capsys.readouterr().out
    assert "| anna | 11.5 | 13 |" in told and "Stopped: [Errno 13]" in told


@pytest.mark.parametrize("text, line", [
    ("=HYPERLINK(1)", "HYPERLINK(1)"), ("a | b\nc", "a b c"), ("<script>`x`</script>", "scriptx/script"), ("\x1b[0;31mred\x1b[0m", "red"),
    ("a\u202eb\x00c", "abc"), ("x" * 200, "x" * 139 + "…"), ("नमस्ते", "नमस्ते")])
def test_texts_of_learners_are_made_harmless(text, line):
    assert causes.clean(text) == line


# ---------------------------------------------------------------- the gradebook


def test_a_graded_notebook_that_cannot_be_read_costs_nobody_a_row(tmp_path):
    (tmp_path / "a.ipynb").write_bytes(b"<html>")
    assert gradebook._told(tmp_path / "a.ipynb", {}) == ("the graded notebook can't be read: look at it by hand: ValueError: the file is not JSON, so it is no notebook",)
    nbformat.write(graded(CHECK, "Exercise 4: right. Good.\n3 of 3 points.\n"), tmp_path / "b.ipynb")
    assert gradebook._told(tmp_path / "b.ipynb", {"lab01_exercise_4": 3.0}) == ()


@pytest.fixture
def batch(tmp_path):
    """A class whose gradebook holds 2 points of anna, and whose autograded folder her notebook; anna and bo were graded anew."""
    batch = grading.Batch(tmp_path / "course", LAB, tmp_path / "work", Limits())
    for folder in (batch.course / "release" / LAB, batch.course / "autograded" / "anna" / LAB, batch.graded / "anna" / LAB, batch.graded / "bo" / LAB):
        folder.mkdir(parents=True)
        (folder / f"{LAB}.ipynb").write_text(f"{folder.parent.parent.name}")
    with gradebook.opened(batch.course / "gradebook.db") as book:
        book.add_assignment(LAB)
        book.add_notebook(LAB, LAB)
        book.add_grade_cell("one", LAB, LAB, max_score=3, cell_type="code")
        book.update_or_create_student("anna")
        book.add_submission(LAB, "anna")
        book.find_grade("one", LAB, LAB, "anna").auto_score = 2
        book.db.commit()
    return batch


def put_through(batch, *names, then=lambda: None, code=0):
    """In place of nbgrader: what it leaves behind when it has taken in the notebooks of `names`."""
    def run(command, folder, environment, limits, log):
        log.write_text("Traceback\nOperationalError: disk full\n")
        for name in set(names) & {one.name for one in batch.graded.iterdir()}:
            place = batch.fresh / "autograded" / name / LAB
            place.mkdir(parents=True)
            (place / f"{LAB}.ipynb").write_text("new")
        then()
        return process.Ended(code, 1.0)
    return run


def held(batch) -> tuple:
    """anna's points in the gradebook, and what her graded notebook holds."""
    with gradebook.opened(batch.course / "gradebook.db") as book:
        return book.find_submission(LAB, "anna").score, (batch.course / "autograded" / "anna" / LAB / f"{LAB}.ipynb").read_text()


def test_a_second_stage_that_fails_or_is_stopped_changes_nothing(batch, monkeypatch):
    monkeypatch.setattr(process, "run", put_through(batch, code=1))
    with pytest.raises(grading.GradingError, match="expected nbgrader to write it, found: OperationalError: disk full. Fix: close Formgrader"):
        gradebook.take_in(batch, ["anna", "bo"])
    assert held(batch) == (2.0, "autograded")

    def ctrl_c():
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "run", put_through(batch, "anna", then=ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        gradebook.take_in(batch, ["anna", "bo"])
    assert held(batch) == (2.0, "autograded")


def test_a_notebook_that_nbgrader_refuses_gets_no_score_and_the_others_get_theirs(batch, monkeypatch):
    monkeypatch.setattr(process, "run", put_through(batch, "anna", code=1))
    assert gradebook.take_in(batch, ["anna", "bo"]) == {"anna"} and held(batch) == (0.0, "new")
    row = gradebook.with_score(batch, grading.Row("bo", None, 0), {"anna"})
    assert (row.score, row.maximum, row.cause) == (None, 3.0, "not graded: nbgrader could not read the graded notebook")


def test_points_given_by_hand_meanwhile_are_not_lost(batch, monkeypatch):
    given = []

    def by_hand():
        if not given:
            given.append(1)
            with gradebook.opened(batch.course / "gradebook.db") as book:
                book.find_grade("one", LAB, LAB, "anna").manual_score = 1.5
                book.db.commit()

    monkeypatch.setattr(process, "run", put_through(batch, "anna", then=by_hand))
    assert gradebook.take_in(batch, ["anna"]) == {"anna"} and held(batch) == (1.5, "new")


def test_a_gradebook_that_is_no_database_is_said_with_its_fix(tmp_path):
    (tmp_path / "gradebook.db").write_text("no database " * 100)
    with pytest.raises(grading.GradingError, match="gradebook.db: expected nbgrader's gradebook, free to use, found: .*not a database.* Fix: close Formgrader"):
        with gradebook.opened(tmp_path / "gradebook.db") as book:
            book.students


# ---------------------------------------------------------------- the class's folder


def test_a_new_class_holds_the_lab_and_keeps_what_is_there(tmp_path):
    assert grading.new(tmp_path, ["01", "08_evaluation"], tmp_path / "exchange") == [LAB, "08_evaluation"]
    made, solution = (json.loads((folder / f"{LAB}.ipynb").read_text(encoding="utf-8"))["cells"]
                      for folder in (tmp_path / "source" / LAB, grading.ROOT / "labs" / "solutions"))
    text = "".join("".join(cell["source"]) for cell in made)
    assert "Hint 2: " in text and "Hint 3: " not in text and "three hints" not in text, "the third hint is the answer"
    assert [cell for cell in made if cell["cell_type"] == "code"] == [cell for cell in solution if cell["cell_type"] == "code"]
    assert str(tmp_path / "exchange") in (tmp_path / "nbgrader_config.py").read_text()
    (tmp_path / "nbgrader_config.py").write_text("mine")
    grading.new(tmp_path, ["01"])
    assert (tmp_path / "nbgrader_config.py").read_text() == "mine"


def test_a_damaged_solution_is_refused_and_nothing_is_left_of_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "course" / "labs" / "solutions").mkdir(parents=True)
    (tmp_path / "course" / "labs" / "solutions" / f"{LAB}.ipynb").write_text('{"cells": [')
    monkeypatch.setattr(grading, "ROOT", tmp_path / "course")
    assert grading.main(["new", str(tmp_path / "class"), "01"]) == 1
    assert f"{LAB}.ipynb is not a whole notebook" in capsys.readouterr().out and not (tmp_path / "class").exists()


@pytest.mark.parametrize("arguments, told", [
    (["new", "DIR", "99"], "expected a lab, found '99'. Fix: choose of 01_"),
    (["new", "DIR", "0"], "expected a lab, found '0'"),
    (["grade", "DIR", LAB], f"Fix: in that folder, run: nbgrader generate_assignment {LAB}"),
])
def test_what_is_missing_is_said_with_its_fix(tmp_path, capsys, arguments, told):
    assert grading.main([str(tmp_path) if a == "DIR" else a for a in arguments]) == 1
    assert told in capsys.readouterr().out


def test_nobody_handed_in_or_not_the_one_who_is_named(tmp_path):
    (tmp_path / "release" / LAB).mkdir(parents=True)
    (tmp_path / "release" / LAB / f"{LAB}.ipynb").write_text("{}")
    (tmp_path / "gradebook.db").touch()
    with pytest.raises(grading.GradingError, match="expected work of anybody, found none"):
        grading.grade(tmp_path, LAB)
    (tmp_path / "submitted" / "anna" / LAB).mkdir(parents=True)
    with pytest.raises(grading.GradingError, match="expected work of bo, found none"):
        grading.grade(tmp_path, LAB, ["anna", "bo"])


def test_a_submission_that_breaks_the_preparation_does_not_stop_the_others(tmp_path):
    batch = grading.Batch(tmp_path, LAB, tmp_path, Limits())
    said = []
    row = grading._one(batch, "anna", said.append)
    assert said == ["anna: not graded, 0 s"]
    assert row.score is None and "it could not be prepared" in row.causes[0]


def test_the_throw_away_folder_holds_the_submission_and_the_data_and_no_solution(tmp_path):
    grading.new(tmp_path, ["01"])
    (tmp_path / "source" / LAB / "data.csv").write_text("a,b")
    given, folder = tmp_path / "submitted" / "anna" / LAB, tmp_path / "one"
    for path in (given, folder, tmp_path / "release" / LAB):
        path.mkdir(parents=True)
    for path in (given / "lab one.ipynb", tmp_path / "release" / LAB / f"{LAB}.ipynb"):
        path.write_bytes(RELEASED.read_bytes())
    batch = grading.Batch(tmp_path, LAB, tmp_path, Limits())
    batch.blank.touch()
    grading._throw_away(batch, folder, given, causes.Before("", "lab one.ipynb"))
    files = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    assert set(files) == {"gradebook.db", "nbgrader_config.py", f"source/{LAB}/data.csv", f"submitted/learner/{LAB}/{LAB}.ipynb"}
    assert "BEGIN SOLUTION" not in "".join(files.values()) and "anna" not in "".join(files)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes of this kind")
def test_what_was_graded_is_taken_without_pipes_and_links_and_with_the_time_of_handing_in(tmp_path):
    own, given, target = tmp_path / "own", tmp_path / "given", tmp_path / "graded" / "anna" / LAB
    for folder in (own / "data", given):
        folder.mkdir(parents=True)
    for path in (own / "a.ipynb", own / "data" / "b.csv", own / "submission_secret.txt"):
        path.write_text("mine")
    (own / "timestamp.txt").write_text("1999-01-01")
    (given / "timestamp.txt").write_text("2026-01-01")
    os.mkfifo(own / "pipe")
    (own / "link").symlink_to(given)
    grading._take(own, target, given, tmp_path / "taken")
    assert {p.relative_to(target).as_posix() for p in target.rglob("*")} == {"a.ipynb", "data", "data/b.csv", "timestamp.txt"}
    assert (target / "timestamp.txt").read_text() == "2026-01-01"


def test_what_a_grading_process_sees(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "x")
    monkeypatch.setenv("https_proxy", "http://proxy")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    seen = grading._environment(tmp_path)
    assert "MY_API_KEY" not in seen and "https_proxy" not in seen and seen["PYTHONPATH"].split(os.pathsep) == [str(grading.ROOT), "/elsewhere"]
    assert seen["COURSE_PROGRESS"] == "off"


def test_nbgraders_tools_are_found_in_an_environment_that_is_not_activated(monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join(["/usr/bin", "/bin"]))
    gradebook.find_tools()
    gradebook.find_tools()
    scripts = str(Path(sys.executable).parent)
    assert os.environ["PATH"].split(os.pathsep) == [scripts, "/usr/bin", "/bin"]
    assert shutil.which("alembic"), "nbgrader starts it by its name"


def test_jobs_below_one_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        grading.main(["grade", str(tmp_path), "01_when_to_fine_tune", "--jobs", "0"])
    assert "--jobs: expected 1 or more, found 0" in capsys.readouterr().err
