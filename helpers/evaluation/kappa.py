"""How far two raters agree beyond luck: people, models, or one of each. Explained in lesson 08."""

from __future__ import annotations

from typing import Hashable, Sequence

import numpy as np

from .intervals import Interval, bootstrap, same_length


def cohens_kappa(a: Sequence[Hashable], b: Sequence[Hashable], n: int = 2000, seed: int = 0) -> Interval:
    """Cohen's kappa of two raters of the same items, with its bootstrap interval over items; -1 to 1.

    kappa = (observed agreement - agreement by chance) / (1 - agreement by chance), where chance gives each rater the shares of
    labels that they used: 0 is luck, 1 is full agreement (Cohen 1960). Equals scikit-learn's `cohen_kappa_score`, except that two
    raters who both use a single label, the same one, get 1 here and "not a number" there. Raises ValueError when the raters
    differ in number of items. Explained in lesson 08.
    """
    same_length(a, b)
    codes = {label: k for k, label in enumerate(dict.fromkeys([*a, *b]))}
    pairs = np.array([[codes[x], codes[y]] for x, y in zip(a, b)])
    return bootstrap(pairs, lambda rows: _kappa(rows.astype(int), len(codes)), n=n, seed=seed)


def _kappa(pairs: np.ndarray, labels: int) -> float:
    observed = float(np.mean(pairs[:, 0] == pairs[:, 1]))
    shares = [np.bincount(pairs[:, k], minlength=labels) / len(pairs) for k in (0, 1)]
    chance = float(shares[0] @ shares[1])
    return 1.0 if observed == 1 else (observed - chance) / (1 - chance)
