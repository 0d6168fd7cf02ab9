"""Figures from measured values. Each function returns the figure; its title says the finding.

Nothing is told by colour alone. `chart` holds the figure itself, `scores`, `losses`, `costs` and `full` what is drawn.
"""

from .chart import Chart, as_png
from .costs import memory_bars, predicted_measured
from .full import run_curves, speed_dots
from .losses import live_loss, loss_curve
from .scores import power_curve, probability_bars, reliability_curve, score_bars, score_curves, split_bars

__all__ = [
    "Chart", "as_png", "live_loss", "loss_curve", "memory_bars", "power_curve", "predicted_measured", "probability_bars",
    "reliability_curve", "run_curves", "score_bars", "score_curves", "speed_dots", "split_bars",
]
