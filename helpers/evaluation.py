"""Scores and how sure they are: JSON validity, exact match, field F1, intervals, paired comparison.

First part; explained in lesson 05, in full in lesson 08.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from pydantic import ValidationError
from scipy.stats import binomtest

from helpers.data import Record, strict_json

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its confidence interval, all in the unit of the estimate."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


# ---------------------------------------------------------------- scores, one value per row


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
    _same_length(answers, gold)
    return np.array([_same(parse_record(a), g) for a, g in zip(answers, gold)], dtype=float)


def field_counts(answers: Sequence[str], gold: Sequence[dict[str, Any]], field: str) -> np.ndarray:
    """True positives, false positives and false negatives of one field; shape (rows, 3).

    `null`, `false` and `[]` mean "nothing said": saying nothing where the gold says nothing counts nowhere. A wrong
    value is a false positive and a false negative. A list is compared item by item. An answer that is no JSON object
    says nothing.
    """
    _same_length(answers, gold)
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
    _same_length(answers, gold)
    return {field: f1(field_counts(answers, gold, field)) for field in fields or list(gold[0])}


def macro_f1(answers: Sequence[str], gold: Sequence[dict[str, Any]], n: int = 2000, seed: int = 0) -> Interval:
    """The mean of the fields' F1 with its bootstrap interval over rows: every field counts the same."""
    _same_length(answers, gold)
    counts = np.stack([field_counts(answers, gold, field) for field in gold[0]], axis=1)  # (rows, fields, 3)
    return bootstrap(counts, _mean_f1, n=n, seed=seed)


def _mean_f1(counts: np.ndarray) -> float:
    """Mean F1 of the fields of counts, shape (rows, fields, 3); a field that nobody filled has none and is left out."""
    filled = [k for k in range(counts.shape[1]) if counts[:, k].any()]
    return float(np.mean([f1(counts[:, k]) for k in filled])) if filled else 1.0


def passes(reply: str, check: Mapping[str, Any]) -> bool:
    """Whether a reply to an item of the general probe (`data.load_probe`) is right by the item's rule.

    Rules by `check["type"]`: contains (one of `any` as a whole word), contains_all, exact (one of `any`; case, spaces and end
    punctuation ignored), starts, number (the last number is `value`), words (from `low` to `high`), items (`count` parts
    between commas or lines), lacks (none of the letters or words), upper (no small letter). Prose is measured by perplexity,
    so its rule raises ValueError, as does an unknown one. Explained in lesson 07.
    """
    text, kind = reply.strip(), check.get("type")
    if kind in ("contains", "contains_all"):
        return (any if kind == "contains" else all)(_has_word(text, w) for w in check["any" if kind == "contains" else "all"])
    if kind == "exact":
        return _bare(text) in map(_bare, check["any"])
    if kind == "starts":
        return any(re.match(rf"{re.escape(_bare(w))}(?!\w)", _bare(text)) for w in check["any"])
    if kind == "number":
        numbers = re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text))
        return bool(numbers) and float(numbers[-1]) == check["value"]
    if kind == "words":
        return check["low"] <= len(text.split()) <= check["high"]
    if kind == "items":
        return len([part for part in re.split(r"[,\n]", text) if part.strip()]) == check["count"]
    if kind == "lacks":
        return bool(text) and not any(letters in text.lower() for letters in check["none"])
    if kind == "upper":
        return bool(re.search("[A-Z]", text)) and text == text.upper()
    if kind == "perplexity":
        raise ValueError("check: expected a rule that a reply can pass, found prose. Fix: leave rows of kind prose out, and measure their perplexity.")
    raise ValueError(f"check: expected a type that the docstring lists, found {kind!r}. Fix: correct the item's rule.")


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags=re.IGNORECASE) is not None


def _bare(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .!?\"'")


def _items(value: Any) -> set[str]:
    if value is None or value is False or value == []:
        return set()
    return {json.dumps(v, ensure_ascii=False) for v in (value if isinstance(value, list) else [value])}


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 is not true and 1.0 is not 1, unlike in Python."""
    return a is not None and json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _same_length(answers: Sequence[str], gold: Sequence[Any]) -> None:
    if len(answers) != len(gold):
        raise ValueError(f"expected one answer per gold row, got {len(answers)} answers and {len(gold)} gold rows. "
                         "Score the same rows that were answered, in the same order.")
    if not len(gold):
        raise ValueError("expected at least one row to score, got none.")


# ---------------------------------------------------------------- how sure


def proportion(outcomes: Values, level: float = 0.95) -> Interval:
    """The share of ones with Wilson's interval (1927), which stays honest at 0 of n and n of n.

    `outcomes`: zeros and ones, shape (rows,). The percentile bootstrap would call 0 of 80 "exactly 0".
    """
    values = _vector(outcomes)
    if not np.isin(values, (0, 1)).all():
        raise ValueError("proportion: expected only zeros and ones, got other values. Use `bootstrap` for a mean of numbers.")
    bounds = binomtest(int(values.sum()), len(values)).proportion_ci(level, method="wilson")
    return Interval(float(values.mean()), float(bounds.low), float(bounds.high), level)


def bootstrap(
    values: Values | np.ndarray,
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    n: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval (Efron 1979): draw the rows with replacement `n` times, look at the spread.

    `values` has one row per test row, shape (rows, …); `statistic` maps such an array to a number (default: the mean).
    """
    array = np.asarray(values, dtype=float)
    if not len(array):
        raise ValueError("bootstrap: expected at least one row, got none.")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(array), size=(n, len(array)))
    if statistic is None:
        draws, estimate = _vector(array)[picks].mean(axis=1), float(array.mean())
    else:
        draws, estimate = np.array([statistic(array[p]) for p in picks]), statistic(array)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)


def compare_paired(a: Values, b: Values, *, n: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of `a - b` over the same rows, with its bootstrap interval: is system a better than system b?

    Both have shape (rows,), in the same order of rows. The comparison is paired: what makes a row hard for both
    systems cancels. If the interval excludes 0, the difference is more than the luck of these rows, provided
    that there are some dozens of them: with a handful the bootstrap is too sure (lesson 08).
    """
    a, b = _vector(a), _vector(b)
    if a.shape != b.shape:
        raise ValueError(f"compare_paired: expected two systems scored on the same rows, got {len(a)} and {len(b)} scores.")
    return bootstrap(a - b, n=n, level=level, seed=seed)


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


def _vector(values: Values) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected one score per row, shape (rows,), got shape {array.shape}.")
    return array
