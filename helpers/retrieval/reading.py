"""Put what was found before the question, let a model read it, and see where its answer stands. Explained in lesson 03."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from helpers import data, prompting
from helpers.evaluation.answers import stands_in

from .chunks import Chunk
from .gold import gold_sections

INSTRUCTION = ("Answer each question with a few words copied from the text above it. "
               f"If the text does not say it, write: {data.NOT_IN_DOCUMENTS}")
NAMES = ("Text", "Answer")


def with_chunks(row: Mapping[str, Any], chunks: Sequence[Chunk]) -> data.Row:
    """The row with chunks before its question, in the same user turn: retrieval-augmented generation in one line.

    Nothing else changes, so every prompt builder and trainer that takes rows takes these (Lewis et al. 2020, arXiv:2005.11401).
    Raises ValueError without a chunk. Explained in lesson 03.
    """
    if not chunks:
        raise ValueError("with_chunks: expected at least one chunk to read, got none. Fix: search first; without documents, ask the row as it is.")
    system, user, gold = row["messages"]
    text = "\n\n".join(chunk.content for chunk in chunks) + f"\nQuestion: {user['content']}"
    return {**row, "messages": [system, {**user, "content": text}, gold]}


def prompt(row: Mapping[str, Any], chunks: Sequence[Chunk], shots: Sequence[data.Row] = ()) -> str:
    """The reading prompt of the base model: examples of reading, then the chunks and the question, as one text to be continued.

    `shots` are rows that `with_chunks` made. The answer is the first line of what the model writes (`prompting.first_line`).
    """
    return prompting.as_text(with_chunks(row, chunks), INSTRUCTION, shots, NAMES)


def reading_examples(pool: Sequence[data.Row], chunks: Sequence[Chunk], k: int, seed: int = 0) -> list[data.Row]:
    """`k` solved examples of reading, from training rows: each with its gold section; questions of two articles are left out.

    Every fourth is unanswerable and reads the section of another question, so that the examples show when to abstain.
    """
    drawn = prompting.choose_random([r for r in pool if r["kind"] != "two_articles"], len([r for r in pool if r["kind"] != "two_articles"]), seed)
    facts = [with_chunks(r, gold_sections(r, chunks)[:1]) for r in drawn if r["kind"] == "fact"]
    short = [r for r in facts if len(r["messages"][1]["content"].split()) <= 90]
    nowhere = [r for r in drawn if r["kind"] == "unanswerable"]
    shown: list[data.Row] = []
    for number in range(k):
        if number % 4 == 3:
            shown.append(with_chunks(nowhere[number // 4], [chunks[(7 * number) % len(chunks)]]))
        else:
            shown.append(short[number])
    return shown


def traced(answer: str, chunks: Sequence[Chunk]) -> Chunk | None:
    """The first chunk in which the words of an answer stand, side by side: its source. None when they stand in none.

    An answer without a source was made up, or put in other words. Words and numbers are compared as `evaluation.answer_right`
    does. An abstention has no source.
    """
    return next((chunk for chunk in chunks if stands_in(answer, chunk.content)), None)
