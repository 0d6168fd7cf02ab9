"""How a check judges: right answers of any form, mistakes with a name, everything else in words, and no loop without an end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings

import nbformat
import numpy as np
import pytest

import nbcheck
from helpers.checks import exercise as room
from helpers.checks import limit
from helpers.checks.compare import difference, plain, same, show
from helpers.checks.exercise import Exercise, Mistake, Points, Prediction


@pytest.fixture(autouse=True)
def nobodys_progress(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "off")


def doubled(**changes) -> Exercise:
    given = dict(
        lab="lab99", number=1, points=4, right=lambda values: [2 * v for v in values], returns="a list with one number per value", after="Well counted.",
        cases=lambda: {"three values": ([1, 2, 3],), "no value": ([],), "a half": ([0.5, 8],)},
        mistakes=[
            Mistake(lambda values: [v + 2 for v in values], "You add two.", credit=0.5),
            Mistake(lambda values: [v * v for v in values], lambda values: f"You square; the first value is {values[0]}."),
            Mistake(lambda values: 1 / len(values) and [2 * v for v in values], "You divide by the number of values, which may be 0.", credit=0.25),
        ])
    return Exercise(**given | changes)


# ---------------------------------------------------------------- what passes


def tensor(values):
    import torch

    return torch.tensor(values, requires_grad=bool(values) and isinstance(values[0], float))


def series(values):
    import pandas as pd

    return pd.Series(values)


@pytest.mark.parametrize("form", [list, tuple, np.array, tensor, series, iter, lambda v: (x for x in v), lambda v: np.array(v, dtype="float32"), lambda v: list(map(np.float64, v))])
def test_a_right_answer_of_another_form_passes(form):
    form([0.5])  # imports the library, which takes time that is not the answer's
    verdict = doubled().judge(lambda values: form([2 * v for v in values]))
    assert (verdict.credit, verdict.text) == (1, "right. Well counted.")


def test_full_marks_give_none_and_the_rest_gives_a_number_that_nbgrader_reads(capsys):
    assert doubled()(lambda values: [v + v for v in values]) is None
    assert capsys.readouterr().out == "Exercise 1: right. Well counted.\n4 of 4 points.\n"
    half = doubled()(lambda values: [v + 2 for v in values])
    assert isinstance(half, Points) and float(repr(half)) == 2.0 and half._repr_html_() == ""
    assert capsys.readouterr().out == "Exercise 1: not yet right. You add two.\n2 of 4 points.\n"
    doubled(after="Well counted, " * 9)(lambda values: [2 * v for v in values])
    assert capsys.readouterr().out.splitlines()[0] == "Exercise 1: right." + 5 * " Well counted,", "no word is broken at the notebook's edge"
    nothing = doubled()(lambda values: 7)
    assert nothing is not None and float(repr(nothing)) == 0.0


def test_another_answer_that_counts_as_right():
    exercise = doubled(also_right=[lambda values: [2 * v for v in values][::-1]])
    assert exercise.judge(lambda values: [2 * v for v in reversed(values)]).credit == 1


def test_an_answer_that_changes_its_arguments_is_judged_by_what_it_returns():
    def in_place(values):
        values *= 2
        return [2 * v for v in values[: len(values) // 2]]

    assert doubled().judge(in_place).credit == 1


# ---------------------------------------------------------------- what does not


def test_a_mistake_gets_its_name_its_credit_and_its_case():
    assert doubled().judge(lambda values: np.array(values) + 2).text == "not yet right. You add two."
    assert doubled().judge(lambda values: [v**2 for v in values]).text == "not yet right. You square; the first value is 1."


def test_an_error_can_be_the_mistake():
    verdict = doubled().judge(lambda values: [2 * v for v in values] if 1 / len(values) else 0)
    assert (verdict.credit, verdict.text) == (0.25, "not yet right. You divide by the number of values, which may be 0.")


def test_the_mistake_that_fits_all_cases_goes_before_one_that_fits_where_it_is_wrong():
    """Both give 4 for 2, where the answer is wrong; only one also gives the right answer for 3."""
    exercise = doubled(cases=lambda: {"two": ([2],), "three": ([3],)}, right=lambda v: [3 * v[0]], mistakes=[
        Mistake(lambda v: [4], "always four"), Mistake(lambda v: [4] if v == [2] else [9], "four for two")])
    assert exercise.judge(lambda v: [4] if v == [2] else [9]).text.endswith("four for two")


def test_a_mistake_that_fits_where_it_is_wrong_and_hardly_elsewhere_is_not_named():
    cases = lambda: {str(n): ([n],) for n in (2, 3, 4, 5)}
    exercise = doubled(cases=cases, right=lambda v: [3 * v[0]], mistakes=[Mistake(lambda v: [4], "always four")])
    assert exercise.judge(lambda v: [4]).text.endswith("always four")
    assert "always four" not in exercise.judge(lambda v: [4] if v == [2] else [3 * v[0]]).text


def test_an_error_is_a_mistake_only_when_it_says_the_same():
    exercise = doubled(mistakes=[Mistake(lambda v: [].index(7), "you look for what is not there")])
    assert exercise.judge(lambda v: [].index(7)).text.endswith("not there")
    assert "stopped with ValueError: too few" in exercise.judge(lambda v: too_few()).text


def too_few():
    raise ValueError("too few")


def test_an_answer_that_the_check_cannot_read_is_shown_as_it_is_found():
    text = doubled(read=lambda value: {"internal": value["never"]}, right=lambda v: {"never": 1}).judge(lambda v: "six").text
    assert "found a text 'six'" in text and "internal" not in text


def test_anything_else_gets_expected_and_found():
    text = doubled().judge(lambda values: [2 * v if v < 3 else 7 for v in values]).text
    assert "1 of 3 cases are right. The first that is not: three values." in text and "at position 2: expected 6, found 7" in text
    assert "expected 3 values, found 4: [2, 4, 6, 0]" in doubled().judge(lambda values: [2 * v for v in values] + [0]).text
    assert "expected a list [2, 4, 6], found a text 'six'" in doubled().judge(lambda values: "six").text


def boom(values):
    return 1 / 0


@pytest.mark.parametrize("answer, said", [
    (boom, "stopped with ZeroDivisionError: division by zero, at the line `return 1 / 0`"),
    (lambda values: exit(), "stopped with SystemExit"),
    (lambda: 3, "stopped with TypeError"),
    (lambda values: None, "gave back None; expected a list with one number per value. Fix: is the `return` missing?"),
])
def test_what_stops_or_gives_nothing_back_is_said_in_words(answer, said):
    verdict = doubled().judge(answer)
    assert verdict.credit == 0 and said in verdict.text and "Traceback" not in verdict.text


def stub(values):
    raise NotImplementedError


def test_a_stub_is_not_done_yet():
    assert doubled().judge(stub).text.startswith("not done yet")


@pytest.mark.parametrize("given, found", [(([2, 4, 6],), "found [2, 4, 6]"), ((), "found 0 of them"), ((stub, stub), "found 2 of them"), ((None,), "found None")])
def test_what_is_no_function_is_refused_with_the_fix(given, found):
    verdict = doubled().judge(*given)
    assert verdict.credit == 0 and found in verdict.text and "without brackets" in verdict.text


def test_warnings_and_stderr_cost_nothing(capsys):
    """nbgrader gives no points to a check cell that wrote to stderr."""
    def noisy(values):
        warnings.warn("old")
        print("note", file=sys.stderr)
        return [2 * v for v in values]

    assert doubled()(noisy) is None
    out, err = capsys.readouterr()
    assert err == "" and "note" in out


# ---------------------------------------------------------------- predict, then measure


PREDICTION = Prediction("a share", 0, 1, lambda: 0.62, typical=[(0.4, 0.5, "Luck was left out.")])


def test_a_prediction_comes_first_and_costs_nothing():
    exercise = doubled(prediction=PREDICTION)
    right = lambda values: [2 * v for v in values]
    assert exercise.judge(lambda: stub(0), right).text.startswith("predict first")
    assert exercise.judge(lambda: 0.9, right).text == "right. Well counted. You predicted 0.9; measured: 0.62."
    assert exercise.judge(lambda: np.float32(0.5), right).text.endswith("Luck was left out.")
    begun = exercise.judge(lambda: 0.9, stub)
    assert begun.credit == 0 and begun.text.startswith("your prediction, 0.9, is noted. Now the measurement: not done yet")


@pytest.mark.parametrize("predicted", [62, -1, "0.5", True, None, float("nan")])
def test_a_prediction_is_a_number_of_the_right_size(predicted):
    verdict = doubled(prediction=PREDICTION).judge(lambda: predicted, lambda values: [2 * v for v in values])
    assert verdict.credit == 0 and "a number from 0 to 1, found" in verdict.text


# ---------------------------------------------------------------- time


def forever(values):
    n = 0
    while n < 10:
        n -= 1


def sleeps(values):
    time.sleep(60)


def swallows(values):
    while True:
        try:
            int("x")
        except Exception:
            pass


@pytest.mark.parametrize("answer", [forever, pytest.param(sleeps, marks=pytest.mark.skipif(os.name == "nt", reason="needs signals")), swallows])
def test_a_loop_without_an_end_is_ended_and_nothing_after_it(answer, monkeypatch):
    """The third loop swallows KeyboardInterrupt in Python 3.11: a signal that arrives while an error is formatted is lost with it."""
    monkeypatch.setattr(room, "SECONDS", 0.4)
    before = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
    start = time.monotonic()
    verdict = doubled().judge(answer)
    assert verdict.credit == 0 and "ran longer than 0.4 seconds and was stopped" in verdict.text
    assert time.monotonic() - start < 5
    end = time.monotonic() + 1.2  # the next cell is not interrupted
    while time.monotonic() < end:
        pass
    assert before is None or signal.getsignal(signal.SIGALRM) is before


@pytest.fixture(params=["alarm", "thread"])
def way(request, monkeypatch):
    """Both ways to end code; the second is that of Windows, which has no setitimer."""
    if request.param == "thread":
        monkeypatch.delattr(limit.signal, "setitimer", raising=False)
    elif not hasattr(limit.signal, "setitimer"):
        pytest.skip("needs signals")


def test_both_ways_end_a_loop(way):
    with pytest.raises(limit.TimeUp):
        limit.within(0.3, lambda: forever([]))
    assert limit.within(5, lambda: "done") == "done"


def test_the_end_of_time_and_the_end_of_work_may_meet(way):
    for wait in (0.05, 0.049, 0.051, 0.0499, 0.0501) * 6:
        try:
            assert limit.within(0.05, lambda: time.sleep(wait) or "done") == "done"
        except limit.TimeUp:
            pass
    time.sleep(0.1)


def test_the_stop_button_still_stops(way):
    def pressed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        limit.within(5, pressed)


def test_outside_the_main_thread_it_runs_without_a_limit():
    found = []
    thread = threading.Thread(target=lambda: found.append(limit.within(0.05, lambda: time.sleep(0.2) or "done")))
    thread.start()
    thread.join()
    assert found == ["done"]


def test_in_a_kernel_the_loop_ends_and_the_kernel_goes_on(tmp_path):
    cells = ["from helpers.checks import exercise\nexercise.SECONDS = 1\n"
             "ex = exercise.Exercise('lab99', 1, 2, lambda: 1, lambda: {'one': ()}, [], 'a number', '')\n"
             "def f():\n    while True:\n        pass\nex(f)", "print(1 + 1)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client = nbcheck.new_client(notebook, tmp_path)
    with client.setup_kernel():
        first, second = (nbcheck.run_cell(client, cell, n) for n, cell in enumerate(notebook.cells))
    assert "was stopped" in first[0].text and first[1].data["text/plain"] == "0.0" and second[0].text == "2\n"


# ---------------------------------------------------------------- forms and words


def test_plain_and_same():
    assert plain({"a": (1, np.array([2.0])), 3: {2, 1}}) == {"a": [1, [2.0]], 3: [1, 2]}
    assert plain(Exercise) is Exercise and len(plain(iter(int, 1))) == 100_000  # a type is no dataclass value; no generator without an end
    assert same(float("nan"), float("nan")) and same(1, 1.0) and not same("1", 1) and not same([1], [1, 2]) and not same({"a": 1}, {"b": 1})
    assert same(0.5, 0.504, atol=0.005) and not same(0.5, 0.506, rtol=0, atol=0.005)


def test_differences_name_the_place():
    assert difference({"labels": [1, 2]}, {"labels": [1, -100]}) == "under 'labels': at position 1: expected -100, found 2"
    assert difference({"a": 1}, {"b": 1}) == "expected the keys ['b'], found ['a']"
    assert difference([{"a": 1}], {"a": [1]}) == "expected a dict with the keys ['a'], found a list [{'a': 1}]"
    assert difference("whole", ["whole", "cut"]) == "expected a list ['whole', 'cut'], found a text 'whole'"
    assert difference({"a": [1, 2]}, {"a": 3}) == "under 'a': expected 3, found [1, 2]"
    assert show(list(range(9))) == "[0, 1, 2, 3, 4, 5, …] (9 values)" and show(0.123456) == "0.1235" and len(show("x" * 500)) < 90
