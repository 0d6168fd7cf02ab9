"""Views that plan and look at data: costs of any model, the label mask of one's own text, tokens of languages. Lessons 04 and 07."""

from __future__ import annotations

import json
from html import escape
from typing import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from helpers import costs, decisions, plots, training

from .view import Shown, View, area, check, choice, line, number

PRECISIONS = {"32 bits": "float32", "mixed, 16 bits in products": "autocast", "16 bits, as on a GPU": "bfloat16"}
FORMS = ("prompt and completion", "whole text", "completion without its end mark")


def planner(config: Mapping | None = None) -> View:
    """What tuning a model takes, from its config.json alone: paste any, turn knobs. Lesson 07."""
    controls = {
        "config": area("The model's config.json", json.dumps(dict(config or decisions.SMOLLM2)), rows=4),
        "method": choice("Method", costs.setup.METHODS, "lora"),
        "batch": number("Rows at once", 4, whole=True), "length": number("Tokens in a row", 256, whole=True),
        "rank": number("Rank of the adapter", 16, whole=True),
        "precision": choice("Precision", list(PRECISIONS.items())), "optimizer": choice("Optimizer", costs.setup.OPTIMIZERS),
        "checkpointing": check("Activation checkpointing", False), "memory_gb": number("Memory of the machine, GB", 8.0),
    }
    return View("Find the largest model and batch that fit into your machine. Which knob saves most?", controls, plan)


def plan(config: str, method: str, batch: int, length: int, rank: int, precision: str, optimizer: str, checkpointing: bool,
         memory_gb: float) -> Shown:
    """The predicted peak of a setup against a machine's memory, its parts, and the knob that saves most. Raises ValueError for what cannot be."""
    try:
        read = json.loads(config)
    except json.JSONDecodeError as error:
        raise ValueError(f"config: expected the JSON text of a config.json, got an error at character {error.pos}: {error.msg}. Fix: paste the whole file.") from None
    if memory_gb <= 0:
        raise ValueError(f"memory: expected more than 0 GB, got {memory_gb:g}. Fix: type the memory of your machine or GPU, such as 8.")
    knobs = {"method": method, "batch": batch, "length": length, "precision": precision, "optimizer": optimizer, "checkpointing": checkpointing,
             "rank": rank}
    found, turns = costs.predict(read, **knobs), costs.advice(read, **knobs)
    fits = f"{'fits into' if found.peak_gb <= memory_gb else 'does not fit into'} {memory_gb:g} GB"
    text = f"{found.parameters / 1e6:,.0f} million parameters, {found.trained / 1e6:,.1f} million trained. Predicted peak {found.peak_gb:.1f} GB: {fits}. Most of it: {found.dominant}."
    if turns:
        text += f"\nThe knob that saves most: {turns[0]}."
    figure = plots.memory_bars({"now": found.memory.parts, **({turns[0].change: turns[0].prediction.memory.parts} if turns else {})},
                               f"Predicted peak {found.peak_gb:.1f} GB: {fits}")
    return Shown(text, figure)


def mask_viewer(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]] | None = None) -> View:
    """Which tokens of one's own conversation the loss sees, by the form of the data. Lesson 04.

    `messages`: a system, a user and an assistant turn; a short example by default.
    """
    system, user, assistant = [m["content"] for m in messages] if messages else ["Name the tone of this message.",
                                                                                 "It was a sock in the pump. Sorted now.", "neutral"]
    controls = {"system": line("System turn", system), "user": area("User turn", user),
                "assistant": area("Assistant turn, the answer", assistant, rows=2),
                "form": choice("Form of the data", FORMS)}
    return View("Put in a row of your own. Which form trains the answer and its end, and nothing else?", controls,
                lambda **values: mask(tokenizer, **values))


def mask(tokenizer: PreTrainedTokenizerBase, system: str, user: str, assistant: str, form: str) -> Shown:
    """The label mask of one conversation in one of FORMS, in words and as a strip of tokens. Raises ValueError for an empty turn."""
    if not user.strip() or not assistant.strip():
        raise ValueError("turns: expected a user turn and an answer, got an empty one. Fix: type both.")
    turns = ([{"role": "system", "content": system}] if system.strip() else []) + [{"role": "user", "content": user}]
    ids = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": assistant}])["input_ids"]
    start = len(tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"])
    if form == FORMS[2]:
        ends = [place for place, token in enumerate(ids) if token == tokenizer.eos_token_id]
        ids = ids[: ends[-1]]
    first = 0 if form == FORMS[1] else start
    labels = [-100] * first + list(ids[first:])
    strip, ended = training.show_mask(tokenizer, {"input_ids": ids, "labels": labels}), tokenizer.eos_token_id in ids[start:]
    text = (f"{len(ids)} tokens, {len(ids) - first} of them trained. The prompt is {'trained too' if first == 0 else 'masked'}. "
            f"The end mark of the answer is {'trained: the model learns to stop' if ended else 'not trained: the model does not learn to stop'}.")
    return Shown(text, None, strip._repr_html_())


def fertility(tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> View:
    """Tokens per word and per character of texts in several languages. `texts`: language -> text of the same content. Lesson 04."""
    controls = {name: area(name, text, rows=2) for name, text in texts.items()}
    return View("Write the same sentence in your languages. What does a request cost in each, against the first?", controls,
                lambda **values: fertile(tokenizer, values))


def fertile(tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> Shown:
    """Tokens per word of each text, and its tokens against the first text's. Raises ValueError where a text has no word."""
    counts = {name: (len(text.split()), len(tokenizer(text, add_special_tokens=False)["input_ids"])) for name, text in texts.items()}
    if empty := [name for name, (words, _) in counts.items() if not words]:
        raise ValueError(f"{empty[0]}: expected a text with at least one word, got nothing. Fix: write the same sentence in this language.")
    first = next(iter(counts.values()))[1]
    lines = [f"{name}: {words} words, {tokens} tokens, {tokens / words:.1f} a word, {tokens / first:.1f} times the first text" for name,
             (words, tokens) in counts.items()]
    most = max(counts, key=lambda name: counts[name][1] / counts[name][0])
    figure = plots.value_bars({name: tokens / words for name, (words, tokens) in counts.items()}, f"{escape(most)} takes the most tokens a word",
                              "tokens per word", 1)
    return Shown("\n".join(lines), figure)
