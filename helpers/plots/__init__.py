"""Figures from measured values. Each function returns the figure; its title says the finding.

Nothing is told by colour alone. `chart` holds the figure itself, `scores`, `losses` and `tokens` what is drawn.
"""

from .chart import Chart, as_png
from .losses import live_loss, loss_curve
from .scores import power_curve, probability_bars, reliability_curve, score_bars, score_curves, split_bars
from .tokens import TokenStrip, fertility_bars, token_strip

__all__ = [
    "Chart", "TokenStrip", "as_png", "fertility_bars", "live_loss", "loss_curve", "power_curve", "probability_bars", "reliability_curve", "score_bars",
    "score_curves", "split_bars", "token_strip",
]
