"""How sure a score is: intervals, paired comparison, permutation test, and how many rows a difference needs. Explained in lesson 08."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Callable, Sequence

import numpy as np
from scipy.stats import binomtest, norm

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
    return bootstrap(_paired("compare_paired", a, b), n=n, level=level, seed=seed)


def permutation_test(a: Values, b: Values, n: int = 10_000, seed: int = 0) -> float:
    """The two-sided p value of the mean of `a - b`: how often would luck alone give a difference this large?

    Both have shape (rows,), in the same order of rows. If the systems were equal, a row's two scores could as well be
    swapped: the sign of each difference is flipped at random (Fisher 1935; for language tasks, Dror et al. 2018, ACL). With
    at most log2(`n`) rows that differ, all flips are counted and p is exact; else `n` random flips are, and the observed one
    is added to them, so that p is never 0 (Phipson & Smyth 2010). Raises ValueError when the scores differ in number.
    Explained in lesson 08.
    """
    differences = _paired("permutation_test", a, b)
    differences = differences[differences != 0]  # a flip of zero changes nothing
    observed = abs(differences.sum()) * (1 - 1e-12) - 1e-12  # equal sums in another order of addition count as equal
    if 2 ** len(differences) <= n:
        return float(np.mean([abs(np.dot(signs, differences)) >= observed for signs in itertools.product((-1, 1), repeat=len(differences))]))
    rng, extreme = np.random.default_rng(seed), 0
    for start in range(0, n, 1000):  # in parts, so that many rows need little memory
        signs = rng.choice((-1.0, 1.0), size=(min(1000, n - start), len(differences)))
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (extreme + 1) / (n + 1)


def rows_needed(difference: float, rate: float, discordant: float | None = None, power: float = 0.8, level: float = 0.95) -> int:
    """How many test rows it takes to see that one system is right more often than another, on the same rows.

    `difference`: of the two shares of right rows, such as 0.05; `rate`: the share of the first; the second has
    `rate + difference`. `discordant`: the share of rows where just one of the two is right; by default, that of systems
    which err independently. Systems that err on the same rows have a smaller one, and need fewer rows. `power`: how often
    the test shall see the difference; `level`: 1 - the rate of false alarms.

    McNemar's test (1947), sample size by Connor (1987, Biometrics 43): with d the difference and q the discordant share,
    n = (z(level) sqrt(q) + z(power) sqrt(q - d^2))^2 / d^2, rounded up. Raises ValueError for shares that no two systems
    can have. Explained in lesson 08.
    """
    other = rate + difference
    if not (0 <= rate <= 1 and 0 <= other <= 1 and difference):
        raise ValueError(f"rows_needed: expected a difference other than 0, and both shares between 0 and 1, got {rate} and {other:g}. "
                         "Fix: give the rate of the first system and the difference as shares, such as 0.6 and 0.05.")
    if not (0 < power < 1 and 0 < level < 1):
        raise ValueError(f"rows_needed: expected power and level between 0 and 1, got {power} and {level}. Fix: give shares, such as 0.8 and 0.95.")
    least, most = abs(difference), min(rate + other, 2 - rate - other)
    share = rate * (1 - other) + other * (1 - rate) if discordant is None else discordant
    if not least - 1e-12 <= share <= most + 1e-12:
        raise ValueError(f"rows_needed: expected a discordant share from {least:g} to {most:g}, which these rates allow, got {share:g}. "
                         "Fix: count the rows where just one of the two systems is right, and divide by all rows.")
    z_level, z_power = norm.ppf((1 + level) / 2), norm.ppf(power)
    root = z_level * math.sqrt(share) + z_power * math.sqrt(max(share - difference**2, 0))
    return math.ceil(root**2 / difference**2)


def _paired(who: str, a: Values, b: Values) -> np.ndarray:
    a, b = _vector(a), _vector(b)
    if a.shape != b.shape:
        raise ValueError(f"{who}: expected two systems scored on the same rows, got {len(a)} and {len(b)} scores. Fix: score both on the same rows.")
    return a - b


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
