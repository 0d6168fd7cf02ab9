"""Chat JSONL: load, validate, split, describe; and the desk's data sets. Explained in lessons 00 and 04.

The contract is one JSON object per line, `{"id": …, "messages": [{"role": …, "content": …}], …}`: the conversational
form that TRL, OpenAI and Azure OpenAI take unchanged. A bad line is refused, never dropped.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Callable, Iterable, Literal, NoReturn, Sequence

import pandas as pd
from datasets import Dataset, DatasetDict, disable_progress_bars
from pydantic import BaseModel, ConfigDict, Field

disable_progress_bars()

Row = dict[str, Any]
ROLES = ("system", "user", "assistant")
SPLITS = ("train", "validation", "test")
HERE = Path(__file__).parent


class DataError(ValueError):
    """A file that breaks the contract: says file, line, what was expected, what was found, and how to mend it."""


# ---------------------------------------------------------------- the contract


def read_chat(path: str | Path) -> list[Row]:
    """Read and validate a chat JSONL file (UTF-8, a byte-order mark is refused); return its rows in order.

    Each row gets its line number as `id` when it has none. Raises DataError at the first bad line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a chat JSONL file, found {'a folder' if path.is_dir() else 'nothing'}. "
                        "Fix: check the path; a relative path starts at the folder of the notebook or script.")
    raw = path.read_bytes()
    if raw.startswith(b"\xef\xbb\xbf"):
        _refuse(path, 1, "plain UTF-8", "a byte-order mark (BOM) at the start of the file",
                "save the file as 'UTF-8', not as 'UTF-8 with BOM'")
    rows: list[Row] = []
    first_seen: dict[str, int] = {}
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _row(path, number, line)
        row.setdefault("id", str(number))
        if row["id"] in first_seen:
            _refuse(path, number, "an id of its own in every row",
                    f"id {row['id']!r}, already used in line {first_seen[row['id']]}", "rename or delete one of the two")
        first_seen[row["id"]] = number
        rows.append(row)
    if not rows:
        _refuse(path, 1, "at least one JSON object", "an empty file", "write one conversation per line")
    return rows


def load_chat(path: str | Path) -> Dataset:
    """`read_chat` as a `datasets.Dataset`; columns are the union of the rows' keys, missing values None."""
    rows = read_chat(path)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return Dataset.from_list([{key: row.get(key) for key in keys} for row in rows])


def write_chat(rows: Iterable[Row], path: str | Path) -> None:
    """Write rows as chat JSONL; the file appears whole or not at all (temporary file, then rename).

    Every row is validated first. Raises DataError, and leaves an existing file as it was.
    """
    path = Path(path)
    lines = []
    for number, row in enumerate(rows, start=1):
        line = json.dumps(row, ensure_ascii=False)
        _row(path, number, line.encode())
        lines.append(line)
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    os.replace(part, path)


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        _refuse(path, number, "UTF-8 text", f"byte 0x{line[error.start]:02x} at position {error.start}",
                "save the file as UTF-8 (it looks like Latin-1 or Windows-1252)")
    except json.JSONDecodeError as error:
        _refuse(path, number, "one JSON object on one line", f"{error.msg} at column {error.colno}",
                "put each conversation on a line of its own, with double quotes and no comma at the end")
    if not isinstance(row, dict):
        _refuse(path, number, "a JSON object", _kind(row), 'wrap it: {"messages": [...]}')
    if "id" in row and not (isinstance(row["id"], str) and row["id"]):
        _refuse(path, number, "`id` as non-empty text", _kind(row["id"]), "put the id in double quotes")
    messages = row.get("messages")
    if messages is None:
        _refuse(path, number, "a key `messages`", f"the keys {', '.join(sorted(row)) or '(none)'}",
                'write {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}')
    if not isinstance(messages, list) or not messages:
        _refuse(path, number, "`messages` as a list with at least one turn", _kind(messages), "write [ {...}, {...} ]")
    for turn, message in enumerate(messages, start=1):
        _check_turn(path, number, turn, message)
    if messages[-1]["role"] != "assistant":
        _refuse(path, number, "an assistant turn at the end: the answer to learn",
                f"the last turn's role is {messages[-1]['role']!r}", "add the answer, or remove the turns after it")
    return row


def _check_turn(path: Path, number: int, turn: int, message: Any) -> None:
    where = f"turn {turn} of `messages`"
    if not isinstance(message, dict):
        _refuse(path, number, f"{where} as an object with `role` and `content`", _kind(message),
                'write {"role": "user", "content": "..."}')
    if message.get("role") not in ROLES:
        _refuse(path, number, f"{where} with a role out of {', '.join(ROLES)}", f"role {message.get('role')!r}",
                "use 'user' for people and 'assistant' for the model")
    content = message.get("content")
    if not isinstance(content, str):
        _refuse(path, number, f"{where} with `content` as text", _kind(content),
                "put the content in double quotes; an answer in JSON is text too (escape its quotes)")
    if not content.strip():
        _refuse(path, number, f"{where} with some content", "empty content", "fill it in, or delete the whole line")


