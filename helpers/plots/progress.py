"""The figure of a learner's progress in the labs. Used in lesson 00."""

from __future__ import annotations

from .chart import BLUE, GREY, Chart


def progress_bars(labs: dict[str, tuple[float, int]]) -> Chart:
    """One bar per lab, filled as far as its points were reached; the points stand beside it. `labs`: name -> (points, of).

    Raises ValueError when there is no lab.
    """
    if not labs:
        raise ValueError("progress_bars: expected at least one lab, got none. Fix: look whether the folder labs/ is there.")
    reached, of = sum(p for p, _ in labs.values()), sum(o for _, o in labs.values())
    figure = Chart(figsize=(7, 0.45 * len(labs) + 1.3), layout="constrained")
    axes = figure.subplots()
    for row, (points, most) in enumerate(labs.values()):
        axes.barh(row, 1, color="white", edgecolor=GREY, height=0.6)
        axes.barh(row, points / most, color=BLUE, height=0.6)
        axes.text(1.02, row, f"{points:g} of {most}", va="center", fontsize=11)
    axes.set(yticks=range(len(labs)), yticklabels=list(labs), xlim=(0, 1.2), xticks=[0, 0.5, 1], xlabel="share of the points")
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(f"You reached {reached:g} of {of} points in the labs", loc="left", fontsize=12)
    figure.numbers = "; ".join(f"{lab} {points:g} of {most}" for lab, (points, most) in labs.items())
    return figure
