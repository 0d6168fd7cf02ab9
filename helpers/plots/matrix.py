"""Figures of the decision matrix: scores of all techniques on all needs, and what a request costs. Explained in lesson 09."""

from __future__ import annotations

from typing import Mapping

from helpers.evaluation import Interval

from .chart import BLUE, GREY, MARKS, ORANGE, Chart


def matrix_panels(scores: Mapping[str, Mapping[str, Interval]], title: str, tuned: tuple[str, ...] = (), axes_say: Mapping[str, str] | None = None) -> Chart:
    """One panel per need, one bar with its interval per technique: need -> technique -> score. Bars of `tuned` techniques are hatched.

    `axes_say`: need -> what its score is. An empty place means that nobody measured this technique there. Raises ValueError for no need, or more
    than six.
    """
    if not 1 <= len(scores) <= 6:
        raise ValueError(f"matrix_panels: expected one to six needs, got {len(scores)}. Fix: split them over several figures.")
    names = list(dict.fromkeys(name for one in sorted(scores.values(), key=len, reverse=True) for name in one))  # the fullest panel says the order
    across = min(2, len(scores))
    down = -(-len(scores) // across)
    figure = Chart(figsize=(4.6 * across, (0.36 * len(names) + 1.0) * down + 0.4), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for need, axes in zip(scores, panels):
        for row, name in enumerate(names):
            if name not in scores[need]:
                continue
            one = scores[need][name]
            axes.barh(row, one.estimate, color=ORANGE if name in tuned else BLUE, hatch="//" if name in tuned else "", edgecolor="white", height=0.7)
            axes.errorbar(one.estimate, row, xerr=[[max(one.estimate - one.low, 0)], [max(one.high - one.estimate, 0)]], color="black", capsize=3)
            axes.text(min(one.high, 1) + 0.03, row, f"{one.estimate:.2f}", va="center", fontsize=10)
        axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.15), xticks=(0, 0.5, 1), ylim=(len(names) - 0.5, -0.5))
        axes.set_xlabel(f"{need}: {(axes_say or {}).get(need, 'score')}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1:across]:
        axes.set_yticklabels([])
    for axes in panels[across + 1 :: across]:
        axes.set_yticklabels([])
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, wrap=True)
    panels[0].set_title(title, loc="left").set_visible(False)  # the text form reads it here
    figure.numbers = " | ".join(f"{need}: " + ", ".join(f"{name} {one}" for name, one in found.items()) for need, found in scores.items())
    return figure


def price_points(ways: Mapping[str, tuple[float, Interval]], title: str, x: str = "prompt tokens per request", y: str = "score") -> Chart:
    """Score over what a request costs: name -> (cost, score), one point per way with its interval, its name beside it.

    The upper left is cheap and good; a point with another above and to the left of it is worth nobody's money. Points that are not so are
    joined by a line (the *Pareto front*). Raises ValueError for no way or more than ten.
    """
    if not 1 <= len(ways) <= 10:
        raise ValueError(f"price_points: expected one to ten ways, got {len(ways)}. Fix: leave some out.")
    figure = Chart(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    best = front(ways)
    axes.plot([ways[name][0] for name in best], [ways[name][1].estimate for name in best], color=GREY, linestyle=":", zorder=1)
    for number, (name, (cost, score)) in enumerate(ways.items()):
        colour, marker, _ = MARKS[number % len(MARKS)]
        error = [[max(score.estimate - score.low, 0)], [max(score.high - score.estimate, 0)]]
        axes.errorbar(cost, score.estimate, yerr=error, color=colour, marker=marker, markersize=7, capsize=3, linestyle="", markeredgecolor="black")
        axes.annotate(name, (cost, score.estimate), xytext=(8, 5), textcoords="offset points", fontsize=10)
    axes.set(xlabel=x, ylabel=y, ylim=(-0.03, None), xlim=(0, 1.25 * max(cost for cost, _ in ways.values())))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name}: {cost:g}, {score}" for name, (cost, score) in ways.items()) + f"; front: {', '.join(best)}"
    return figure


def front(ways: Mapping[str, tuple[float, Interval]]) -> list[str]:
    """The names of the ways that no other one beats in cost and score at once, the cheapest first."""
    best: list[str] = []
    for name in sorted(ways, key=lambda one: (ways[one][0], -ways[one][1].estimate)):
        if not best or ways[name][1].estimate > ways[best[-1]][1].estimate:
            best.append(name)
    return best
