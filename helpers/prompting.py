"""Prompts without training: instructions, solved examples and how to choose them, labels scored instead of written. Explained in lesson 02.

A prompt is a list of messages in the chat contract. Examples stand in it as earlier turns of the conversation: user, assistant,
user, assistant, and then the row to be answered (Brown et al. 2020, arXiv:2005.14165).
"""

from __future__ import annotations

import random
from typing import Any, Callable, Mapping, Sequence

import numpy as np
import torch

from helpers import data, models
from helpers.models import Message, ModelError

Row = Mapping[str, Any]
TONES = ("sarcastic", "angry", "worried", "thankful", "confused", "neutral")

EXTRACT_FIELDS = """Answer with one JSON object and nothing else. Fields:
"product": Rill (washing machine), Tumbla (dryer), Tarn (dishwasher), Fjell (fridge-freezer), Glod (oven), Skarn (vacuum), Brisa (air purifier), Mokko (coffee machine), Pip (kettle), Plissa (iron) or null
"problem": no_power, leak, noise, poor_result, smell, broken_part, missing_part, display_app, delivery, billing or question
"error_codes": list of codes such as "E14"
"age_months": how long they have had it, a number or null
"order": "PW-" and six digits, or null
"name": the customer's name or null
"safety": true for smoke, fire, shock or injury, else false"""

TONE_GUIDE = """Answer with one of these words and nothing else:
sarcastic: means the opposite of what is said, mocks us
angry: attacks or blames us, threatens, demands
worried: fears harm or loss that may still come
thankful: honest thanks or praise is the point
confused: does not understand something
neutral: facts, plain requests and plain questions"""

ANSWER_GUIDE = "Write only the value or the few words that answer the question, no sentence."

REPLY_GUIDE = """House style: begin with "Hello," or "Hello NAME," on a line of its own. Answer first. Short plain sentences, no exclamation marks, no "unfortunately". \
Use only what the documents say. Then one line that begins with "Next step:". End with "Take care," and "The Pellwarth desk" on lines of their own."""

# The long instructions of each need: what a prompt engineer would write. The short ones in `data` are all that a tuned model gets.
INSTRUCTIONS = {
    "extract": f"{data.EXTRACT_INSTRUCTION} {EXTRACT_FIELDS}",
    "tone": f"{data.TONE_INSTRUCTION} {TONE_GUIDE}",
    "answer": f"{data.ANSWER_INSTRUCTION} {ANSWER_GUIDE}",
    "reply": f"{data.REPLY_INSTRUCTION} {REPLY_GUIDE}",
}


def messages(row: Row, instructions: str | None = None, shots: Sequence[Row] = ()) -> list[Message]:
    """The prompt of one row: a system turn, each example's user and assistant turn, the row's own user turn; the gold answer is left out.

    `instructions` replaces the row's own system turn (None keeps it). Rows and examples are in the chat contract with the
    turns system, user, assistant. Raises ValueError for a row of another shape, or one that stands among its own examples.
    """
    for one in (row, *shots):
        if [m["role"] for m in one["messages"]] != ["system", "user", "assistant"]:
            raise ValueError(f"messages: expected the turns system, user, assistant, got {[m['role'] for m in one['messages']]}. "
                             "Fix: pass rows of the desk's data.")
    if any(shown["messages"][1] == row["messages"][1] for shown in shots):
        raise ValueError("messages: the row stands among its own examples, with its answer. Fix: choose examples from the training part only.")
    system, user, _ = row["messages"]
    turns = [{"role": "system", "content": instructions} if instructions is not None else system]
    for shown in shots:
        turns += shown["messages"][1:]
    return [*turns, user]


