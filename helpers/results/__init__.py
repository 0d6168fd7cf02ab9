"""Measured rows with their provenance, and the runs that re-make them. Read in most lessons, explained in lesson 09.

`python -m helpers.results` re-makes what is missing or out of date in `lessons/results/`. Each row says what it was measured
with, so a reader can judge it and a test can see that it is stale.
"""

from .costs import COSTS, CostsRecipe
from .difficulty import DIFFICULTY, Recipe
from .matrix import MATRIX, Cell
from .overfit import OVERFIT, Overfit
from .prompts import PROMPTS, PromptRecipe
from .reading import READING, ReadingRecipe
from .rows import Family, data_hash, interval, listed, provenance, read, share, store
from .scale import SCALE, ScaleRecipe
from .slowdown import SLOWDOWN, Slowdown
from .speed import SPEED, SpeedRecipe
from .tuning import TUNING, Tuning

FAMILIES = {family.name: family for family in (COSTS, DIFFICULTY, MATRIX, OVERFIT, PROMPTS, READING, SCALE, SLOWDOWN, SPEED, TUNING)}

__all__ = [
    "COSTS", "DIFFICULTY", "FAMILIES", "MATRIX", "OVERFIT", "PROMPTS", "READING", "SCALE", "SLOWDOWN", "SPEED", "TUNING", "Cell", "CostsRecipe", "Family", "Overfit",
    "PromptRecipe", "ReadingRecipe", "Recipe", "ScaleRecipe", "Slowdown", "SpeedRecipe", "Tuning", "data_hash", "interval", "listed", "provenance",
    "read", "share", "store",
]
