"""Scores of the need `extract`: JSON validity, exact match, field F1. Explained in lessons 05 and 08."""

from __future__ import annotations

import json
from typing import Any, Sequence

import numpy as np
import pandas as pd
from pydantic import ValidationError

from helpers.data import Record, strict_json

from .intervals import Interval, bootstrap, proportion, same_length


def parse_record(text: str) -> dict[str, Any] | None:
    """The JSON object that an answer consists of, or None. Nothing is repaired: text around the object is a failure."""
    try:
        value = strict_json(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def valid_json(answers: Sequence[str]) -> np.ndarray:
    """Per row, 1.0 if the answer is one JSON object and nothing else, else 0.0; shape (rows,)."""
    return np.array([parse_record(a) is not None for a in answers], dtype=float)


def valid_record(answers: Sequence[str]) -> np.ndarray:
    """Per row, 1.0 if the answer also holds to the desk's schema (`helpers.data.Record`); shape (rows,)."""

    def holds(answer: str) -> bool:
        if parse_record(answer) is None:  # pydantic would let a key stand twice
            return False
        try:
            Record.model_validate_json(answer)
            return True
        except ValidationError:
            return False

    return np.array([holds(a) for a in answers], dtype=float)


def exact_match(answers: Sequence[str], gold: Sequence[dict[str, Any]]) -> np.ndarray:
    """Per row, 1.0 if the answer parses to just the gold record (order of keys aside), else 0.0; shape (rows,)."""
    same_length(answers, gold)
    return np.array([_same(parse_record(a), g) for a, g in zip(answers, gold)], dtype=float)


def field_counts(answers: Sequence[str], gold: Sequence[dict[str, Any]], field: str) -> np.ndarray:
    """True positives, false positives and false negatives of one field; shape (rows, 3).

    `null`, `false` and `[]` mean "nothing said": saying nothing where the gold says nothing counts nowhere. A wrong
    value is a false positive and a false negative. A list is compared item by item. An answer that is no JSON object
    says nothing.
    """
    same_length(answers, gold)
    counts = np.zeros((len(gold), 3))
    for row, (answer, record) in enumerate(zip(answers, gold)):
        said, true = _items((parse_record(answer) or {}).get(field)), _items(record[field])
        hit = len(said & true)
        counts[row] = hit, len(said) - hit, len(true) - hit
    return counts


def f1(counts: np.ndarray) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) of summed counts, shape (…, 3); 0.0 when there was nothing to find and nothing said."""
    tp, fp, fn = np.asarray(counts).reshape(-1, 3).sum(axis=0)
    return float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else 0.0


def field_f1(answers: Sequence[str], gold: Sequence[dict[str, Any]], fields: Sequence[str] | None = None) -> dict[str, float]:
    """F1 of each field (all fields of the first gold record by default)."""
    same_length(answers, gold)
    return {field: f1(field_counts(answers, gold, field)) for field in fields or list(gold[0])}


def macro_f1(answers: Sequence[str], gold: Sequence[dict[str, Any]], n: int = 2000, seed: int = 0) -> Interval:
    """The mean of the fields' F1 with its bootstrap interval over rows: every field counts the same."""
    same_length(answers, gold)
    counts = np.stack([field_counts(answers, gold, field) for field in gold[0]], axis=1)  # (rows, fields, 3)
    return bootstrap(counts, mean_f1, n=n, seed=seed)


def mean_f1(counts: np.ndarray) -> float:
    """Mean F1 of the fields of counts, shape (rows, fields, 3); a field that nobody filled has none and is left out."""
    filled = [k for k in range(counts.shape[1]) if counts[:, k].any()]
    return float(np.mean([f1(counts[:, k]) for k in filled])) if filled else 1.0


def report(systems: dict[str, Sequence[str]], gold: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per system: share of valid JSON, valid records and exact matches, the latter with its interval, and macro F1."""
    table = {}
    for name, answers in systems.items():
        exact, fields = proportion(exact_match(answers, gold)), macro_f1(answers, gold)
        table[name] = {
            "valid JSON": valid_json(answers).mean(), "valid record": valid_record(answers).mean(),
            "exact": exact.estimate, "exact low": exact.low, "exact high": exact.high,
            "macro F1": fields.estimate, "F1 low": fields.low, "F1 high": fields.high,
        }
    return pd.DataFrame.from_dict(table, orient="index")


def _items(value: Any) -> set[str]:
    if value is None or value is False or value == []:
        return set()
    return {json.dumps(v, ensure_ascii=False) for v in (value if isinstance(value, list) else [value])}


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 is not true and 1.0 is not 1, unlike in Python."""
    return a is not None and json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
