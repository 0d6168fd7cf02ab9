"""Scores of generated text against a gold text, and of its house style. Explained in lesson 08.

What the scores see is likeness of words or letters, not truth: "47 minutes" and "74 minutes" are alike.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Mapping, Sequence

import numpy as np

from helpers.data import check_style

from .intervals import same_length


def rouge_l(answers: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    """Per row, the F-measure of the longest common subsequence of words, 0 to 1; shape (rows,).

    ROUGE-L (Lin 2004) by Google's rouge-score, without stemming. That library's own word splitter drops all letters but
    a to z, so that Marathi or Nepali always score 0; here words may be of any script, and plain ASCII text scores as
    there. Without a word on one of the sides the score is 0. Raises ValueError when the sides differ in number. Lesson 08.
    """
    from rouge_score.rouge_scorer import RougeScorer

    same_length(answers, gold)
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return np.array([scorer.score(g, a)["rougeL"].fmeasure for a, g in zip(answers, gold)], dtype=float)


def chrf(answers: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    """Per row, the F-measure of common letter sequences (1 to 6 letters, recall counted twice), 0 to 1; shape (rows,).

    chrF2 (Popović 2015) by sacrebleu with its defaults, divided by 100. It needs no words, so it serves any script. An
    empty side scores 0. Raises ValueError when the sides differ in number. Lesson 08.
    """
    from sacrebleu import sentence_chrf

    same_length(answers, gold)
    return np.array([min(sentence_chrf(a, [g]).score / 100, 1.0) for a, g in zip(answers, gold)], dtype=float)


def bleu(answers: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    """Per row, BLEU: how much of the answer's word sequences (1 to 4 words) stands in the gold text, 0 to 1; shape (rows,).

    BLEU (Papineni et al. 2002) of single sentences by sacrebleu (Post 2018) with its defaults, divided by 100: splitter 13a,
    exponential smoothing, only as many words in a sequence as the answer has. It is a precision with a penalty for brevity,
    not an F-measure, and its mean over rows is not the corpus BLEU of papers. An empty side scores 0. Raises ValueError when
    the sides differ in number. Lesson 08.
    """
    from sacrebleu import sentence_bleu

    same_length(answers, gold)
    return np.array([min(sentence_bleu(a, [g]).score / 100, 1.0) for a, g in zip(answers, gold)], dtype=float)


def style_scores(replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Per row of `data.load_reply`, the share of the ten rules of house style that the reply keeps, 0 to 1; shape (rows,).

    The rules are those of `data.check_style`, given the row's name, product, and what the ticket and its documents say.
    Raises ValueError when replies and rows differ in number, or rows are not of `load_reply`. Lesson 08.
    """
    same_length(replies, rows)
    if lacking := {"name", "product", "known"} - set(rows[0]):
        raise ValueError(f"expected rows of data.load_reply, got a row without {', '.join(sorted(lacking))}. Fix: pass a split of load_reply.")
    return np.array([check_style(reply, name=row["name"], product=row["product"], known=row["known"]).score for reply, row in zip(replies, rows)])


class _Words:
    """Small-letter words of any script: runs of letters, their marks (Devanagari's vowel signs) and digits."""

    def tokenize(self, text: str) -> list[str]:
        return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower()).split()
