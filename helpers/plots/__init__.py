"""Figures from measured values. Each function returns the figure; its title says the finding.

Nothing is told by colour alone. `chart` holds the figure itself, the other files what is drawn.
"""

from .chart import Chart, as_png
from .clinic import loss_curves
from .costs import memory_bars, predicted_measured
from .decisions import cost_lines
from .full import run_curves, speed_dots
from .losses import live_loss, loss_curve
from .matrix import matrix_panels, price_points
from .progress import progress_bars
from .quantisation import levels_over_weights, value_bars, value_curves
from .scores import power_curve, probability_bars, reliability_curve, score_bars, score_curves, split_bars
from .tokens import TokenStrip, fertility_bars, token_strip

__all__ = [
    "Chart", "TokenStrip", "as_png", "cost_lines", "fertility_bars", "levels_over_weights", "live_loss", "loss_curve", "loss_curves", "matrix_panels", "memory_bars",
    "power_curve", "predicted_measured", "price_points", "probability_bars", "progress_bars", "reliability_curve", "run_curves", "score_bars", "score_curves", "speed_dots",
    "split_bars", "token_strip", "value_bars", "value_curves",
]