def _kind(value: Any) -> str:
    names = {type(None): "nothing (null)", bool: "true/false", int: "a number", float: "a number", str: "text",
             list: "a list", dict: "an object"}
    return ("empty " if value in ("", [], {}) and value is not None else "") + names.get(type(value), repr(value))


def _refuse(path: Path, number: int, expected: str, found: str, fix: str) -> NoReturn:
    raise DataError(f"{path}, line {number}: expected {expected}; found {found}. Fix: {fix}.")


# ---------------------------------------------------------------- split and describe


def stratified_split(
    rows: Sequence[Row],
    by: Callable[[Row], Any],
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> dict[str, list[Row]]:
    """Split rows into train, validation and test so that each stratum `by(row)` is shared out alike.

    Each stratum is shuffled; its rows go, one at a time, to the split that is furthest behind its share, first of
    this stratum and then of the whole. So a stratum of any size is shared within one row, and the totals hold as well.
    Raises DataError for fractions that are not three positive numbers with sum 1. Explained in lesson 04.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"fractions: expected three positive numbers with sum 1, found {tuple(fractions)}. "
                        "Fix: for example (0.7, 0.1, 0.2).")
    strata: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        strata[str(by(row))].append(index)
    rng = random.Random(seed)
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    done = 0
    for key in sorted(strata, key=lambda k: (-len(strata[k]), k)):
        indices = strata[key]
        rng.shuffle(indices)
        here = [0, 0, 0]
        for taken, index in enumerate(indices, start=1):
            done += 1
            behind = [
                (round(fractions[s] * taken - here[s], 9) > 0, fractions[s] * done - len(chosen[SPLITS[s]]), -s)
                for s in range(3)
            ]
            best = max(range(3), key=lambda s: behind[s])
            here[best] += 1
            chosen[SPLITS[best]].append(index)
    return {name: [rows[i] for i in sorted(indices)] for name, indices in chosen.items()}


def describe(splits: DatasetDict | dict[str, Any], label: Callable[[Row], Any] | None = None) -> pd.DataFrame:
    """One row per split: rows, words per prompt (median, longest), characters per answer, and the label counts."""
    table = {}
    for name, rows in splits.items():
        prompts = [sum(len(m["content"].split()) for m in r["messages"][:-1] if m["role"] == "user") for r in rows]
        answers = [len(r["messages"][-1]["content"]) for r in rows]
        table[name] = {
            "rows": len(prompts),
            "words per prompt (median)": int(pd.Series(prompts).median()),
            "words per prompt (longest)": max(prompts),
            "characters per answer (median)": int(pd.Series(answers).median()),
        }
        if label:
            table[name].update({str(k): v for k, v in sorted(Counter(map(label, rows)).items(), key=lambda kv: str(kv[0]))})
    return pd.DataFrame.from_dict(table, orient="index").fillna(0).astype(int)


# ---------------------------------------------------------------- the desk's need `extract`

Product = Literal["Rill", "Tumbla", "Tarn", "Fjell", "Glod", "Skarn", "Brisa", "Mokko", "Pip", "Plissa"]
Problem = Literal["no_power", "leak", "noise", "poor_result", "smell", "broken_part", "missing_part", "display_app",
                  "delivery", "billing", "question"]


class Record(BaseModel):
    """The desk's record of a ticket. The annotation guide, `helpers/data/extract/GUIDE.md`, defines every field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    product: Product | None
    problem: Problem
    error_codes: list[str] = Field(description="capital letter and digits, in the order told, once each")
    age_months: int | None = Field(ge=0, description="how long the customer has had the product")
    order: str | None = Field(pattern=r"^PW-\d{6}$")
    name: str | None = Field(min_length=1)
    safety: bool


EXTRACT_INSTRUCTION = "Write the desk's record of this ticket as JSON."


def load_extract() -> DatasetDict:
    """The need `extract`: tickets with their records, in the chat contract, split into train, validation and test.

    Columns: id, messages (system, user, assistant), wants (what the customer asks for, labelled beside the record),
    channel, batch, hard (a list of marks); the guide explains them.
    """
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in read_chat(HERE / "extract" / "tickets.jsonl"):
        splits[row.pop("split")].append(row)
    return DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()})


def record_of(row: Row) -> dict[str, Any]:
    """The gold record of a row of `load_extract`, as a dictionary."""
    return json.loads(row["messages"][-1]["content"])
