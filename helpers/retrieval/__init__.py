"""Retrieval for the need `answer`: cut articles into chunks, index them on disk, search, read. Explained in lesson 03.

`chunks` cuts, `index` stores and searches, `gold` says which chunks a question needs, `reading` puts them into a prompt, `scale`
measures how all of it grows, `contrastive` fine-tunes the embedder (import that one by its name: it needs torch).
"""

from .chunks import Chunk, by_section, by_size
from .gold import gold_sections
from .index import MODES, Embedder, Hit, Index, RetrievalError, Update
from .reading import prompt, reading_examples, traced, with_chunks
from .scale import distractors, embed, grow, latency

__all__ = [
    "MODES", "Chunk", "Embedder", "Hit", "Index", "RetrievalError", "Update", "by_section", "by_size", "distractors", "embed",
    "gold_sections", "grow", "latency", "prompt", "reading_examples", "traced", "with_chunks",
]
