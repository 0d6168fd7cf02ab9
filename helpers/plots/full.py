"""Figures of lesson 07: runs side by side, and how fast the ways to train are."""

from __future__ import annotations

from statistics import median
from typing import Mapping, Sequence

from .chart import BLUE, GREY, MARKS, Chart


def run_curves(runs: Mapping[str, Sequence[tuple[float, float]]], title: str, y: str = "loss per answer token (nats)", mark: tuple[float, str] | None = None) -> Chart:
    """Values of several runs over their steps, told apart by colour, marker and dashes: name -> points (step, value).

    `mark`: a step and the words beside a vertical line there. Raises ValueError for none or more than six runs. Explained in lesson 07.
    """
    if not 1 <= len(runs) <= len(MARKS):
        raise ValueError(f"run_curves: expected one to {len(MARKS)} runs, got {len(runs)}. Fix: split them over several figures.")
    figure = Chart(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    for (name, points), (colour, marker, dashes) in zip(runs.items(), MARKS):
        axes.plot([s for s, _ in points], [v for _, v in points], color=colour, marker=marker, linestyle=dashes, markersize=4, label=name)
    if mark:
        axes.axvline(mark[0], color=GREY, linestyle=":")
        axes.annotate(mark[1], (mark[0], 0.97), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points", va="top", fontsize=9)
    axes.set(xlabel="optimizer step", ylabel=y, ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(len(runs), 3), frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name}: first {points[0][1]:.2f}, last {points[-1][1]:.2f}" for name, points in runs.items())
    return figure


def speed_dots(speeds: Mapping[str, Sequence[float]], title: str) -> Chart:
    """Tokens per second of several ways to train: one dot per repeat, a bar to their median, its value beside it. Explained in lesson 07."""
    if not speeds or not all(len(values) for values in speeds.values()):
        raise ValueError("speed_dots: expected at least one value for each way, got none. Fix: leave out ways that were not measured.")
    figure = Chart(figsize=(7, 0.6 * len(speeds) + 1.2), layout="constrained")
    axes = figure.subplots()
    for row, values in enumerate(speeds.values()):
        axes.barh(row, median(values), color=BLUE, alpha=0.35, height=0.5)
        axes.plot(values, [row] * len(values), color=BLUE, marker="o", linestyle="", markersize=5)
        axes.annotate(f"{median(values):.0f}", (max(values), row), xytext=(8, 0), textcoords="offset points", va="center", fontsize=11)
    axes.set(yticks=range(len(speeds)), yticklabels=list(speeds), xlabel="tokens of training text per second", xlim=(0, 1.12 * max(map(max, speeds.values()))))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name}: median {median(values):.0f}" for name, values in speeds.items())
    return figure
