"""Figures of decisions: costs that add up over requests, and where a training has paid for itself. Explained in lesson 01."""

from __future__ import annotations

import math
from typing import Mapping

from .chart import GREY, MARKS, Chart


def cost_lines(ways: Mapping[str, tuple[float, float]], requests: float, title: str, unit: str = "cost (any currency)") -> Chart:
    """What ways to answer cost in all over the number of requests: name -> (cost once, cost per request), as straight lines.

    `requests`: the right end of the horizontal axis. Where another way becomes cheaper than the first one, the place is marked; the text
    form says it. Raises ValueError for no way, more than six, negative costs, or no requests.
    """
    if not 1 <= len(ways) <= len(MARKS) or requests <= 0 or any(value < 0 for pair in ways.values() for value in pair):
        raise ValueError(f"cost_lines: expected one to {len(MARKS)} ways with costs of 0 or more, and requests above 0, got {len(ways)} ways and {requests}. "
                         "Fix: leave some out, give costs and not savings.")
    figure = Chart(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    words, (first, (first_once, first_each)) = [], next(iter(ways.items()))
    for (name, (once, each)), (colour, marker, dashes) in zip(ways.items(), MARKS):
        axes.plot([0, requests], [once, once + each * requests], color=colour, marker=marker, linestyle=dashes, label=name)
        cheaper = (once - first_once) / (first_each - each) if first_each > each else math.inf
        words.append(f"{name}: {once:.2f} once, {each * 1e6:.2f} per million requests" + (f", cheaper from {max(cheaper, 0):.0f} requests" if cheaper < math.inf else ""))
        if 0 < cheaper < requests and name != first:
            axes.axvline(cheaper, color=GREY, linestyle=":", linewidth=1)
            axes.annotate(f"{cheaper:,.0f}", (cheaper, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
                          fontsize=9)
    axes.set(xlabel="requests", ylabel=unit, xlim=(0, requests), ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(len(ways), 3), frameon=False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(words)
    return figure
