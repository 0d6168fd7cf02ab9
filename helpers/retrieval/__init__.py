"""Retrieval for the need `answer`: cut articles into chunks, index them on disk, search. Explained in lesson 03.

`chunks` cuts, `index` stores and searches, `gold` says which chunks a question needs.
"""

from .chunks import Chunk, by_section, by_size
from .gold import gold_sections
from .index import MODES, Embedder, Hit, Index, RetrievalError, Update

__all__ = ["MODES", "Chunk", "Embedder", "Hit", "Index", "RetrievalError", "Update", "by_section", "by_size", "gold_sections"]
