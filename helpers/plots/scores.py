"""Figures of scores: bars and curves with intervals, calibration, power. Explained in lessons 02, 05 and 08."""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd

from helpers.evaluation import Calibration, Interval

from .chart import BLUE, ORANGE, GREEN, GREY, MARKS, Chart


def score_bars(scores: dict[str, Interval], title: str, axis: str = "share of test rows") -> Chart:
    """Horizontal bars with their intervals as whiskers, one per system, the value written beside each."""
    figure = Chart(figsize=(7, 0.7 * len(scores) + 1.3), layout="constrained")
    axes = figure.subplots()
    names = list(scores)
    for row, name in enumerate(names):
        s = scores[name]
        axes.barh(row, s.estimate, color=BLUE, height=0.55)
        axes.errorbar(s.estimate, row, xerr=[[max(s.estimate - s.low, 0)], [max(s.high - s.estimate, 0)]], color="black", capsize=4)
        axes.text(min(s.high + 0.02, 0.98), row, f"{s.estimate:.2f}", va="center", fontsize=11)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.08), xlabel=axis)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name} {s}" for name, s in scores.items())
    return figure


def score_curves(
    series: dict[str, Sequence[tuple[float, Interval]]], title: str, x: str, y: str = "share of rows", *, log: bool = False, join: bool = True,
) -> Chart:
    """Scores with their intervals as whiskers over a number that was varied; one line per series, told apart by colour, marker and dashes.

    `series`: name -> points (value on the horizontal axis, score as an Interval). `log`: logarithmic horizontal axis. Without
    `join` the points are not connected and each series' name stands beside its last point. Raises ValueError for more than six series.
    """
    if not 1 <= len(series) <= len(MARKS):
        raise ValueError(f"score_curves: expected one to {len(MARKS)} series, got {len(series)}. Fix: split them over several figures.")
    figure = Chart(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, points), (colour, marker, dashes) in zip(series.items(), MARKS):
        where, scores = [p for p, _ in points], [s for _, s in points]
        error = [[max(s.estimate - s.low, 0) for s in scores], [max(s.high - s.estimate, 0) for s in scores]]
        axes.errorbar(where, [s.estimate for s in scores], yerr=error, label=name, color=colour, marker=marker, linestyle=dashes if join else "", capsize=3, markersize=6)
        if not join:
            axes.annotate(name, (where[-1], scores[-1].estimate), xytext=(7, 5), textcoords="offset points", fontsize=9)
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    if log:
        axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    if join and len(series) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(series), 3), frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name}: " + ", ".join(f"{p:g} {s}" for p, s in points) for name, points in series.items())
    return figure


def split_bars(counts: pd.DataFrame, title: str) -> Chart:
    """How the rows of each label are shared out: one stacked bar per column, one part per row of `counts`.

    `counts`: the label columns of `data.describe`, one row per split. The parts differ in colour and in hatching.
    """
    figure = Chart(figsize=(7, 0.38 * counts.shape[1] + 1.4), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(counts.shape[1])
    if not 1 <= len(counts) <= 3:
        raise ValueError(f"split_bars: expected one to three splits, found {len(counts)}. Fix: choose rows of the table with .loc.")
    for (name, values), colour, hatch in zip(counts.iterrows(), (BLUE, ORANGE, GREEN), ("", "//", "..")):
        bars = axes.barh(range(counts.shape[1]), values, left=left, color=colour, hatch=hatch, edgecolor="white", label=name, height=0.7)
        axes.bar_label(bars, label_type="center", fontsize=9, color="black", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        left += values.to_numpy(dtype=float)
    axes.set(yticks=range(counts.shape[1]), yticklabels=list(counts.columns), xlabel="rows")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(counts), frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{label} {'/'.join(map(str, counts[label]))}" for label in counts.columns)
    return figure


def probability_bars(names: Sequence[str], values: Sequence[float], title: str) -> Chart:
    """Horizontal bars of probabilities, the value written beside each; values in 0…1, shape (names,)."""
    figure = Chart(figsize=(7, 0.45 * len(names) + 1.1), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), values, color=BLUE, height=0.6)
    for row, value in enumerate(values):
        axes.text(value + 0.01, row, f"{value:.2f}", va="center", fontsize=11)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.08), xlabel="probability of coming next")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, values))
    return figure


def reliability_curve(systems: dict[str, Calibration], title: str) -> Chart:
    """How often an answer is right, over how sure the model was: on the diagonal, the probability means what it says.

    `systems`: name -> the result of `evaluation.calibration`. One line per system, told apart by colour, marker and dashes; beside
    each point stands its number of rows. Raises ValueError for none or more than three systems. Explained in lesson 08.
    """
    if not 1 <= len(systems) <= 3:
        raise ValueError(f"reliability_curve: expected one to three systems, got {len(systems)}. Fix: draw the others in a second figure.")
    figure = Chart(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="means what it says")
    words = []
    for (name, found), colour, marker, dashes, below in zip(systems.items(), (BLUE, ORANGE, GREEN), "osD", ("-", "--", "-."), (-12, 6, 16)):
        filled = found.table[found.table["rows"] > 0]
        axes.plot(filled["confidence"], filled["accuracy"], color=colour, marker=marker, linestyle=dashes, label=name)
        for one in filled.itertuples():
            axes.annotate(f"{one.rows}", (one.confidence, one.accuracy), xytext=(4, below), textcoords="offset points", fontsize=8)
        shares = filled["rows"] / filled["rows"].sum()
        points = ", ".join(f"said {c:.2f} right {a:.2f} in {n:.2f} of rows" for c, a, n in zip(filled["confidence"], filled["accuracy"], shares))
        words.append(f"{name}: error {found.error:.2f}; {points}")
    axes.set(xlabel="probability of the answer given (mean of its bin)", ylabel="share of right answers", xlim=(0, 1.04), ylim=(-0.02, 1.04))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = " | ".join(words)
    return figure


def power_curve(rows: dict[float, int], title: str, have: int | None = None) -> Chart:
    """How many test rows it takes to see a difference, over the size of the difference.

    `rows`: difference in points of 100 -> rows, as from `evaluation.rows_needed`. `have`: the rows that there are, as a line across.
    The vertical axis is logarithmic. Raises ValueError for no points. Explained in lesson 08.
    """
    if not rows:
        raise ValueError("power_curve: expected at least one difference, got none. Fix: pass differences with their rows.")
    figure = Chart(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    points = sorted(rows)
    axes.plot(points, [rows[p] for p in points], color=BLUE, marker="o")
    for point in points:
        axes.annotate(f"{rows[point]:,}", (point, rows[point]), xytext=(5, 5), textcoords="offset points", fontsize=9)
    if have is not None:
        axes.axhline(have, color=GREY, linestyle="--")
        axes.annotate(f"you have {have:,}", (points[-1], have), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=9)
    axes.set(xlabel="difference of two systems, in points of 100", ylabel="test rows needed", yscale="log", xlim=(0, points[-1] * 1.1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = ", ".join(f"{point:g} points {rows[point]:,} rows" for point in points)
    return figure
