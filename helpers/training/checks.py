"""What is wrong with training rows is said before the first step. Explained in lessons 04 and 10."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from transformers import PreTrainedTokenizerBase


class TrainingError(RuntimeError):
    """A training that cannot start or go on; the message says what was expected, what was found, and how to mend it."""


def check_rows(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, longest: int = 1024) -> int:
    """Refuse training rows that a trainer would take and silently spoil; return their tokens, prompts and answers together.

    `rows`: with `messages`, as in the chat contract. `longest`: the trainer's `max_length` (TRL's default is 1024), in tokens:
    what is longer would be cut at the end, where the answer stands. Raises TrainingError for fewer than two rows, a row that
    does not end with the assistant's answer, an empty answer, and a row that is too long. Explained in lesson 04.
    """
    if len(rows) < 2:
        raise TrainingError(f"Training rows: expected at least 2, got {len(rows)}. Fix: give more rows; "
                            "if the file has more, look at the filter that chose them.")
    total = 0
    for number, row in enumerate(rows):
        name = f"Training row {row.get('id', number)}"
        last = row["messages"][-1] if row.get("messages") else {}
        if last.get("role") != "assistant":
            raise TrainingError(f"{name}: expected the last message to be the assistant's answer, got {last.get('role') or 'no message'!s}. "
                                "Fix: end the row with the answer to learn, or leave the row out.")
        if not (last.get("content") or "").strip():
            raise TrainingError(f"{name}: expected an answer to learn, got an empty one. Fix: write the answer, or leave the row out.")
        tokens = len(tokenizer.apply_chat_template(row["messages"])["input_ids"])
        if tokens > longest:
            raise TrainingError(f"{name}: expected at most {longest} tokens, got {tokens}: the trainer would cut off its end, the answer. "
                                "Fix: shorten the row or leave it out, or raise max_length, in SFTConfig and here, if model and memory allow it.")
        total += tokens
    return total
