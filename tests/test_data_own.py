"""A learner's own data: what loads, and what is refused with one clear error."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from helpers import data

WORDS = "amber birch cedar delta ember fjord grove heron inlet jetty kelp larch maple north ocean pearl quartz river stone tidal".split()


def row(number: int, **more) -> dict:
    """A short question that shares no word sequence with the others; three labels in turn."""
    said = " ".join(random.Random(number).sample(WORDS, 8))
    turns = [("system", "Name the drawer."), ("user", said), ("assistant", ("left", "right", "middle")[number % 3])]
    return {"messages": [{"role": role, "content": text} for role, text in turns], **more}


def write(tmp_path: Path, rows: list) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(one + "\n" if isinstance(one, str) else json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def parts(count: int = 80) -> list[dict]:
    return [row(n, split=("test", "validation", "train", "train", "train")[n % 5]) for n in range(count)]


@pytest.mark.parametrize("name", ["library", "bicycles"])
def test_the_two_sets_load_by_name_with_their_own_splits(name):
    found = data.load_own(name)
    assert list(found) == list(data.SPLITS) and all(row["split"] == part for part, rows in found.items() for row in rows)
    assert sum(map(len, found.values())) == len(data.read_chat(Path(__file__).parent.parent / "labs" / "data" / f"{name}.jsonl"))


def test_a_file_without_splits_is_split_with_each_label_in_each_part(tmp_path):
    found = data.load_own(write(tmp_path, [row(n) for n in range(90)]))
    assert {part: len(rows) for part, rows in found.items()} == {"train": 63, "validation": 9, "test": 18}
    assert all(len({one["messages"][-1]["content"] for one in rows}) == 3 for rows in found.values())
    assert len({one["id"] for rows in found.values() for one in rows}) == 90


def test_rows_without_a_system_turn_take_the_given_instruction(tmp_path):
    rows = parts()
    for one in rows[::2]:
        del one["messages"][0]
    found = data.load_own(write(tmp_path, rows), instruction="Say where it lies.")
    said = [one["messages"][0] for rows in found.values() for one in rows]
    assert all(turn["role"] == "system" for turn in said) and {turn["content"] for turn in said} == {"Name the drawer.", "Say where it lies."}


def leaked() -> list[dict]:
    rows = parts()
    rows[1]["messages"][1]["content"] = rows[0]["messages"][1]["content"].upper()
    return rows


def turned(rows: list[dict]) -> list[dict]:
    rows[4]["messages"] = rows[4]["messages"][:2] * 2 + rows[4]["messages"][2:]
    return rows


def without_instruction(rows: list[dict]) -> list[dict]:
    for one in rows:
        del one["messages"][0]
    return rows


BAD = {
    "a line that is no JSON": (lambda: [*parts()[:7], '{"messages": [{"role": "user", ', *parts()[7:]], "line 8: expected one JSON object on one line"),
    "other columns": (lambda: [{"prompt": "Where?", "completion": "left"}], "line 1: expected a key `messages`; found the keys completion, prompt"),
    "no answer": (lambda: [row(0) | {"messages": row(0)["messages"][:2]}], "line 1: expected an assistant turn at the end"),
    "an empty file": (lambda: [], "line 1: expected at least one JSON object; found an empty file"),
    "other turns": (lambda: turned(parts()), "expected the turns user, assistant, with a system turn before them or without; found system, user, system"),
    "no instruction": (lambda: without_instruction(parts()), "expected an instruction in each row: a system turn before the question; found none in the row '1'"),
    "an unknown split": (lambda: [row(n, split="dev") for n in range(80)], "out of train, validation, test; found 'dev' in the row '1'"),
    "a split in some rows": (lambda: [*parts(70), row(70)], "expected a `split` in each row or in none, out of train, validation, test; found None in the row '71'"),
    "too few rows": (lambda: [row(n) for n in range(20)], "expected at least 60 rows, or a `split` in each; found 20 rows without one"),
    "too few test rows": (lambda: [one for one in parts() if one["split"] != "test"], "expected at least 12 rows in the part test; found 0 (of 64 in all)"),
    "too few training rows": (lambda: parts(50)[:50], "expected at least 32 rows in the part train; found 30 (of 50 in all)"),
    "test rows in train": (leaked, "expected no question of one part in another part; found 1 pair nearly or exactly the same, first the rows"),
    "copies in a file without splits": (lambda: [row(n % 70) for n in range(80)], "expected each question once, since any of its copies may fall into the test part"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_get_one_clear_error(tmp_path, name):
    make, said = BAD[name]
    path = write(tmp_path, make())
    with pytest.raises(data.DataError) as error:
        data.load_own(path)
    text = str(error.value)
    assert text.startswith(str(path)) and said in text and "; found " in text and " Fix: " in text and text.count("\n") == 0, text


def test_a_path_that_leads_nowhere_is_said(tmp_path):
    with pytest.raises(data.DataError, match="expected a chat JSONL file, found nothing"):
        data.load_own(tmp_path / "libary")
