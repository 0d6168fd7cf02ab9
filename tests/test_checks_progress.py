"""Progress survives crashes, restarts and two notebooks at once; what is not understood is refused and never overwritten."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import fetch
from helpers.checks import __main__ as command
from helpers.checks import progress

ROOT = Path(__file__).resolve().parent.parent
WRITER = """
import sys
from helpers.checks import progress
for n in range(int(sys.argv[2])):
    progress.record(sys.argv[1], n, 1, 1)
    print(n, flush=True)
"""


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "deep" / "progress.json"))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    return tmp_path / "deep" / "progress.json"


def writer(lab: str, times: int) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", WRITER, lab, str(times)], env=environment, stdout=subprocess.PIPE, text=True)


# ---------------------------------------------------------------- what is kept, and where


def test_the_best_try_counts_and_the_first_time_done_is_kept(file):
    progress.record("lab08", 1, 1, 2)
    progress.record("lab08", 1, 2, 2)
    done = progress.read()["lab08/1"]["done"]
    progress.record("lab08", 1, 0, 2)
    entry = progress.read()["lab08/1"]
    assert (entry["points"], entry["of"], entry["tries"], entry["done"]) == (2, 2, 3, done) and done.endswith("+00:00")
    assert [p.name for p in file.parent.iterdir() if p.suffix != ".lock"] == ["progress.json"]


def test_it_lies_outside_the_repository_by_default(monkeypatch):
    monkeypatch.delenv("COURSE_PROGRESS", raising=False)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    assert progress.path() == fetch.cache_dir() / "progress.json" and ROOT not in progress.path().parents


def test_nothing_is_kept_when_it_is_off_in_a_solution_and_while_grading(file, tmp_path, monkeypatch):
    (tmp_path / "solutions").mkdir()
    for change in (lambda m: m.setenv("COURSE_PROGRESS", "off"), lambda m: m.setenv("NBGRADER_EXECUTION", "autograde"), lambda m: m.chdir(tmp_path / "solutions")):
        with monkeypatch.context() as m:
            change(m)
            progress.record("lab08", 1, 1, 2)
            assert progress.path() is None and progress.read() == {} and progress.reset() is None
    assert not file.exists()


# ---------------------------------------------------------------- crashes and two writers


def test_two_notebooks_at_once_lose_nothing(file):
    writers = [writer(lab, 40) for lab in ("lab02", "lab08")]
    assert [w.wait(60) for w in writers] == [0, 0] and all(w.stdout.read().count("\n") == 40 for w in writers)
    assert len(progress.read()) == 80


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_kill_at_any_moment_loses_nothing_that_was_stored(file):
    progress.record("lab04", 1, 2, 2)
    rng = random.Random(0)
    for round_ in range(6):
        process = writer(f"lab{round_}", 100_000)
        assert process.stdout.readline() == "0\n"
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        said = process.stdout.read().split("\n")[:-1]  # only whole lines
        last = int(said[-1]) if said else 0
        book = progress.read()  # a whole file
        assert f"lab{round_}/{last}" in book and book["lab04/1"]["points"] == 2
    progress.record("lab04", 2, 1, 1)  # no lock was left behind
    assert "lab04/2" in progress.read()


def test_a_writer_that_dies_between_writing_and_renaming_leaves_the_old_file(file, monkeypatch):
    progress.record("lab02", 1, 1, 1)
    before = file.read_bytes()
    monkeypatch.setattr(progress.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("the power went")))
    progress.record("lab02", 2, 1, 1)
    assert file.read_bytes() == before


def test_what_can_not_be_stored_is_said_and_stops_nothing(file, capsys, monkeypatch):
    file.parent.write_text("a file where the folder should be")
    progress.record("lab02", 1, 1, 1)
    assert "Your progress was not stored" in capsys.readouterr().out


def test_another_notebook_that_holds_the_lock_is_waited_for_and_then_named(file, capsys, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(progress, "WAIT", 0.2)
    file.parent.mkdir()
    with FileLock(f"{file}.lock"):
        progress.record("lab02", 1, 1, 1)
    assert "not stored" in capsys.readouterr().out and not file.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"exercises": []}', '{"exercises": {"lab02/1": {}}}', '{"exercises": {"lab02/1": 3}}', "\xff"])
def test_a_damaged_file_is_refused_with_the_fix_and_not_overwritten(file, content, capsys):
    file.parent.mkdir()
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="Fix: python course.py progress --reset"):
        progress.read()
    progress.record("lab02", 1, 1, 1)
    assert file.read_text(encoding="latin-1") == content and "not stored" in capsys.readouterr().out
    aside = progress.reset()
    assert aside.read_text(encoding="latin-1") == content and progress.read() == {}


# ---------------------------------------------------------------- shown, exported, reset


def test_the_catalogue_is_what_stands_in_the_labs():
    found = progress.catalogue()
    assert ("lab08", 1, "The F1 of one field", 10, 2) in found and len({lab for lab, *_ in found}) == len(list((ROOT / "labs").glob("*.ipynb")))


def test_table_picture_and_text_say_the_same(file):
    from helpers import plots

    progress.record("lab08", 1, 2, 2)
    progress.record("lab08", 2, 1.5, 3)
    rows = {(r["lab"], r["exercise"]): r for r in progress.rows()}
    assert rows["lab08", 1]["state"] == "done" and rows["lab08", 2]["state"] == "begun" and rows["lab08", 3]["state"] == "open"
    table = progress.show()
    assert table.loc["lab08", "points"] == 3.5 and table.loc["lab08", "done"] == 1 and table.loc["lab02", "points"] == 0
    figure, total = progress.picture(), sum(r["of"] for r in rows.values())
    assert isinstance(figure, plots.Chart) and "lab08 3.5 of" in figure.numbers and f"You reached 3.5 of {total} points" in repr(figure)
    assert f"1 of {len(rows)} exercises done, 3.5 of {total} points" in progress.text()
    with pytest.raises(ValueError, match="Fix:"):
        plots.progress_bars({})


def test_export_and_reset(file, tmp_path):
    progress.record("lab08", 1, 2, 2)
    rows = list(csv.DictReader(progress.export(tmp_path / "mine.csv").open(encoding="utf-8")))
    assert len(rows) == len(progress.catalogue()) and next(r for r in rows if r["lab"] == "lab08")["state"] == "done"
    assert json.loads(progress.export(tmp_path / "mine.json").read_text(encoding="utf-8")) == progress.rows()
    first, _ = progress.reset(), progress.record("lab08", 2, 1, 3)
    second = progress.reset()
    assert first != second and "lab08/1" in first.read_text() and "lab08/2" in second.read_text() and progress.reset() is None


def test_the_command(file, tmp_path, capsys):
    progress.record("lab08", 1, 2, 2)
    assert command.main(["--export", str(tmp_path / "mine.csv")]) == 0
    out = capsys.readouterr().out
    assert "lab08  1  done      2 of 2 points  The F1 of one field" in out and str(file) in out and (tmp_path / "mine.csv").exists()
    assert command.main(["--reset"]) == 0 and "0 of" in capsys.readouterr().out
    file.write_text("{")
    assert command.main([]) == 1 and "Stopped:" in capsys.readouterr().out


def test_reading_needs_the_standard_library_only(file):
    """`python course.py progress` shows it before anything is installed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-S", "-m", "helpers.checks"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "exercises done" in done.stdout, done.stderr


def test_course_py_shows_it(file):
    done = subprocess.run([sys.executable, str(ROOT / "course.py"), "progress"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "0 of" in done.stdout and "exercises done" in done.stdout, done.stdout + done.stderr
    wrong = subprocess.run([sys.executable, str(ROOT / "course.py"), "progress", "--rest"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2 and "usage: course.py progress" in wrong.stderr
