"""From steps to hours and money, and how many devices a model needs. Explained in lesson 07."""

from __future__ import annotations

import math

from .errors import CostsError


def price(seconds: float, per_hour: float) -> float:
    """What `seconds` of a machine cost at a price per hour, in the same currency. Raises CostsError for negative numbers."""
    if seconds < 0 or per_hour < 0:
        raise CostsError(f"price: expected seconds and a price per hour of 0 or more, got {seconds} and {per_hour}. Fix: give positive numbers.")
    return seconds / 3600 * per_hour


def devices(needed: float, each: float) -> int:
    """How many devices of `each` bytes hold `needed` bytes that can be split evenly. Raises CostsError where `each` is not above 0."""
    if each <= 0:
        raise CostsError(f"devices: expected bytes of one device above 0, got {each}. Fix: 24e9 for a card of 24 GB.")
    return math.ceil(needed / each)
