"""Fine-tune the retriever a little: question-section pairs, a contrastive loss, a short training loop. Explained in lesson 03."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .chunks import Chunk
from .gold import gold_sections
from .index import Index

SIMILAR, DIFFERENT = 0, 1


@dataclass(frozen=True)
class Pair:
    """A question, the content of a chunk, and whether they belong together: label 0 = similar, 1 = different."""

    question: str
    text: str
    label: int


class ContrastiveLoss(nn.Module):
    """Pull what is similar together, push what is different at least `margin` apart (Hadsell et al. 2006, CVPR).

    mean((1 - y) d^2 + y max(margin - d, 0)^2), with d the Euclidean distance of the two vectors and **y = 0 for similar**, as in
    the paper. sentence-transformers' ContrastiveLoss has it the other way round (label 1 = similar) and half the size. Unit
    vectors are 0 to 2 apart; d^2 = 2 - 2 cosine.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """`a`, `b`: shape (pairs, dimensions); `y`: shape (pairs,); the mean over the pairs."""
        d = functional.pairwise_distance(a, b)
        return ((1 - y) * d.pow(2) + y * (self.margin - d).clamp(min=0).pow(2)).mean()


class RankingLoss(nn.Module):
    """Each question must rank its own text above all other texts of the batch: cross-entropy over scaled cosines.

    What sentence-transformers calls MultipleNegativesRankingLoss (Henderson et al. 2017, arXiv:1705.00652). The other texts are
    the negatives, those of `DIFFERENT` pairs too, so it needs no margin.
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """`a`, `b`: shape (pairs, dimensions); `y`: shape (pairs,), 0 for similar; the mean over the similar pairs."""
        own = (y == SIMILAR).nonzero().flatten()
        scores = functional.normalize(a[own], dim=1) @ functional.normalize(b, dim=1).T
        return functional.cross_entropy(self.scale * scores, own)


def training_pairs(
    rows: Sequence[Mapping[str, Any]], chunks: Sequence[Chunk], index: Index, negatives: int = 1, depth: int = 10,
) -> list[Pair]:
    """Per gold section of each answerable question one similar pair, followed by `negatives` different ones.

    Negatives are *hard*: the chunks that vector search ranks highest among the first `depth` and that stand in no gold article.
    `rows`: of the training split of `data.load_answer`; `chunks`: of the same edition, and in `index`. Explained in lesson 03.
    """
    rows = [row for row in rows if row["articles"]]
    questions = [row["messages"][1]["content"] for row in rows]
    pairs = []
    for row, question, hits in zip(rows, questions, index.search_many(questions, depth, "vector", edition=rows[0]["edition"])):
        wrong = [hit.content for hit in hits if hit.article not in row["articles"]]
        for number, gold in enumerate(gold_sections(row, chunks)):
            pairs.append(Pair(question, gold.content, SIMILAR))
            pairs += [Pair(question, text, DIFFERENT) for text in wrong[number * negatives : (number + 1) * negatives]]
    return pairs


def tune(
    embedder: Any, pairs: Sequence[Pair], loss: Callable[[Tensor, Tensor, Tensor], Tensor], *,
    epochs: int = 1, batch: int = 32, learning_rate: float = 5e-5, layers: int = 2, seed: int = 0,
) -> list[float]:
    """Train the last `layers` layers of a SentenceTransformer on pairs, in place; return the loss of each step.

    AdamW, a constant learning rate, no dropout (so that a run can be repeated on another machine). Neighbours in `pairs` stay
    in one batch: a question beside its negatives. Copy the embedder first (`copy.deepcopy`) to keep the old one, and index
    again afterwards: its vectors are others. Explained in lesson 03.
    """
    trained = _last_layers(embedder, layers)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    groups, losses, rng = _groups(pairs), [], random.Random(seed)
    for _ in range(epochs):
        shuffled = [pair for group in rng.sample(groups, len(groups)) for pair in group]
        for start in range(0, len(shuffled), batch):
            part = shuffled[start : start + batch]
            labels = torch.tensor([pair.label for pair in part], device=embedder.device)
            value = loss(_vectors(embedder, [p.question for p in part]), _vectors(embedder, [p.text for p in part]), labels)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(value.item())
    embedder.requires_grad_(True)
    return losses


def _vectors(embedder: Any, texts: list[str]) -> Tensor:
    features = {name: value.to(embedder.device) for name, value in embedder.preprocess(texts).items() if isinstance(value, Tensor)}
    return embedder(features)["sentence_embedding"]


def _last_layers(embedder: Any, layers: int) -> list[nn.Parameter]:
    """Freeze all but the last transformer layers; return the parameters that train."""
    stack = next((m for m in embedder.modules() if isinstance(m, nn.ModuleList)), None)
    if stack is None or not 1 <= layers <= len(stack):
        raise ValueError(f"tune: expected from 1 to {0 if stack is None else len(stack)} layers to train, got {layers}. "
                         "Fix: give fewer, such as 2.")
    embedder.eval().requires_grad_(False)
    for layer in stack[-layers:]:
        layer.requires_grad_(True)
    return [p for p in embedder.parameters() if p.requires_grad]


def _groups(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs of one question, together."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.question, []).append(pair)
    return list(groups.values())
