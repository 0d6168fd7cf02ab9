"""Several curves of losses in one figure: training beside validation, runs beside each other, trials of a search. Explained in lesson 10."""

from __future__ import annotations

from typing import Sequence

from .chart import MARKS, Chart


def loss_curves(
    series: dict[str, tuple[Sequence[float], Sequence[float]]], title: str, x: str = "optimizer step", y: str = "loss per answer token (nats)",
    *, log: bool = False, join: bool = True,
) -> Chart:
    """Losses over steps, or over another number that was varied; one line per series, told apart by colour, marker and dashes.

    `series`: name -> (values on the horizontal axis, losses), of the same length. `log`: logarithmic horizontal axis; without `join`
    the points stand alone. Raises ValueError for none or more than six series, and for lengths that differ. Explained in lesson 10.
    """
    if not 1 <= len(series) <= len(MARKS):
        raise ValueError(f"loss_curves: expected one to {len(MARKS)} series, got {len(series)}. Fix: split them over several figures.")
    figure = Chart(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, (where, losses)), (colour, marker, dashes) in zip(series.items(), MARKS):
        if len(where) != len(losses) or not len(where):
            raise ValueError(f"loss_curves: expected a loss for each place of {name!r}, got {len(losses)} for {len(where)}. "
                             "Fix: pass both from one run.")
        axes.plot(where, losses, label=name, color=colour, marker=marker, markersize=6, linestyle=dashes if join else "")
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    if log:
        axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(series), 3), frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name}: " + ", ".join(f"{p:.4g} {v:.3f}" for p, v in zip(*points)) for name, points in series.items())
    return figure
