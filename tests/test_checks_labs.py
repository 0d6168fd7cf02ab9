"""Every exercise of every lab: the right answer passes in any form, each named mistake gets its own message, a stub gets none."""

from __future__ import annotations

import importlib
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.checks.exercise import SECONDS, Exercise

ROOT = Path(__file__).resolve().parent.parent
LABS = [importlib.import_module(f"helpers.checks.{path.stem}") for path in sorted((ROOT / "helpers" / "checks").glob("lab[0-9][0-9].py"))]
EXERCISES = [value for lab in LABS for name, value in vars(lab).items() if re.fullmatch(r"exercise_\d+", name)]


@pytest.fixture(params=EXERCISES, ids=lambda e: f"{e.lab}-{e.number}")
def exercise(request, monkeypatch) -> Exercise:
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    return request.param


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a check used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def judge(exercise: Exercise, function):
    if exercise.prediction is None:
        return exercise.judge(function)
    return exercise.judge(lambda: (exercise.prediction.low + exercise.prediction.high) / 2, function)


def stub(*_):
    raise NotImplementedError


def numbers(value) -> bool:
    return isinstance(value, (int, float)) or isinstance(value, (list, tuple)) and all(map(numbers, value))


def reform(value, array):
    """The same answer, lists as tuples and whole arrays of numbers as `array` makes them."""
    if isinstance(value, dict):
        return {key: reform(item, array) for key, item in value.items()}
    if numbers(value):
        try:
            return array(value)
        except (ValueError, TypeError):  # rows of different lengths
            pass
    return tuple(reform(item, array) for item in value) if isinstance(value, (list, tuple)) else value


def test_names_and_numbers_agree(exercise):
    lab = importlib.import_module(f"helpers.checks.{exercise.lab}")
    assert getattr(lab, f"exercise_{exercise.number}") is exercise and exercise.points >= 1 and len(exercise.mistakes) >= 3


def test_the_right_answer_passes_in_any_form_quickly_and_offline(exercise, offline):
    start = time.monotonic()
    import torch

    for array in (lambda v: v, np.array, torch.tensor, lambda v: (np.float64(v) if isinstance(v, float) else v) if not isinstance(v, (list, tuple)) else tuple(v)):
        for right in (exercise.right, *exercise.also_right):
            verdict = judge(exercise, lambda *a: reform(right(*a), array))
            assert verdict.credit == 1 and verdict.text.startswith("right. "), verdict.text
    assert (time.monotonic() - start) < SECONDS * 4, "a check may take 20 s; this is for all forms together"


def test_every_named_mistake_gets_its_own_message_and_no_full_marks(exercise):
    said = []
    for mistake in exercise.mistakes:
        verdict = judge(exercise, mistake.made)
        said.append(verdict.text)
        if isinstance(mistake.message, str):
            assert verdict.text.endswith(mistake.message), (mistake.message, verdict.text)
        assert verdict.credit == mistake.credit < 1 and "not yet right. " in verdict.text
    assert len(set(said)) == len(said)


def test_a_stub_gets_no_points(exercise):
    verdict = judge(exercise, stub)
    assert verdict.credit == 0 and "not done yet" in verdict.text
    if exercise.prediction is not None:
        assert exercise.judge(stub, exercise.right).text.startswith("predict first")


def test_what_nobody_expected_is_said_in_words(exercise):
    for odd in (lambda *_: "nonsense", lambda *_: object(), lambda *_: None, lambda *_: [], lambda *_: {}, lambda: 1, lambda *_: float("nan"), lambda *_: np.zeros((2, 2))):
        verdict = judge(exercise, odd)
        assert verdict.credit == 0 and "not yet right. " in verdict.text and "Traceback" not in verdict.text, verdict.text
        assert "xpected" in verdict.text, verdict.text


def test_a_split_of_one_part_is_shown_and_not_called_a_leak():
    from helpers.checks import lab04

    text = lab04.exercise_5.judge(lambda rows, seed: rows[:64]).text
    assert "Expected two lists of rows, train and test; found a list" in text and "stands in both" not in text, text


def test_messages_are_sentences_that_fit_a_screen(exercise):
    for mistake in exercise.mistakes:
        text = mistake.message if isinstance(mistake.message, str) else mistake.message(*next(iter(exercise.cases().values())))
        assert 30 < len(text) < 320 and text.endswith("."), text


def test_the_label_mask_names_the_positions():
    from helpers import data, models
    from helpers.checks import lab04

    tokenizer = models.load_tokenizer()

    def everything(tokenizer, messages):
        ids = tokenizer.apply_chat_template(messages)["input_ids"]
        return {"input_ids": ids, "labels": ids}

    row = data.load_tone()["train"][0]["messages"]
    prompt = len(tokenizer.apply_chat_template(row[:-1], add_generation_prompt=True)["input_ids"])
    assert f"Your labels include the prompt: positions 0–{prompt - 1} should be -100" in lab04.exercise_1.judge(everything).text