def as_text(row: Row, instructions: str | None = None, shots: Sequence[Row] = (), names: tuple[str, str] = ("Question", "Answer")) -> str:
    """The same prompt laid out as one text to be continued, without the chat template: "Question: … Answer:".

    A model that knows the pattern from its pre-training goes on with the answer and then with the next "Question:", so the
    answer is the first line of what it writes (`first_line`). For answers of one line only.
    """
    turns = messages(row, instructions, shots)
    parts = [f"{names[0] if turn['role'] == 'user' else names[1]}: {turn['content']}" for turn in turns[1:]]
    pairs = ["\n".join(pair) for pair in zip(parts[:-1:2], parts[1::2])]
    return "\n\n".join([turns[0]["content"], *pairs, f"{parts[-1]}\n{names[1]}:"])


def first_line(answer: str) -> str:
    """What stands before the first line break, without spaces around it."""
    return answer.strip().split("\n")[0].strip()


# ---------------------------------------------------------------- which examples


def choose_random(pool: Sequence[Row], k: int, seed: int = 0) -> list[Row]:
    """`k` rows of the pool, drawn without replacement; the first of `k + 1` with the same seed are those of `k`."""
    _check_k(pool, k)
    order = list(range(len(pool)))
    random.Random(seed).shuffle(order)
    return [pool[i] for i in order[:k]]


def choose_by_label(pool: Sequence[Row], k: int, label: Callable[[Row], Any], seed: int = 0) -> list[Row]:
    """`k` rows in which each label stands as often as any other, as far as that goes: one of each, then a second of each, and so on.

    The order of the labels is drawn by `seed`. The first of `k + 1` with the same seed are those of `k`.
    """
    _check_k(pool, k)
    by_label: dict[Any, list[Row]] = {}
    for row in choose_random(pool, len(pool), seed):
        by_label.setdefault(label(row), []).append(row)
    rounds = [[rows[n] for rows in by_label.values() if n < len(rows)] for n in range(max(map(len, by_label.values()), default=0))]
    return [row for one in rounds for row in one][:k]


class Nearest:
    """Examples chosen for each row: those of the pool whose text is most like the row's own, by cosine of their embeddings.

    The pool is embedded once. (Liu et al. 2022, "What makes good in-context examples for GPT-3?", arXiv:2101.06804.)
    """

    def __init__(self, pool: Sequence[Row], embedder: Any) -> None:
        self.pool, self.embedder = list(pool), embedder
        self.vectors = self._embed(self.pool)

    def choose(self, rows: Sequence[Row], k: int) -> list[list[Row]]:
        """For each row, its `k` nearest of the pool, the most alike last, beside the question; shape (rows, k)."""
        _check_k(self.pool, k)
        if not len(rows) or not k:
            return [[] for _ in rows]
        likeness = self._embed(rows) @ self.vectors.T
        return [[self.pool[i] for i in np.argsort(one, kind="stable")[len(self.pool) - k :]] for one in likeness]

    def _embed(self, rows: Sequence[Row]) -> np.ndarray:
        return np.asarray(self.embedder.encode([r["messages"][1]["content"] for r in rows], normalize_embeddings=True, show_progress_bar=False))


def how_many_fit(tokenizer, row: Row, instructions: str | None, pool: Sequence[Row], context: int, answer_tokens: int) -> int:
    """How many examples of the pool, taken in its order, fit into a context of `context` tokens with the row and its answer."""
    low, high = 0, len(pool)
    while low < high:  # each example adds tokens, so the answer can be halved towards
        middle = (low + high + 1) // 2
        if models.count_tokens(tokenizer, messages(row, instructions, pool[:middle])) + answer_tokens <= context:
            low = middle
        else:
            high = middle - 1
    return low


def _check_k(pool: Sequence[Row], k: int) -> None:
    if not 0 <= k <= len(pool):
        raise ValueError(f"expected from 0 to {len(pool)} examples (the pool's size), got k={k}. Fix: choose fewer, or give a larger pool.")


# ---------------------------------------------------------------- labels, scored


