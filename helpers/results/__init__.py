"""Measured rows with their provenance, and the runs that re-make them. Rows are read in lessons 02, 03, 05 and 07, and explained in lesson 09.

`python -m helpers.results` re-makes what is missing or out of date in `lessons/results/`. Each row says what it was measured
with, so a reader can judge it and a test can see that it is stale.
"""

from .costs import COSTS, CostsRecipe
from .difficulty import DIFFICULTY, Recipe
from .prompts import PROMPTS, PromptRecipe
from .reading import READING, ReadingRecipe
from .rows import Family, data_hash, interval, listed, provenance, read, share, store
from .scale import SCALE, ScaleRecipe
from .speed import SPEED, SpeedRecipe
from .tuning import TUNING, Tuning

FAMILIES = {family.name: family for family in (COSTS, DIFFICULTY, PROMPTS, READING, SCALE, SPEED, TUNING)}

__all__ = [
    "COSTS", "DIFFICULTY", "FAMILIES", "PROMPTS", "READING", "SCALE", "SPEED", "TUNING", "CostsRecipe", "Family", "PromptRecipe", "ReadingRecipe",
    "Recipe", "ScaleRecipe", "SpeedRecipe", "Tuning", "data_hash", "interval", "listed", "provenance", "read", "share", "store",
]
