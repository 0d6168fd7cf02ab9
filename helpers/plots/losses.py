"""Curves of the training loss. Explained in lesson 05."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from .chart import BLUE, Chart


def loss_curve(losses: Sequence[float], title: str) -> Chart:
    """Training loss by step."""
    figure = Chart(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, color=BLUE, marker="o", markersize=3)
    axes.set(xlabel="optimizer step", ylabel="loss per answer token (nats)", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    means = [float(part.mean()) for part in np.array_split(np.asarray(losses, dtype=float), 4) if len(part)]
    figure.numbers = "means of its quarters: " + ", ".join(f"{m:.2f}" for m in means)
    return figure


def live_loss(losses: Sequence[float], steps: int) -> Chart:
    """`loss_curve` while it grows: the horizontal axis spans all steps."""
    figure = loss_curve(losses, f"step {len(losses)} of {steps}: loss {losses[-1]:.2f}")
    figure.axes[0].set_xlim(0, max(steps, 2))
    return figure
