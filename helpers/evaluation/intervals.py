"""How sure a score is: intervals, paired comparison, permutation test, and how many rows a difference needs. Explained in lesson 08."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

import numpy as np
from scipy.stats import binomtest

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


def _vector(values: Values) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected one score per row, shape (rows,), got shape {array.shape}.")
    return array


def same_length(answers: Sequence[str], gold: Sequence[Any]) -> None:
    if len(answers) != len(gold):
        raise ValueError(f"expected one answer per gold row, got {len(answers)} answers and {len(gold)} gold rows. "
                         "Score the same rows that were answered, in the same order.")
    if not len(gold):
        raise ValueError("expected at least one row to score, got none.")
