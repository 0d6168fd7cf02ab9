"""A real but tiny embedder for the tests of storage: a text's vector counts its words. No model, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np


class WordsEmbedder:
    """Texts -> counts of their words in `size` buckets, shape (texts, size). `texts` counts what was embedded."""

    def __init__(self, size: int = 64) -> None:
        self.size, self.texts = size, 0

    def encode(self, texts: list[str]) -> np.ndarray:
        self.texts += len(texts)
        out = np.full((len(texts), self.size), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().split():
                out[row, int(hashlib.md5(word.encode()).hexdigest(), 16) % self.size] += 1
        return out
