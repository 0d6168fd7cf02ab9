"""Votes of people: hidden sides, a file that loses nothing, counts with intervals, and the buttons, pressed without a browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from helpers import widgets
from helpers.evaluation import proportion
from helpers.ratings import VERDICTS, Ratings, pairs

ROOT = Path(__file__).resolve().parent.parent
IDS = [f"r{n}" for n in range(20)]
PAIRS = pairs([f"good {n}" for n in range(20)], [f"bad {n}" for n in range(20)], IDS, questions=[f"why {n}?" for n in range(20)], names=("good", "bad"))


@pytest.fixture
def file(tmp_path) -> Ratings:
    return Ratings(tmp_path / "new folder" / "votes.jsonl")


def side(pair, system: str) -> str:
    return "left" if pair.left_system == system else "right"


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize("rows", [1, 7, 20])
@pytest.mark.parametrize("seed", range(4))
def test_sides_are_balanced_and_belong_to_their_answers(rows, seed):
    made = pairs([f"good {n}" for n in range(rows)], [f"bad {n}" for n in range(rows)], IDS[:rows], seed, names=("good", "bad"))
    assert sum(p.left_system == "good" for p in made) == (rows + 1) // 2 and [p.id for p in made] == IDS[:rows]
    for n, p in enumerate(made):
        assert {(p.left_system, p.left), (p.right_system, p.right)} == {("good", f"good {n}"), ("bad", f"bad {n}")}


def test_the_seed_draws_the_sides():
    draws = {seed: [p.left_system for p in pairs(["x"] * 20, ["y"] * 20, IDS, seed)] for seed in range(5)}
    assert len({tuple(d) for d in draws.values()}) == 5 and draws[3] == [p.left_system for p in pairs(["x"] * 20, ["y"] * 20, IDS, 3)]
    assert any(d != ["a", "b"] * 10 for d in draws.values())


# ---------------------------------------------------------------- the file


def test_a_vote_comes_back_as_it_was_given(file):
    given = file.add(PAIRS[0], "tie", "Asha")
    assert file.votes() == [given] and given.choice == "tie" and given.time.endswith("+00:00")
    assert file.voted(PAIRS[0], "Asha") == given and file.voted(PAIRS[0], "Ben") is None and file.voted(PAIRS[1], "Asha") is None
    assert json.loads(file.path.read_text(encoding="utf-8")) == {"pair": "r0", "verdict": "tie", "left_system": PAIRS[0].left_system,
                                                                 "right_system": PAIRS[0].right_system, "rater": "Asha", "time": given.time}


def test_the_last_vote_of_a_rater_on_a_pair_counts(file):
    for verdict in VERDICTS:
        file.add(PAIRS[0], verdict, "Asha")
    file.add(PAIRS[0], "left", "Ben")
    assert [(v.rater, v.verdict) for v in file.votes()] == [("Asha", "both bad"), ("Ben", "left")]
    assert len(file.path.read_text(encoding="utf-8").splitlines()) == 5, "nothing is taken away"


def test_other_systems_under_the_same_id_are_another_vote(file):
    other = pairs(["x"] * 20, ["y"] * 20, IDS, names=("good", "third"))
    file.add(PAIRS[0], "left")
    assert file.voted(other[0]) is None
    file.add(other[0], "right")
    assert len(file.votes()) == 2 and sorted(file.summary().wins) == ["bad", "good", "third"]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_half_line_is_left_out_with_a_message_and_spoils_nothing(file, cut):
    file.add(PAIRS[0], "left")
    file.add(PAIRS[1], "right")
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[: len(whole) - cut])
    votes, messages = file.read()
    if cut == 1:  # only the line's end is missing: the vote is whole
        assert len(votes) == 2 and not messages
    else:
        assert [v.pair for v in votes] == ["r0"] and len(messages) == 1 and "line 2" in messages[0] and "cut off" in messages[0]
    file.add(PAIRS[2], "tie")
    assert [v.pair for v in file.votes()][-1] == "r2" and len(file.read()[1]) == (cut != 1)


@pytest.mark.parametrize("line", ["[]", "17", "{}", '{"pair": "r0"}', '"left"', "\xff".encode("latin-1")])
def test_a_foreign_line_is_named_and_left_out(file, line):
    file.add(PAIRS[0], "left")
    with file.path.open("ab") as f:
        f.write((line.encode() if isinstance(line, str) else line) + b"\n\n")
    file.add(PAIRS[1], "left")
    votes, messages = file.read()
    assert len(votes) == 2 and len(messages) == 1 and "votes.jsonl, line 2: expected a vote" in messages[0]


def test_an_unknown_verdict_in_the_file_is_left_out(file):
    file.add(PAIRS[0], "left")
    file.path.write_text(file.path.read_text(encoding="utf-8").replace('"left"', '"up"', 1), encoding="utf-8")
    assert file.votes() == [] and "'up'" in file.read()[1][0]


WRITER = """
import sys
from helpers.ratings import Pair, Ratings
name, count = sys.argv[2], int(sys.argv[3])
for n in range(count):
    Ratings(sys.argv[1]).add(Pair(f"p{n}", "", "", "", "x" * 3000, "y"), "left", name)
    print(n, flush=True)
