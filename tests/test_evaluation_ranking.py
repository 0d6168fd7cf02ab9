"""Recall, reciprocal rank and nDCG: worked by hand, and equal to scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from helpers import evaluation as ev


@pytest.mark.parametrize("found, gold, recall_1, recall_2, reciprocal, ndcg_2", [
    (["a", "b", "c"], {"a"}, 1, 1, 1, 1),
    (["b", "a", "c"], {"a"}, 0, 1, 1 / 2, 1 / math.log2(3)),
    (["b", "c", "a"], {"a"}, 0, 0, 1 / 3, 0),
    (["b", "c"], {"a"}, 0, 0, 0, 0),
    ([], {"a"}, 0, 0, 0, 0),
    (["a", "b"], {"a", "b"}, 1 / 2, 1, 1, 1),
    (["c", "b", "a"], {"a", "b"}, 0, 1 / 2, 1 / 2, (1 / math.log2(3)) / (1 + 1 / math.log2(3))),
    (["b", "b", "b", "a"], {"a"}, 0, 1, 1 / 2, 1 / math.log2(3)),  # three chunks of b are one article: a is second
    (["a", "a", "b"], {"a", "b"}, 1 / 2, 1, 1, 1),
    (["a", "b"], ["b", "b"], 0, 1, 1 / 2, 1 / math.log2(3)),  # the gold set may be a list, its repeats count once
])
def test_worked_by_hand(found, gold, recall_1, recall_2, reciprocal, ndcg_2):
    assert ev.recall_at_k([found], [gold], 1) == pytest.approx([recall_1])
    assert ev.recall_at_k([found], [gold], 2) == pytest.approx([recall_2])
    assert ev.reciprocal_rank([found], [gold]) == pytest.approx([reciprocal])
    assert ev.ndcg_at_k([found], [gold], 2) == pytest.approx([ndcg_2])


def test_random_rankings_score_as_in_scikit_learn():
    rng, size = np.random.default_rng(0), 12
    found, gold, truth, scores = [], [], [], []
    for _ in range(200):
        order = rng.permutation(size)
        right = rng.choice(size, size=rng.integers(1, 3), replace=False)
        found.append([str(i) for i in order]), gold.append({str(i) for i in right})
        truth.append(np.isin(np.arange(size), right).astype(int)), scores.append(-np.argsort(order).astype(float))
    for k in (1, 2, 5, 12):
        theirs = [ndcg_score([t], [s], k=k) for t, s in zip(truth, scores)]
        assert ev.ndcg_at_k(found, gold, k) == pytest.approx(theirs)
        hits = [sum(t[np.argsort(-s)][:k]) / sum(t) for t, s in zip(truth, scores)]
        assert ev.recall_at_k(found, gold, k) == pytest.approx(hits)
    one = [n for n, articles in enumerate(gold) if len(articles) == 1]  # there, average precision is the reciprocal rank
    theirs = [label_ranking_average_precision_score([truth[n]], [scores[n]]) for n in one]
    assert ev.reciprocal_rank([found[n] for n in one], [gold[n] for n in one]) == pytest.approx(theirs)


def test_scores_are_one_per_row_and_go_into_an_interval():
    values = ev.recall_at_k([["a"], ["b"], ["c", "a"]], [["a"], ["a"], ["a"]], 5)
    assert values.shape == (3,) and values.tolist() == [1, 0, 1]
    assert ev.bootstrap(values, n=200).estimate == pytest.approx(2 / 3)
    assert ev.compare_paired(values, values, n=200).estimate == 0


@pytest.mark.parametrize("found, gold, k, said", [
    ([["a"], ["a"]], [["a"], []], 5, "row 1 has none.*leave unanswerable rows out"),
    ([["a"]], [["a"], ["b"]], 5, "1 answers and 2 gold rows"),
    ([["a"]], [["a"]], 0, "k of at least 1"),
    (["kb-001"], [["a"]], 5, "put it into a list"),
    ([["kb-001"]], ["kb-001"], 5, "put it into a list"),
])
def test_what_cannot_be_scored_is_refused_with_the_fix(found, gold, k, said):
    with pytest.raises(ValueError, match=said):
        ev.recall_at_k(found, gold, k)
