"""A language model as a judge of two answers, and the measures that judge the judge. Explained in lesson 08."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Sequence

import numpy as np

from .kappa import cohens_kappa
from .intervals import Interval, Values, bootstrap, proportion, same_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CRITERION = "Which of the two answers is better: correct, polite, short and to the point?"


class Judgements(NamedTuple):
    """What a judge said of each pair, in both orders.

    `prefers_first`: the probability (A against B, summing to 1) that the first answer is better, shape (pairs, 2): shown as A
    in column 0 and as B in column 1.
    """

    prefers_first: np.ndarray

    @property
    def letters(self) -> np.ndarray:
        """The verdict in each order, "A" or "B", shape (pairs, 2). At exactly one half it is "A", the place that is read first."""
        says_a = np.column_stack([self.prefers_first[:, 0] >= 0.5, self.prefers_first[:, 1] <= 0.5])
        return np.where(says_a, "A", "B")

    @property
    def probability(self) -> np.ndarray:
        """The probability that the first answer is better, mean of both orders, shape (pairs,): 0.5 says neither."""
        return self.prefers_first.mean(axis=1)

    @property
    def winner(self) -> np.ndarray:
        """1 where both orders together prefer the first answer, -1 where the second, 0 where neither; shape (pairs,)."""
        return np.sign(np.round(self.probability - 0.5, 12)).astype(int)


def judge_messages(question: str, answer_a: str, answer_b: str, criterion: str = CRITERION) -> list[dict[str, str]]:
    """The conversation that asks for one letter."""
    return [
        {"role": "system", "content": "You compare two answers. You reply with one letter: A or B."},
        {"role": "user", "content": f"Question:\n{question}\n\nAnswer A:\n{answer_a}\n\nAnswer B:\n{answer_b}\n\n{criterion} Reply with A or B."},
    ]


def judge_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], first: Sequence[str], second: Sequence[str],
    *, criterion: str = CRITERION, batch_size: int = 4,
) -> Judgements:
    """Let a model compare two answers to each question, in both orders; no training, no chance.

    The model writes nothing. It scores which letter would come next, "A" or "B" (*constrained scoring*): a small model cannot be
    trusted to write a verdict that can be read. Each pair is shown twice, since a judge may prefer a place to an answer
    (Zheng et al. 2023, arXiv:2306.05685). `questions`: what was asked, with the documents if the judge shall see them.
    Raises ValueError when the three differ in number, when a letter is not one token of this tokenizer, or when a pair is
    longer than the model's context. Explained in lesson 08.
    """
    import torch

    same_length(first, questions)
    same_length(second, questions)
    chats = [judge_messages(q, *order, criterion) for q, a, b in zip(questions, first, second) for order in ((a, b), (b, a))]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    letters = _letters(tokenizer, texts[0], encoded[0])
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context and max(map(len, encoded)) > context:
        raise ValueError(f"judge_pairs: expected pairs of at most {context} tokens, the model's context, got one of {max(map(len, encoded))}. "
                         "Fix: leave documents out of the question, or shorten them.")
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))  # alike in length: little padding
    says_a, training = np.zeros(len(encoded)), model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            width = max(len(encoded[i]) for i in chosen)
            ids = torch.zeros((len(chosen), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(chosen):  # padded on the left, so that every row ends where the letter would come
                ids[row, width - len(encoded[i]) :], mask[row, width - len(encoded[i]) :] = torch.tensor(encoded[i]), 1
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)
            with torch.inference_mode():
                scores = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), position_ids=places.to(model.device),
                               use_cache=False, logits_to_keep=1).logits[:, -1]
            says_a[chosen] = scores[:, letters].float().softmax(dim=1)[:, 0].double().cpu().numpy()
    finally:
        model.train(training)
    says_a = says_a.reshape(-1, 2)
    return Judgements(np.column_stack([says_a[:, 0], 1 - says_a[:, 1]]))


class PositionBias(NamedTuple):
    """`follows_place`: share of pairs where both orders got the same letter, so that the place decided and not the answer.
    `says_first`: share of verdicts for the place that is read first, A; a fair judge says it in half of them."""

    follows_place: Interval
    says_first: Interval


def position_bias(judgements: Judgements) -> PositionBias:
    """How far the place of an answer decides the verdict. Zheng et al. 2023, section 3.3; lesson 08."""
    letters = judgements.letters
    return PositionBias(proportion(letters[:, 0] == letters[:, 1]), bootstrap((letters == "A").mean(axis=1)))


class LengthBias(NamedTuple):
    """Over pairs whose answers differ in length. `longer_wins`: share won by the longer answer, a pair without a winner counting one
    half. `longer_is_better`: the share where the gold verdict is for the longer one, which a right judge would reach; None without gold."""

    longer_wins: Interval
    longer_is_better: Interval | None


def length_bias(judgements: Judgements, first: Sequence[str], second: Sequence[str], gold: Values | None = None) -> LengthBias:
    """How often the longer answer wins (words, then characters where the words are equal), beside how often it should.

    `gold`: 1 where the first answer is the better one, else 0, shape (pairs,). Raises ValueError when the sides differ in number,
    or when no pair differs in length. Lesson 08.
    """
    same_length(first, judgements.prefers_first)
    same_length(second, judgements.prefers_first)
    size = lambda text: (len(text.split()), len(text))
    longer = np.array([(size(a) > size(b)) - (size(a) < size(b)) for a, b in zip(first, second)])
    differ = longer != 0
    if not differ.any():
        raise ValueError("length_bias: expected pairs whose answers differ in length, got none. Fix: judge answers of different length.")
    wins = (1 + judgements.winner * longer)[differ] / 2
    better = None if gold is None else proportion(((_gold(judgements, gold) * 2 - 1) == longer)[differ])
    return LengthBias(bootstrap(wins), better)


class Agreement(NamedTuple):
    """`share`: of pairs where the judge names the gold answer. `kappa`: Cohen's, which takes off what luck alone would give."""

    share: Interval
    kappa: Interval


def agreement(judgements: Judgements, gold: Values) -> Agreement:
    """How often the judge, both orders together, names the answer that is better by `gold` (1: the first, 0: the second).

    A pair without a winner counts as a miss. Mix which answer is the first one: where gold is always 1, kappa is 0 for any
    judge. Raises ValueError when gold has another number of pairs, or other values. Lesson 08.
    """
    wanted = _gold(judgements, gold) * 2 - 1
    return Agreement(proportion(judgements.winner == wanted), cohens_kappa(judgements.winner.tolist(), wanted.tolist()))


def _gold(judgements: Judgements, gold: Values) -> np.ndarray:
    same_length(judgements.prefers_first, gold)
    values = np.asarray(gold, dtype=float)
    if not np.isin(values, (0, 1)).all():
        raise ValueError("gold: expected 1 (the first answer is better) or 0 per pair, got other values. Fix: leave ties out.")
    return values.astype(int)


def _letters(tokenizer: PreTrainedTokenizerBase, text: str, ids: Sequence[int]) -> list[int]:
    """The tokens of the two letters, as they come after the prompt."""
    found = []
    for letter in "AB":
        whole = tokenizer(text + letter, add_special_tokens=False)["input_ids"]
        if whole[:-1] != list(ids):
            raise ValueError(f"judge_pairs: expected {letter!r} to be one token after the prompt, got {whole[len(ids) :]}. Fix: use a model whose "
                             "tokenizer keeps single letters whole.")
        found.append(whole[-1])
    return found
