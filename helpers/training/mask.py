"""The label mask of one row, in words. Explained in lesson 04."""

from __future__ import annotations

from typing import Any, Mapping

from transformers import PreTrainedTokenizerBase

from helpers import plots


def show_mask(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> plots.TokenStrip:
    """Which tokens of a prepared row the loss sees: a table of runs, "masked", "trained" and, where a batch was filled up, "padding".

    `row`: `input_ids` and `labels` (-100: the loss does not see it), each shape (tokens,), as lists or tensors; `attention_mask`
    too if there is one. It is one row of `trainer.train_dataset`, or of a batch of its collator with one index taken.
    Raises ValueError where the lengths differ, and where a label is neither -100 nor its token (then the mask is wrong).
    """
    ids, labels = ([int(value) for value in row[name]] for name in ("input_ids", "labels"))
    real = [int(value) for value in row["attention_mask"]] if "attention_mask" in row else [1] * len(ids)
    if not len(ids) == len(labels) == len(real):
        raise ValueError(f"show_mask: expected one label and one attention value per token, got {len(ids)} tokens, {len(labels)} labels, {len(real)} values. "
                         "Fix: pass one row as the trainer or its collator makes it.")
    for position, (token, label) in enumerate(zip(ids, labels)):
        if label not in (-100, token):
            raise ValueError(f"show_mask: expected the label -100 or the token itself, got {label} for token {token} at position {position}. "
                             "Fix: don't shift the labels; the model does that itself.")
    states = ["trained" if label != -100 else "masked" if there else "padding" for label, there in zip(labels, real)]
    return plots.token_strip([tokenizer.decode([token]) for token in ids], states)
