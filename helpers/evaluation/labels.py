"""Scores of closed labels (the need `tone`), and whether the probabilities of labels mean what they say. Explained in lessons 02 and 08."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np
import pandas as pd

from .intervals import Interval, Values, bootstrap, same_length
from .records import mean_f1

NO_LABEL = "(no label)"


def label_accuracy(answers: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    """Per row, 1.0 if the answer is the gold label (case, spaces around and end punctuation aside), else 0.0; shape (rows,).

    The mean is scikit-learn's `accuracy_score`; `proportion` gives it an interval. Raises ValueError when the sides differ
    in number. Lesson 08.
    """
    same_length(answers, gold)
    return np.array([_label(a) == _label(g) for a, g in zip(answers, gold)], dtype=float)


def macro_f1_labels(answers: Sequence[str], gold: Sequence[str], labels: Sequence[str] | None = None, n: int = 2000, seed: int = 0) -> Interval:
    """The mean of the labels' F1, 0 to 1, with its bootstrap interval over rows: a rare label counts as much as a common one.

    `labels`: the closed list (default: those that stand in `gold`). An answer that is none of them is a miss of the gold
    label. A label that neither side has is left out of the mean, as in scikit-learn's `f1_score(average="macro",
    zero_division=nan)`. Raises ValueError when the sides differ in number, or a gold label is not in the list. Lesson 08.
    """
    names = _names(gold, labels)
    same_length(answers, gold)
    said = np.array([[_label(a) == name for name in names] for a in answers])
    true = np.array([[_label(g) == name for name in names] for g in gold])
    counts = np.stack([said & true, said & ~true, ~said & true], axis=2).astype(float)  # (rows, labels, 3)
    return bootstrap(counts, mean_f1, n=n, seed=seed)


def confusion(answers: Sequence[str], gold: Sequence[str], labels: Sequence[str] | None = None) -> pd.DataFrame:
    """How many rows of each gold label (down) got each answer (across); the last column counts answers that are no label.

    `labels`: the closed list, in the order wanted (default: those that stand in `gold`, sorted). The square part equals
    scikit-learn's `confusion_matrix`. Raises ValueError as `macro_f1_labels` does. Lesson 08.
    """
    names = _names(gold, labels)
    same_length(answers, gold)
    table = pd.DataFrame(0, index=pd.Index(names, name="gold"), columns=pd.Index([*names, NO_LABEL], name="answer"))
    for answer, true in zip(answers, gold):
        said = _label(answer)
        table.loc[_label(true), said if said in names else NO_LABEL] += 1
    return table


class Calibration(NamedTuple):
    """`table`: one row per bin, with columns low, high, rows, confidence (mean probability) and accuracy (share right), both NaN in
    an empty bin. `error`: the expected calibration error, 0 (the probabilities mean what they say) to 1."""

    table: pd.DataFrame
    error: float


def calibration(probabilities: Values, right: Values, bins: int = 10) -> Calibration:
    """Whether answers given with probability 0.8 are right 8 times in 10: the reliability table and its summary.

    `probabilities`: of each answer that was given, 0 to 1; `right`: 1 or 0 for each; both of shape (rows,). The bins are
    equally wide, and a probability on an edge belongs to the lower one. Expected calibration error = the mean of
    |accuracy - confidence| over bins, weighted by their rows (Guo et al. 2017, arXiv:1706.04599). It moves with the
    number of bins, and with few rows it is never near 0. Raises ValueError for values out of range. Lesson 08.
    """
    p, hit = _probabilities(probabilities, right)
    if bins < 1:
        raise ValueError(f"calibration: expected at least one bin, got {bins}. Fix: leave bins at 10.")
    edges = np.arange(bins + 1) / bins
    where = np.digitize(p, edges[1:-1], right=True)
    rows = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.bincount(where, weights=x, minlength=bins) / rows for x in (p, hit))
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "rows": rows, "confidence": confidence, "accuracy": accuracy})
    return Calibration(table, float(np.nansum(rows * np.abs(accuracy - confidence)) / len(p)))


def brier(probabilities: Values, right: Values) -> np.ndarray:
    """Per row, the squared distance of the probability from what happened (1 or 0); shape (rows,). Their mean is the Brier score.

    0 is perfect; 0.25 is what a constant 0.5 gets. It punishes wrong confidence, and rewards telling right from wrong
    (Brier 1950). The mean equals scikit-learn's `brier_score_loss`. Raises ValueError for values out of range. Lesson 08.
    """
    p, hit = _probabilities(probabilities, right)
    return (p - hit) ** 2


def _probabilities(probabilities: Values, right: Values) -> tuple[np.ndarray, np.ndarray]:
    same_length(probabilities, right)
    p, hit = np.asarray(probabilities, dtype=float), np.asarray(right, dtype=float)
    if p.ndim != 1 or hit.ndim != 1:
        raise ValueError(f"expected one probability and one outcome per row, shape (rows,), got shapes {p.shape} and {hit.shape}. "
                         "Fix: take the probability of the answer that was given.")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected probabilities from 0 to 1, got {p.min():g} to {p.max():g}. Fix: pass exp of log-probabilities, or softmax of scores.")
    if not np.isin(hit, (0, 1)).all():
        raise ValueError("expected 1 (right) or 0 (wrong) per row, got other values. Fix: pass the result of label_accuracy.")
    return p, hit


def _names(gold: Sequence[str], labels: Sequence[str] | None) -> list[str]:
    found = sorted({_label(g) for g in gold})
    names = found if labels is None else [_label(name) for name in labels]
    if unknown := [name for name in found if name not in names]:
        raise ValueError(f"expected gold labels of the list {names}, got {unknown} too. Fix: add them to labels.")
    return names


def _label(text: str) -> str:
    return text.strip().strip(".!?\"'").strip().lower()