@torch.inference_mode()
def label_log_likelihoods(
    model, tokenizer, prompts: Sequence[models.Prompt], labels: Sequence[str], *, end: bool = True, batch_size: int = 8,
) -> np.ndarray:
    """How probable the model finds each label as the answer to each prompt: natural logarithms, shape (prompts, labels).

    The sum over the label's tokens, each given the ones before it; with `end`, the end-of-turn token counts too, so that
    "angry" does not also stand for all answers that only begin so. No text is generated, so the answer is always one of
    the labels: *constrained* decoding over a closed list. Each prompt goes through the model once with all labels behind it;
    what all prompts begin with goes through once for all. Log-probabilities are computed in float32.

    Softmax over a row gives probabilities (`label_probabilities`). Raises ValueError for fewer than two labels, labels that
    are empty or equal; ModelError when a prompt does not fit into the context. Explained in lesson 02.
    """
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
        raise ValueError(f"expected two or more different labels, got {list(labels)}. Fix: pass each label once.")
    if not len(prompts):
        return np.zeros((0, len(labels)))
    tails = [tokenizer(label, add_special_tokens=False)["input_ids"] + ([tokenizer.eos_token_id] if end else []) for label in labels]
    encoded = [tokenizer(models.render(tokenizer, p), add_special_tokens=False)["input_ids"] for p in prompts]
    longest, context = max(map(len, encoded)) + max(map(len, tails)), models.context_length(model)
    if context and longest > context:
        raise ModelError(f"The longest prompt with a label needs {longest} tokens; the model's context holds {context}. Use fewer or shorter examples.")
    shared = models.shared_prefix(encoded) if len(encoded) > 1 else 0
    scores = np.zeros((len(encoded), len(labels)))
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        scores[chosen] = _score_batch(model, [encoded[i] for i in chosen], tails, shared)
    return scores


def label_probabilities(log_likelihoods: np.ndarray) -> np.ndarray:
    """Softmax over the labels: what share of the labels' probability each one has; shape as given, each row sums to 1."""
    shifted = log_likelihoods - log_likelihoods.max(axis=1, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)


def _score_batch(model, encoded: list[list[int]], tails: list[list[int]], shared: int) -> np.ndarray:
    """Log-likelihoods of all `tails` after each prompt of one batch; all prompts begin with the same `shared` tokens.

    One pass: behind the prompt stand all labels side by side, and the attention mask lets the tokens of a label see the
    prompt and their own label only, so each is scored as if it stood there alone (*tree attention*).
    """
    rows, added = len(encoded), sum(map(len, tails))
    rest = max(len(ids) for ids in encoded) - shared
    ids, positions = (torch.zeros((rows, rest + added), dtype=torch.long) for _ in range(2))
    sees = torch.zeros((rows, rest + added, shared + rest + added), dtype=torch.bool)  # query, key
    sees[:, :, :shared] = True
    own = torch.block_diag(*[torch.ones(len(t), len(t)).tril() for t in tails]).bool()
    for row, one in enumerate(encoded):  # padding, the rest of the prompt, the labels
        pad = rest - (len(one) - shared)
        ids[row, pad:] = torch.tensor([*one[shared:], *(token for tail in tails for token in tail)])
        positions[row, pad:rest] = torch.arange(shared, len(one))
        positions[row, rest:] = torch.cat([len(one) + torch.arange(len(t)) for t in tails])
        sees[row, pad:rest, shared + pad : shared + rest] = torch.ones(rest - pad, rest - pad).tril().bool()
        sees[row, rest:, shared + pad : shared + rest] = True
        sees[row, rest:, shared + rest :] = own
        sees[row, :pad, shared : shared + 1] = True  # padding must see something, or its softmax is not a number
    mask = torch.zeros(sees.shape, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)[:, None]
    cache = models.prefix_cache(model, encoded[0][:shared], rows) if shared else None
    out = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), position_ids=positions.to(model.device),
                past_key_values=cache, use_cache=cache is not None, logits_to_keep=added + 1)
    after = torch.log_softmax(out.logits.float(), dim=-1).cpu().double()
    scores, start = np.zeros((rows, len(tails))), 1
    for column, tail in enumerate(tails):
        before = [0, *range(start, start + len(tail) - 1)]  # the first token is predicted by the prompt's last one
        scores[:, column] = after[:, before, tail].sum(dim=1).numpy()
        start += len(tail)
    return scores
