"""The two small data sets of other trades, labs/data: contract, labels, splits, near-duplicates, leaks, and what the data card says."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from helpers import data

FOLDER = Path(__file__).resolve().parent.parent / "labs" / "data"
DESKS = {"loans", "account", "rooms", "events", "damage", "collection"}
BIKES = {"city", "road", "mountain", "cargo", "child", "electric", None}
JOBS = {"brakes", "gears", "wheel", "tyre", "chain", "light", "frame", "motor", "service"}


@pytest.fixture(params=["library", "bicycles"])
def name(request) -> str:
    return request.param


@pytest.fixture
def rows(name) -> list[dict]:
    return data.read_chat(FOLDER / f"{name}.jsonl")


def split(rows) -> dict[str, list[dict]]:
    return {part: [row for row in rows if row["split"] == part] for part in data.SPLITS}


def label(row) -> str:
    return row["messages"][-1]["content"]


def test_rows_have_one_instruction_a_question_and_an_answer(rows):
    assert all([turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"] for row in rows)
    assert len({row["messages"][0]["content"] for row in rows}) == 1 and set(rows[0]) == {"id", "messages", "split"}


def test_labels_are_those_of_the_guide():
    library, bicycles = (data.read_chat(FOLDER / f"{name}.jsonl") for name in ("library", "bicycles"))
    assert set(map(label, library)) == DESKS
    tickets = [json.loads(label(row)) for row in bicycles]
    assert all(list(ticket) == ["bike", "job", "urgent"] and isinstance(ticket["urgent"], bool) for ticket in tickets)
    assert {ticket["bike"] for ticket in tickets} == BIKES and {ticket["job"] for ticket in tickets} == JOBS
    for row, words in ((library[0], DESKS), (bicycles[0], {*JOBS, *filter(None, BIKES), "null", "true", "false"})):
        assert words <= set(re.findall(r"\w+", row["messages"][0]["content"])), "the instruction names every label"


def test_every_label_is_in_train_and_in_test(rows, name):
    kind = label if name == "library" else lambda row: json.loads(label(row))["job"]
    parts = split(rows)
    assert set(map(kind, parts["train"])) == set(map(kind, parts["test"])) == set(map(kind, rows))


def test_no_two_messages_are_nearly_the_same_and_none_leaks(rows):
    assert data.near_duplicates(rows, 0.25, n=3) == [] and data.leaks(split(rows), 0.1, n=3) == []


def test_no_label_stands_in_most_of_its_messages():
    """Else a search for the word would do."""
    rows = data.read_chat(FOLDER / "library.jsonl")
    told = sum(label(row).rstrip("s") in data.prompt_of(row).lower() for row in rows)
    assert told < 0.1 * len(rows)


def test_the_card_says_what_is_there(rows, name):
    counts = Counter(row["split"] for row in rows)
    said = f"| `{name}.jsonl` | {len(rows)} | {counts['train']}, {counts['validation']}, {counts['test']} |"
    assert said in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert abs(counts["train"] / len(rows) - 0.7) < 0.02 and abs(counts["test"] / len(rows) - 0.2) < 0.02
