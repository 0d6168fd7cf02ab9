"""Figures of costs: predicted beside measured, and the parts of memory. Explained in lesson 07."""

from __future__ import annotations

from typing import Sequence

from .chart import BLUE, GREEN, GREY, MARKS, ORANGE, PINK, RED, Chart

PARTS = ((GREY, ""), (BLUE, ""), (ORANGE, "//"), (GREEN, ".."), (PINK, "xx"), (RED, ""), ("#56B4E9", "\\\\"), ("#F0E442", "--"), ("white", "oo"))


def predicted_measured(series: dict[str, Sequence[tuple[float, float]]], title: str, unit: str, worst: float | None = None) -> Chart:
    """Points (predicted, measured) on logarithmic axes, one mark per series, with the line of equality.

    `worst`: draw lines at this relative error too, such as 0.25. Raises ValueError for no point, more than six series, or values not above 0.
    """
    points = [point for of in series.values() for point in of]
    if not points or len(series) > len(MARKS) or min(map(min, points)) <= 0:
        raise ValueError(f"predicted_measured: expected one to {len(MARKS)} series of points above 0, got {len(series)} with {len(points)} points. "
                         "Fix: leave out what was not measured, or split the series over several figures.")
    figure = Chart(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    ends = [min(map(min, points)) / 1.3, max(map(max, points)) * 1.3]
    axes.plot(ends, ends, color="black", linewidth=1, label="equal")
    if worst is not None:
        for factor, label in ((1 + worst, f"{worst:.0%} off"), (1 - worst, None)):
            axes.plot(ends, [factor * end for end in ends], color=GREY, linewidth=1, linestyle="--", label=label)
    for (name, of), (colour, marker, _) in zip(series.items(), MARKS):
        axes.scatter([x for x, _ in of], [y for _, y in of], color=colour, marker=marker, s=40, label=name)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel=f"predicted ({unit})", ylabel=f"measured ({unit})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.numbers = "; ".join(f"{name}: " + ", ".join(f"{x:.2f} predicted {y:.2f} measured" for x, y in of) for name, of in series.items())
    return figure


def memory_bars(memories: dict[str, dict[str, float]], title: str) -> Chart:
    """One horizontal bar of memory per setup, its parts one after another, in GB (1e9 bytes); parts are told apart by colour, pattern and legend.

    `memories`: name of a setup -> part -> bytes, such as `costs.predict(...).memory.parts`. Raises ValueError for none, or for more than nine parts.
    """
    names = list(dict.fromkeys(part for parts in memories.values() for part in parts))
    if not memories or len(names) > len(PARTS):
        raise ValueError(f"memory_bars: expected at least one setup with up to {len(PARTS)} parts, got {len(memories)} with {len(names)}. "
                         "Fix: leave small parts out.")
    figure = Chart(figsize=(7.5, 0.6 * len(memories) + 1.9), layout="constrained")
    axes = figure.subplots()
    for row, parts in enumerate(memories.values()):
        start = 0.0
        for part, (colour, pattern) in zip(names, PARTS):
            wide = parts.get(part, 0.0) / 1e9
            axes.barh(row, wide, left=start, color=colour, hatch=pattern, edgecolor="black", linewidth=0.5, height=0.6,
                      label=part if row == 0 else None)
            start += wide
        axes.text(start, row, f" {start:.2f}", va="center", fontsize=10)
    axes.set(yticks=range(len(memories)), yticklabels=list(memories), xlabel="memory (GB)")
    axes.set_xlim(0, 1.12 * max(sum(parts.values()) for parts in memories.values()) / 1e9)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.numbers = "; ".join(
        f"{name}: " + ", ".join(f"{part} {size / 1e9:.2f}" for part, size in parts.items()) for name, parts in memories.items())
    return figure
