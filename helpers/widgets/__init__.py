"""Views with buttons and fields over the plain functions of the other rooms. Each has a text result, and a static form for where no kernel runs.

Built on `on_click` and `observe`: an error in a view is shown, never swallowed. Tests press the buttons without a browser. `rating` compares
answers (lesson 08), `decide` is the worksheet (lesson 01), `plan` looks at costs and tokens (04, 07), `look` at weights, stored curves and
answers (05 to 10), `search` at an index (03); `view` is what they share.
"""

from .decide import Worksheet, worksheet
from .look import nf4_explorer, rank_explorer, rate_explorer, side_by_side, stopping_explorer
from .plan import fertility, mask_viewer, planner
from .rating import Rating, rate, static, static_text
from .search import search_explorer
from .view import Shown, View

__all__ = [
    "Rating", "Shown", "View", "Worksheet", "fertility", "mask_viewer", "nf4_explorer", "planner", "rank_explorer", "rate", "rate_explorer",
    "search_explorer", "side_by_side", "static", "static_text", "stopping_explorer", "worksheet",
]
