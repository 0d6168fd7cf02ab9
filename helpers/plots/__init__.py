"""Figures from measured values. Each function returns the figure; its title says the finding.

Nothing is told by colour alone. `chart` holds the figure itself, `scores`, `losses` and `quantisation` what is drawn.
"""

from .chart import Chart, as_png
from .losses import live_loss, loss_curve
from .quantisation import levels_over_weights, value_bars, value_curves
from .scores import power_curve, probability_bars, reliability_curve, score_bars, score_curves, split_bars

__all__ = [
    "Chart", "as_png", "levels_over_weights", "live_loss", "loss_curve", "power_curve", "probability_bars", "reliability_curve", "score_bars",
    "score_curves", "split_bars", "value_bars", "value_curves",
]
