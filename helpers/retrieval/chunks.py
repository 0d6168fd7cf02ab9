"""Cut articles into chunks: the pieces that are embedded, searched and shown to the model. Explained in lesson 03."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from helpers.data import sections

LONGEST = 170  # words; see `by_section`


@dataclass(frozen=True)
class Chunk:
    """One piece of an article.

    `id` says article, edition, way of cutting and number: "kb-012@1/section/3". It stays the same when the text changes, so
    an index can tell a changed chunk from a new one. `article` is the article's id, `heading` the title of the section ('' in
    the first one, and where headings are ignored), `text` the piece itself.
    """

    id: str
    article: str
    edition: int
    title: str
    heading: str
    text: str

    @property
    def content(self) -> str:
        """What is embedded and what the model is shown: the titles, a line break, the text.

        A section says "Press Reset for 5 seconds" and not of which machine; its titles do.
        """
        return f"{self.title}: {self.heading}\n{self.text}" if self.heading else f"{self.title}\n{self.text}"


def by_section(articles: Iterable[Mapping[str, Any]], longest: int = LONGEST) -> list[Chunk]:
    """Cut by structure: one chunk per section (`data.sections`), in the order of the text; empty sections give none.

    A section of more than `longest` words is cut further, into pieces of `longest` words at most: the embedder
    all-MiniLM-L6-v2 reads 256 tokens and silently ignores the rest, so a longer chunk would be found by its beginning only.
    The longest section of the knowledge base has 163 words, which are 216 tokens with its titles, so none is cut. Prices and
    codes take more tokens a word than prose (up to 2.4, against 1.3), words of Devanagari several times as many: there, give a
    smaller `longest`.

    `articles` are rows of `data.load_articles`, of any length. Raises ValueError for `longest` below 1. Explained in lesson 03.
    """
    _check("by_section", longest=longest)
    chunks = []
    for article in articles:
        pieces = [(heading, piece) for heading, text in sections(article["text"]).items() for piece in _cut(text, longest, 0)]
        chunks += _chunks(article, "section", pieces)
    return chunks


def by_size(articles: Iterable[Mapping[str, Any]], words: int = 60, overlap: int = 15) -> list[Chunk]:
    """Cut by size: windows of `words` words, each of which repeats the last `overlap` words of the one before.

    Headings are ignored: a window may begin in one section and end in the next. The text keeps its line breaks. The last
    window is shorter, and always has at least one word that the one before does not have. The embedder's limit of 256 tokens
    is some 170 words of English prose (see `by_section`).

    `articles` are rows of `data.load_articles`, of any length. Raises ValueError unless 0 <= overlap < words. Explained in
    lesson 03.
    """
    _check("by_size", words=words)
    if not 0 <= overlap < words:
        raise ValueError(f"by_size: expected an overlap from 0 to {words - 1} words, got {overlap}. "
                         "Fix: let windows overlap by a part, such as a quarter.")
    chunks = []
    for article in articles:
        body = re.sub(r"^#{1,6} +", "", re.sub(r"\A\s*# .*\n?", "", article["text"]), flags=re.MULTILINE)
        chunks += _chunks(article, f"words-{words}-{overlap}", [("", piece) for piece in _cut(body, words, overlap)])
    return chunks


def _cut(text: str, words: int, overlap: int) -> list[str]:
    """Pieces of at most `words` words, as they stand in the text."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    starts = range(0, max(len(spans) - overlap, min(len(spans), 1)), words - overlap)
    return [text[spans[i][0] : spans[min(i + words, len(spans)) - 1][1]] for i in starts]


def _chunks(article: Mapping[str, Any], way: str, pieces: Sequence[tuple[str, str]]) -> list[Chunk]:
    return [
        Chunk(f"{article['id']}@{article['edition']}/{way}/{number}", article["id"], article["edition"], article["title"], heading, text)
        for number, (heading, text) in enumerate(pieces, start=1)
    ]


def _check(who: str, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{who}: expected {name} of at least 1, got {value}. Fix: give a number of words, such as {LONGEST}.")
