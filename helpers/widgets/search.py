"""A view on a search: the question, how many hits, which way, which edition. Lesson 03."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from helpers import retrieval

from .view import Shown, View, choice, line, number, table

NAMES = {"vector": "vector search", "text": "full-text search", "hybrid": "hybrid search"}
MODES = [(NAMES[mode], mode) for mode in retrieval.MODES]
WEIGHTS = (("ranks of both, fused", None), ("0, words only", 0.0), ("0.25", 0.25), ("0.5", 0.5), ("0.75", 0.75), ("1, vectors only", 1.0))


def search_explorer(index: retrieval.Index, rows: Sequence[Mapping[str, Any]]) -> View:
    """Ask an index: by vectors, by words, or by both with a weight, in one edition. `rows`: questions of the data, whose right articles are known.

    A question of one's own is asked in the place of the chosen one. Raises ValueError where there is no row.
    """
    if not rows:
        raise ValueError("search_explorer: expected at least one question, got none. Fix: list(data.load_answer()['test']).")
    gold = {row["messages"][1]["content"]: set(row["articles"]) for row in rows}
    editions = index.editions()
    if not editions:
        raise ValueError("search_explorer: expected an index with chunks, got an empty one. Fix: index.update(chunks, edition=1) first.")
    controls = {
        "question": choice("Question of the data", list(gold)), "own": line("Or a question of your own", "", "empty: ask the chosen one"),
        "k": number("Hits", 5, whole=True), "mode": choice("Search", MODES, "hybrid"),
        "weight": choice("Weight of the vectors (hybrid)", WEIGHTS), "edition": choice("Edition", [(str(one), one) for one in editions]),
    }
    return View("Choose a question and switch the search. Which way finds its right article, and at which rank?", controls,
                lambda question, own, **knobs: found_shown(index, gold, own if own.strip() else question, **knobs))


def found_shown(index: retrieval.Index, gold: Mapping[str, set[str]], query: str, k: int, mode: str, weight: float | None, edition: int) -> Shown:
    """The hits of a question and, where the right articles are known, the rank of the first of them. Raises ValueError for what cannot be asked."""
    try:
        hits = index.search(query, k, mode, edition, weight if mode == "hybrid" else None)
    except retrieval.RetrievalError as error:
        raise ValueError(str(error)) from None
    right = gold.get(query)
    rank = next((hit.rank for hit in hits if right and hit.article in right), None)
    known = "" if right is None else " No article answers it." if not right else f" The right article is at rank {rank}." if rank else " The right article is not among them."
    return Shown(f"{len(hits)} hits in edition {edition}, {NAMES[mode]}.{known}", None, table(
        ["rank", "article", "section", "text", "right"],
        [[hit.rank, hit.article, f"{hit.title}: {hit.heading}", hit.text[:160], "yes" if right and hit.article in right else ""] for hit in hits]))
