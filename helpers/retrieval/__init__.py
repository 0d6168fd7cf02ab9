"""Retrieval for the need `answer`: cut articles into chunks, index them on disk, search, read. Explained in lesson 03.

`chunks` cuts, `index` stores and searches, `gold` says which chunks a question needs, `reading` puts them into a prompt.
"""

from .chunks import Chunk, by_section, by_size
from .gold import gold_sections
from .index import MODES, Embedder, Hit, Index, RetrievalError, Update
from .reading import prompt, reading_examples, traced, with_chunks

__all__ = ["MODES", "Chunk", "Embedder", "Hit", "Index", "RetrievalError", "Update", "by_section", "by_size", "gold_sections", "prompt",
           "reading_examples", "traced", "with_chunks"]
