"""Bring answers of other forms together, compare them, and say in words where they differ."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, Iterable, Mapping

LONGEST = 100_000  # items of an answer that are looked at: a generator may have no end


def plain(value: Any) -> Any:
    """The same content as lists, dicts, numbers and texts: an array, tensor, tuple, Series, generator or dataclass all become plain."""
    if hasattr(value, "tolist"):  # numpy, torch, pandas
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, Mapping):
        return {plain_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in islice(value, LONGEST)]
    return value


def plain_key(key: Any) -> Any:
    return key.item() if hasattr(key, "item") else key


def same(a: Any, b: Any, rtol: float = 1e-6, atol: float = 1e-9) -> bool:
    """Whether two plain values are equal; numbers within `rtol` (share of the larger) or `atol` (absolute), NaN equal to NaN."""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=rtol, abs_tol=atol) or (a != a and b != b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], rtol, atol) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, rtol, atol) for x, y in zip(a, b))
    return type(a) is type(b) and a == b


def difference(found: Any, expected: Any, rtol: float = 1e-6, atol: float = 1e-9, where: str = "") -> str:
    """The first difference of two plain values in words: "at position 3: expected -100, found 1502"."""
    if isinstance(found, dict) and isinstance(expected, dict):
        if found.keys() != expected.keys():
            return f"{where}expected the keys {show(list(expected))}, found {show(list(found))}"
        key = next(k for k in expected if not same(found[k], expected[k], rtol, atol))
        return difference(found[key], expected[key], rtol, atol, f"{where}under {key!r}: ")
    if isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return f"{where}expected {len(expected)} values, found {len(found)}: {show(found)}"
        position = next(n for n, pair in enumerate(zip(found, expected)) if not same(*pair, rtol, atol))
        return difference(found[position], expected[position], rtol, atol, f"{where}at position {position}: ")
    if isinstance(expected, (dict, list)) and type(found) is not type(expected):
        return f"{where}expected {form(expected)}, found {form(found)}"
    return f"{where}expected {show(expected)}, found {show(found)}"


def form(value: Any) -> str:
    """What kind of thing a plain value is, and the value: "a list [1, 2]", "a text 'six'"; of a dict only its keys."""
    if isinstance(value, dict):
        return f"a dict with the keys {show(list(value))}"
    kind = {bool: "", int: "a number ", float: "a number ", str: "a text ", list: "a list "}.get(type(value), "")
    return kind + show(value)


def show(value: Any) -> str:
    """A plain value in at most about a hundred characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "…")
    if isinstance(value, list):
        inner = ", ".join(show(item) for item in value[:6])
        return f"[{inner}]" if len(value) <= 6 else f"[{inner}, …] ({len(value)} values)"
    if isinstance(value, dict):
        inner = ", ".join(f"{key!r}: {show(item)}" for key, item in list(value.items())[:6])
        return f"{{{inner}}}" if len(value) <= 6 else f"{{{inner}, …}} ({len(value)} keys)"
    return repr(value) if isinstance(value, (int, type(None))) else f"something of the type {type(value).__name__}"