"""


def test_two_notebooks_at_once_lose_no_vote(file):
    start = lambda name: subprocess.Popen([sys.executable, "-c", WRITER, str(file.path), name, "60"], cwd=ROOT, stdout=subprocess.DEVNULL)
    for writer in [start("Asha"), start("Ben"), start("Chen")]:
        assert writer.wait(120) == 0
    votes, messages = file.read()
    assert len(votes) == 180 and not messages


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
def test_a_killed_notebook_leaves_whole_votes_and_no_lock(file):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file.path), "Asha", "100000"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    said = [int(writer.stdout.readline()) for _ in range(20)]
    time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    file.add(PAIRS[0], "left", "Ben")
    votes = file.votes()
    assert votes[-1].rater == "Ben" and [v.pair for v in votes[:20]] == [f"p{n}" for n in said], "what was said to be stored is stored"


# ---------------------------------------------------------------- the summary


def test_summary_by_hand(file):
    for pair in PAIRS[:12]:
        file.add(pair, side(pair, "good") if pair.id != "r3" else side(pair, "bad"))
    file.add(PAIRS[12], "tie")
    file.add(PAIRS[13], "both bad")
    found = file.summary()
    assert (found.pairs, found.votes, sum(found.verdicts.values())) == (14, 14, 14) and found.verdicts["tie"] == found.verdicts["both bad"] == 1
    assert found.wins == {"bad": proportion([1] + [0] * 13), "good": proportion([1] * 11 + [0] * 3)}
    left = sum(p.left_system == ("bad" if p.id == "r3" else "good") for p in PAIRS[:12])
    assert found.left == proportion([1] * left + [0] * (12 - left)) and found.kappa == {}
    assert "14 pairs, 14 votes" in str(found) and "good wins 0.786" in str(found)


def test_a_pair_is_one_row_however_many_raters(file):
    for rater in ("Asha", "Ben", "Chen"):
        for pair in PAIRS[:5]:
            file.add(pair, side(pair, "good"), rater)
    assert file.summary().pairs == 5 and file.summary().wins["good"] == proportion([1] * 5)
    for rater in ("Asha", "Ben"):
        file.add(PAIRS[0], side(PAIRS[0], "bad"), rater)
    assert file.summary().wins == {"bad": proportion([1, 0, 0, 0, 0]), "good": proportion([0, 1, 1, 1, 1])}


def test_kappa_compares_systems_not_sides(file):
    """Two raters see the sides of the same pairs the other way round, and choose the same systems but for one."""
    mirrored = pairs(["x"] * 20, ["y"] * 20, IDS, 1, names=("bad", "good"))
    one, two = [], []
    for n, (p, m) in enumerate(zip(PAIRS, mirrored)):
        choice = ("good", "bad", "tie")[n % 3]
        other = "good" if n == 1 else choice
        file.add(p, choice if choice == "tie" else side(p, choice), "Asha")
        file.add(m, other if other == "tie" else side(m, other), "Ben")
        one.append(choice)
        two.append(other)
    assert file.summary().kappa["Asha", "Ben"].estimate == pytest.approx(cohen_kappa_score(one, two))


@pytest.mark.parametrize("call", [
    lambda f: f.add(PAIRS[0], "up"), lambda f: f.add(PAIRS[0], "left", " "), lambda f: f.summary(), lambda f: pairs(["x"], [], ["r"]), lambda f: pairs([], [], []),
    lambda f: pairs(["x"] * 2, ["y"] * 2, ["r", "r"]), lambda f: pairs(["x"], ["y"], ["r"], names=("z", "z")), lambda f: pairs(["x"], ["y"], ["r"], names=("z", "tie")),
    lambda f: widgets.rate([], f),
])
def test_bad_input_is_refused_with_what_was_expected_and_found(file, call):
    with pytest.raises(ValueError, match="(?s)expected.*got.*Fix"):
        call(file)
    assert not file.path.exists()


# ---------------------------------------------------------------- the buttons


def test_pressing_the_buttons_stores_votes_and_moves_on(file):
    view = widgets.rate(PAIRS[:3], file, "Asha")
    assert "Pair 1 of 3" in view.progress.value and "why 0?" in view.pair.value and view.buttons["back"].disabled
    view.buttons["left"].click()
    assert "Pair 2 of 3" in view.progress.value and "why 1?" in view.pair.value and "Stored: pair 1, left is better." in view.result.value
    view.buttons["both bad"].click()
    view.buttons["back"].click()
    assert "Pair 2 of 3" in view.progress.value
    view.buttons["tie"].click()
    view.buttons["right"].click()
    assert [(v.pair, v.verdict, v.rater) for v in file.votes()] == [("r0", "left", "Asha"), ("r1", "tie", "Asha"), ("r2", "right", "Asha")]
    assert "All 3 pairs are rated" in view.progress.value and "3 pairs, 3 votes" in view.result.value
    assert all(view.buttons[v].disabled for v in VERDICTS) and not view.buttons["back"].disabled


def test_it_goes_on_where_the_rater_stopped(file):
    widgets.rate(PAIRS[:3], file, "Asha").buttons["left"].click()
    assert "Pair 2 of 3" in widgets.rate(PAIRS[:3], file, "Asha").progress.value
    assert "Pair 1 of 3" in widgets.rate(PAIRS[:3], file, "Ben").progress.value
    file.path.write_bytes(file.path.read_bytes()[:-20])
    view = widgets.rate(PAIRS[:3], file, "Asha")
    assert "Pair 1 of 3" in view.progress.value and "line 1: expected a vote" in view.result.value


def test_the_names_of_the_systems_stay_hidden(file):
    hidden = pairs(["one", "two"], ["three", "four"], IDS[:2], names=("tuned-model", "base-model"))
    view = widgets.rate(hidden, file)
    shown = view.progress.value + view.pair.value + view.result.value + widgets.static(hidden) + widgets.static_text(hidden)
    assert "tuned-model" not in shown and "base-model" not in shown


def test_what_a_model_wrote_is_text_and_never_markup(file):
    nasty = pairs(["<script>alert(1)</script>"], ['</div><img src=x onerror="alert(1)">'], ["r"], questions=["<b>why</b> & 'how'?"], names=("<i>a", "b"))
    view = widgets.rate(nasty, file)
    view_and_static = [view.pair.value, widgets.static(nasty)]
    view.buttons["left"].click()
    for shown in [*view_and_static, view.result.value]:
        assert not any(bad in shown for bad in ("<script", "<img", "<b>why", "<i>a")), shown
    assert "&lt;script&gt;" in view_and_static[0] and "&lt;i&gt;a" in view.result.value


def test_a_screen_reader_can_say_every_button_and_hears_the_result(file):
    view = widgets.rate(PAIRS, file)
    names = [b.description for b in view.buttons.values()]
    assert all(names) and len(set(names)) == 5 and all(b.tooltip for b in view.buttons.values())
    assert 'role="status"' in view.result.value and 'scope="col"' in view.pair.value


def test_a_vote_that_cannot_be_stored_is_said_and_the_pair_stays(file, tmp_path):
    blocked = Ratings(tmp_path)  # a folder is no file
    view = widgets.Rating.__new__(widgets.Rating)
    with pytest.raises(OSError):
        widgets.Rating.__init__(view, PAIRS, blocked, "me")
    view = widgets.rate(PAIRS, file)
    file.path.mkdir(parents=True)
    file.read = lambda: ([], [])  # only writing fails
    view.buttons["left"].click()
    assert "was not stored" in view.result.value and "Pair 1 of 20" in view.progress.value


def test_in_a_notebook_it_shows_buttons_and_a_static_pair_and_no_raw_widget_text(file):
    import nbformat
    from nbcheck import new_client, run_cell

    source = f"from helpers.ratings import Ratings, pairs\nfrom helpers import widgets\nwidgets.rate(pairs(['yes'], ['no'], ['r1'], questions=['Is it?']), Ratings(r'{file.path}'))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    client = new_client(notebook, ROOT)
    with client.setup_kernel():
        outputs = run_cell(client, notebook.cells[0], 0)
    assert [sorted(o["data"]) for o in outputs] == [["application/vnd.jupyter.widget-view+json", "text/plain"], ["text/html", "text/plain"]]
    stored = "\n".join(str(v) for o in outputs for k, v in o["data"].items() if "widget" not in k)
    assert "VBox(" not in stored and "Is it?" in stored and " at 0x" not in stored
