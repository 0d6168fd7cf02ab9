"""Which chunks a question of the need `answer` needs. Explained in lesson 03."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Mapping, Sequence

from helpers.data import load_facts

from .chunks import Chunk


def gold_sections(row: Mapping[str, Any], chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks that hold the facts of a question, without repeats, in the order of the facts.

    One chunk per fact: among the chunks of its article (and the row's edition) that hold the fact's value, word for word, the
    one that shares most words with the fact's name; of equal ones the first. Where none holds it, because a cut goes through
    the value, all chunks of the article. An unanswerable question has none.

    `row` is of `data.load_answer`, `chunks` of one way of cutting. Raises ValueError when the chunks have no chunk of a gold
    article. Explained in lesson 03.
    """
    gold: dict[str, Chunk] = {}
    for fact_id in row["facts"] if row["articles"] else ():
        fact = _facts()[fact_id]
        value = fact[f"edition_{row['edition']}"]
        if value is None:
            continue  # asked about, but not in this edition
        article = [c for c in chunks if c.article == fact["article"] and c.edition == row["edition"]]
        if not article:
            raise ValueError(f"gold_sections: expected chunks of {fact['article']}, edition {row['edition']}, which {row['id']} needs, "
                             "found none. Fix: cut all articles of the row's edition.")
        pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, value.split())) + r"(?!\w)"
        holding = [c for c in article if re.search(pattern, c.text)]
        name = _words(fact["fact"])
        for chunk in [max(holding, key=lambda c: len(name & _words(c.content)))] if holding else article:
            gold[chunk.id] = chunk
    return list(gold.values())


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.casefold()))


@cache
def _facts() -> dict[str, dict[str, Any]]:
    return {fact["id"]: fact for fact in load_facts()}
