"""Figures of quantised weights: levels over a histogram, errors and times over a number that was varied, bars of plain values. Lesson 06."""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from .chart import BLUE, GREY, MARKS, RED, Chart


def levels_over_weights(scaled: Sequence[float], levels: Sequence[float], title: str) -> Chart:
    """A histogram of weights divided by their block's largest one, with the levels they are rounded to as vertical lines.

    `scaled`: values in -1…1, any shape; `levels`: ascending, in -1…1. The text form says which share of the weights each level gets.
    Raises ValueError when there is nothing to draw.
    """
    values, marks = np.asarray(scaled, dtype=float).ravel(), np.asarray(levels, dtype=float)
    if not len(values) or len(marks) < 2:
        raise ValueError(f"levels_over_weights: expected weights and two or more levels, got {len(values)} and {len(marks)}. Fix: pass both.")
    figure = Chart(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=120, range=(-1, 1), density=True, color=BLUE, alpha=0.55, label="weights")
    for number, mark in enumerate(marks):
        axes.axvline(mark, color=RED, linestyle="--", linewidth=1, label="levels" if number == 0 else None)
    axes.set(xlabel="weight / largest weight of its block (no unit)", ylabel="share of weights per unit", xlim=(-1.03, 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    shares = np.bincount(np.searchsorted((marks[:-1] + marks[1:]) / 2, values), minlength=len(marks)) / len(values)
    figure.numbers = "level and share of weights: " + ", ".join(f"{m:.2f} {s:.2f}" for m, s in zip(marks, shares))
    return figure


def value_curves(
    series: Mapping[str, Sequence[tuple[float, float]]], title: str, x: str, y: str, *, log_x: bool = False, log_y: bool = False,
    line: tuple[float, str] | None = None,
) -> Chart:
    """Measured values over a number that was varied; series are told apart by colour, marker and dashes.

    `series`: name -> points (horizontal, vertical). `line`: a level to compare with, drawn across, and its name. Every horizontal
    value is a tick. Raises ValueError for no series, an empty one, or more than six.
    """
    if not 1 <= len(series) <= len(MARKS) or not all(len(points) for points in series.values()):
        raise ValueError(f"value_curves: expected one to {len(MARKS)} series with points, got {len(series)}. Fix: choose some, leave empty ones out.")
    figure = Chart(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, points), (colour, marker, dashes) in zip(series.items(), MARKS):
        axes.plot([p for p, _ in points], [v for _, v in points], label=name, color=colour, marker=marker, linestyle=dashes, markersize=6)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)
    ticks = sorted({p for points in series.values() for p, _ in points})
    axes.set_xticks(ticks, [f"{t:,g}" for t in ticks])
    axes.minorticks_off()
    if line:
        axes.axhline(line[0], color=GREY, linestyle=(0, (1, 1)), linewidth=1.5)
        axes.annotate(line[1], (1, line[0]), xycoords=("axes fraction", "data"), xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=9)
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name}: " + ", ".join(f"{p:g} {v:.3f}" for p, v in points) for name, points in series.items())
    return figure


def value_bars(values: Mapping[str, float], title: str, axis: str, digits: int = 2) -> Chart:
    """Horizontal bars of plain values, one per name, the value written beside each. Raises ValueError when there are none."""
    if not values:
        raise ValueError("value_bars: expected at least one value, got none. Fix: pass name -> value.")
    figure = Chart(figsize=(7, 0.5 * len(values) + 1.2), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(values)), list(values.values()), color=BLUE, height=0.55)
    axes.bar_label(bars, [f"{v:.{digits}f}" for v in values.values()], padding=4, fontsize=11)
    axes.set(yticks=range(len(values)), yticklabels=list(values), xlabel=axis, xlim=(0, 1.12 * max(max(values.values()), 1e-12)))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = ", ".join(f"{name} {v:.{digits}f}" for name, v in values.items())
    return figure
