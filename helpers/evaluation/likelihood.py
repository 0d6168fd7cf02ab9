"""How probable a model finds the right text: perplexity over completion tokens. Explained in lessons 07 and 08."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Sequence

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Perplexity(NamedTuple):
    """`nll`: per row, the mean negative log-likelihood of its completion tokens, in nats. `tokens`: per row, how many there are.

    Both have shape (rows,); `nll` can go into `compare_paired`.
    """

    nll: np.ndarray
    tokens: np.ndarray

    def value(self) -> float:
        """The perplexity of all rows together: exp(sum of nats / number of tokens), 1 at best, the vocabulary's size for a uniform guess."""
        return math.exp(float((self.nll * self.tokens).sum() / self.tokens.sum()))


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], batch_size: int = 8) -> Perplexity:
    """How well the model predicts each row's last assistant turn, given the turns before it; no training.

    `rows`: with `messages`, as in the chat contract. The completion is all that the chat template puts after the prompt,
    the end-of-turn token included: the tokens that completion-only training learns (`training.answer_loss`). A row with
    no turn but the assistant's (the probe's prose) is scored as plain text without a template, from its second token on.
    Rows are padded on the right, so that padding can change nothing; scores are computed in float32.

    Compare perplexities of one tokenizer only: another one cuts the text into other tokens. Raises ValueError when a row does
    not end with the assistant, has nothing to predict, or is longer than the model's context. Documented in Hugging Face's
    guide "Perplexity of fixed-length models". Explained in lessons 07 and 08.
    """
    import torch

    if not len(rows):
        raise ValueError("perplexity: expected at least one row, got none. Fix: pass rows with messages.")
    encoded = [_encode(tokenizer, row["messages"], number) for number, row in enumerate(rows)]
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context and (longest := max(len(prompt) + len(completion) for prompt, completion in encoded)) > context:
        raise ValueError(f"perplexity: expected rows of at most {context} tokens, the model's context, got one of {longest}. Fix: shorten it or leave it out.")
    sums, tokens, training = np.zeros(len(encoded)), np.array([len(c) for _, c in encoded]), model.training
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i][0]), len(encoded[i][1])))  # alike in length: little padding
    model.eval()  # dropout would spoil the score
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            width = max(len(encoded[i][0]) + len(encoded[i][1]) for i in chosen)
            ids = torch.zeros((len(chosen), width), dtype=torch.long)
            mask, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
            for row, i in enumerate(chosen):
                prompt, completion = encoded[i]
                end = len(prompt) + len(completion)
                ids[row, :end], mask[row, :end], wanted[row, len(prompt) : end] = torch.tensor([*prompt, *completion]), 1, True
            keep = width - min(len(encoded[i][0]) for i in chosen) + 1  # scores of the vocabulary are large: only where they are used
            with torch.inference_mode():
                scores = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False, logits_to_keep=keep).logits
            ids, wanted = ids[:, 1 - keep :].to(scores.device), wanted[:, 1 - keep :].to(scores.device)
            losses = torch.zeros(ids.shape, dtype=torch.float32, device=scores.device)
            losses[wanted] = torch.nn.functional.cross_entropy(scores[:, -keep:-1][wanted].float(), ids[wanted], reduction="none")
            sums[chosen] = losses.cpu().double().sum(dim=1).numpy()  # position t predicted token t + 1
    finally:
        model.train(training)
    return Perplexity(sums / tokens, tokens)


def _encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], number: int) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the completion."""
    if not len(messages) or messages[-1]["role"] != "assistant":
        found = messages[-1]["role"] if len(messages) else "no turn"
        raise ValueError(f"perplexity: row {number}: expected the assistant's turn at the end, got {found!r}. Fix: pass rows with their gold answers.")
    if len(messages) == 1:
        ids = tokenizer(messages[0]["content"])["input_ids"]
        prompt, completion = ids[:1], ids[1:]
    else:
        before = tokenizer.apply_chat_template(list(messages[:-1]), tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(list(messages), tokenize=False)
        if not whole.startswith(before):
            raise ValueError(f"perplexity: row {number}: expected a chat template whose prompt begins the whole conversation, got another beginning. "
                             "Fix: use a tokenizer whose template leaves earlier turns as they are.")
        prompt, completion = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, whole[len(before) :]))
    if not completion:
        raise ValueError(f"perplexity: row {number}: expected tokens to predict, got none. Fix: leave rows with an empty answer out.")
    return list(prompt), list(completion)
