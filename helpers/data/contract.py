"""The data contract: read, validate and write chat JSONL. Explained in lesson 04.

One JSON object per line, `{"id": …, "messages": [{"role": …, "content": …}], …}`: the conversational form that TRL, OpenAI
and Azure OpenAI take unchanged. A bad line is refused, never dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Iterable, NoReturn

import pyarrow as pa
from datasets import Dataset, disable_progress_bars

disable_progress_bars()

Row = dict[str, Any]
ROLES = ("system", "user", "assistant")


class DataError(ValueError):
    """A file that breaks the contract: says file, line, what was expected, what was found, and how to mend it."""


def read_chat(path: str | Path) -> list[Row]:
    """Read and validate a chat JSONL file (UTF-8, a byte-order mark is refused); return its rows in order.

    Each row gets its line number as `id` when it has none. Raises DataError at the first bad line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a chat JSONL file, found {'a folder' if path.is_dir() else 'nothing'}. "
                        "Fix: check the path; a relative path starts at the folder of the notebook or script.")
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:4]:
        _refuse(path, 1, "UTF-8 text", "UTF-16 text", "save the file as 'UTF-8'")
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
        _new_id(path, number, row, first_seen)
        rows.append(row)
    if not rows:
        _refuse(path, 1, "at least one JSON object", "an empty file", "write one conversation per line")
    return rows


def load_chat(path: str | Path) -> Dataset:
    """`read_chat` as a `datasets.Dataset`; columns are the union of the rows' keys, missing values None."""
    rows = read_chat(path)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    try:
        return Dataset.from_list([{key: row.get(key) for key in keys} for row in rows])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise DataError(f"{path}: expected one type per key in all rows; found {error}. Fix: write the value the same way in each row.") from error


def write_chat(rows: Iterable[Row], path: str | Path) -> None:
    """Write rows as chat JSONL; the file appears whole or not at all (temporary file, then rename).

    Every row is validated first. Raises DataError, and leaves an existing file as it was.
    """
    path = Path(path)
    lines: list[str] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            line = json.dumps(row, ensure_ascii=False, allow_nan=False)
            encoded = line.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            _refuse(path, number, "values that JSON can hold", str(error), "use text, numbers, lists, objects or null")
        _new_id(path, number, _row(path, number, encoded), seen)
        lines.append(line)
    if not lines:
        _refuse(path, 1, "at least one row to write", "none", "write one conversation per row")
    if not path.parent.is_dir():
        raise DataError(f"{path}: expected an existing folder, found nothing at {path.parent}. Fix: make the folder first.")
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    os.replace(part, path)


def strict_json(text: str) -> Any:
    """`json.loads` of JSON as the standard has it: no NaN or Infinity, no key twice. Raises ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"the key {twice[0]!r} twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def _new_id(path: Path, number: int, row: Row, seen: dict[str, int]) -> None:
    key = row.get("id", str(number))
    if key in seen:
        _refuse(path, number, "an id of its own in every row", f"id {key!r}, already used in line {seen[key]}",
                "rename or delete one of the two (a row without id gets its line number)")
    seen[key] = number


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = strict_json(line.decode("utf-8"))
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(path, number, "UTF-8 text", f"byte 0x{line[error.start]:02x} at position {error.start}",
                "save the file as UTF-8 (it looks like Latin-1 or Windows-1252)")
    except UnicodeEncodeError:
        _refuse(path, number, "whole characters", "half of a surrogate pair (\\ud800 to \\udfff alone)", "write the character itself, or both halves")
    except json.JSONDecodeError as error:
        _refuse(path, number, "one JSON object on one line", f"{error.msg} at column {error.colno}",
                "put each conversation on a line of its own, with double quotes and no comma at the end")
    except RecursionError:
        _refuse(path, number, "one JSON object on one line", "brackets nested too deeply", "flatten the value, or store it as text")
    except ValueError as error:
        _refuse(path, number, "plain JSON values, each key once", str(error), "use null or an ordinary number, and each key once")
    if not isinstance(row, dict):
        _refuse(path, number, "a JSON object", _kind(row), 'wrap it: {"messages": [...]}')
    if "id" in row and not (isinstance(row["id"], str) and row["id"]):
        _refuse(path, number, "`id` as non-empty text", _kind(row["id"]), "give it a text in double quotes, or remove the key")
    messages = row.get("messages")
    if "messages" not in row:
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
    if isinstance(value, (str, list, dict)) and not value:
        return {str: "empty text", list: "an empty list", dict: "an empty object"}[type(value)]
    return names.get(type(value), repr(value))


def _refuse(path: Path, number: int, expected: str, found: str, fix: str) -> NoReturn:
    raise DataError(f"{path}, line {number}: expected {expected}; found {found}. Fix: {fix}.")
