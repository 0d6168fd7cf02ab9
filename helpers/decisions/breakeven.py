"""After how many requests a training has paid for itself. Explained in lesson 01.

With `once` what the training costs, and `before` and `after` what a request costs without and with it, it has paid for itself after
n = once / (before - after) requests. All three in the same unit: money, seconds or tokens.
"""

from __future__ import annotations

import math

from .errors import DecisionError


def request_price(tokens: float, per_million: float) -> float:
    """What the prompt of one request costs: `tokens` at a price per million tokens. Raises DecisionError for negative numbers."""
    _positive("request_price", tokens=tokens, per_million=per_million)
    return tokens * per_million / 1e6


def break_even(once: float, before: float, after: float) -> float:
    """Requests after which `once` is saved; infinite where a request does not get cheaper, 0 where the training costs nothing.

    Raises DecisionError for negative numbers.
    """
    _positive("break_even", once=once, before=before, after=after)
    if before <= after:
        return math.inf
    return once / (before - after)


def break_even_months(once: float, before: float, after: float, requests: float, hosting: float = 0.0) -> float:
    """Months after which `once` is saved at `requests` a month, when hosting the tuned model costs `hosting` more per month.

    Infinite where a month saves nothing. Raises DecisionError for negative numbers.
    """
    _positive("break_even_months", once=once, before=before, after=after, requests=requests, hosting=hosting)
    saved = requests * (before - after) - hosting
    return once / saved if saved > 0 else math.inf


def _positive(who: str, **numbers: float) -> None:
    if wrong := {name: value for name, value in numbers.items() if not value >= 0}:
        raise DecisionError(f"{who}: expected numbers of 0 or more, got {', '.join(f'{n}={v}' for n, v in wrong.items())}. Fix: give costs, not savings.")
