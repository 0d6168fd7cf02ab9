"""Scores of a ranked list of articles against the gold articles: recall, reciprocal rank, nDCG. Explained in lesson 03."""

from __future__ import annotations

from typing import Collection, Sequence

import numpy as np

from .intervals import same_length


def recall_at_k(found: Sequence[Sequence[str]], gold: Sequence[Collection[str]], k: int) -> np.ndarray:
    """Per row, the share of its gold articles that are among the first `k` found, 0 to 1; shape (rows,).

    `found`: per row the ids of the articles found, best first; an article that several chunks bring counts once, at its first
    place, and the others move up. `gold`: per row the ids of the gold articles. Raises ValueError when the two differ in
    number, a row has no gold article (leave unanswerable questions out), or k is below 1. Explained in lesson 03.
    """
    ranks = _gold_ranks(found, gold, k)
    return np.array([np.mean(row <= k) for row in ranks])


def reciprocal_rank(found: Sequence[Sequence[str]], gold: Sequence[Collection[str]]) -> np.ndarray:
    """Per row, 1 / the rank of the first gold article, 0.0 when none was found; shape (rows,). Its mean is the MRR.

    Arguments and errors as in `recall_at_k`. After Voorhees 1999 (TREC-8). Explained in lesson 03.
    """
    return np.array([1 / row.min() for row in _gold_ranks(found, gold)])


def ndcg_at_k(found: Sequence[Sequence[str]], gold: Sequence[Collection[str]], k: int) -> np.ndarray:
    """Per row, the normalised discounted cumulative gain of the first `k` articles found, 0 to 1; shape (rows,).

    A gold article at rank r gains 1 / log2(r + 1); the sum is divided by the best possible one, so both gold articles on the
    first two places give 1. Arguments and errors as in `recall_at_k`. After Järvelin & Kekäläinen 2002 (ACM TOIS 20). Explained in
    lesson 03.
    """
    ranks = _gold_ranks(found, gold, k)
    best = [sum(1 / np.log2(np.arange(1, min(len(row), k) + 1) + 1)) for row in ranks]
    return np.array([sum(1 / np.log2(row[row <= k] + 1)) / ideal for row, ideal in zip(ranks, best)])


def _gold_ranks(found: Sequence[Sequence[str]], gold: Sequence[Collection[str]], k: int = 1) -> list[np.ndarray]:
    """Per row, the rank of each gold article among the different articles found; infinity where it was not found."""
    same_length(found, gold)
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}. Fix: say how many articles count, such as 5.")
    for name, rows in (("found", found), ("gold", gold)):
        if text := next((row for row in rows if isinstance(row, str)), None):
            raise ValueError(f"expected a list of article ids per row of `{name}`, got the text {text!r}. Fix: put it into a list.")
    if empty := [n for n, articles in enumerate(gold) if not articles]:
        raise ValueError(f"expected at least one gold article per row, row {empty[0]} has none. "
                         "Fix: leave unanswerable rows out: nothing can be found for them.")
    places = [{article: rank for rank, article in enumerate(dict.fromkeys(row), start=1)} for row in found]
    return [np.array([place.get(article, np.inf) for article in sorted(set(articles))]) for place, articles in zip(places, gold)]
