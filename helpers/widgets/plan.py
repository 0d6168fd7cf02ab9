"""Views that plan and look at data: costs of any model, the label mask of one's own text, tokens of languages. Lessons 04 and 07."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from helpers import costs, decisions, plots, training

from .view import Shown, View, area, check, choice, line, number

PRECISIONS = {"32 bits": "float32", "mixed, 16 bits in products": "autocast", "16 bits, as on a GPU": "bfloat16"}
FORMS = ("prompt and completion", "whole text", "completion without its end mark")


def planner(config: Mapping | None = None, **start: Any) -> View:
    """What tuning a model takes, from its config.json alone: paste any, turn knobs. `start`: first values of knobs, such as method="full".
    Lesson 07.
    """
    controls = {
        "config": area("The model's config.json", json.dumps(dict(config or decisions.SMOLLM2)), rows=4),
        "method": choice("Method", costs.setup.METHODS, "lora"),
        "batch": number("Batch, rows at once", 4, whole=True), "length": number("Length of a row, tokens", 256, whole=True),
        "rank": number("Rank of the adapter", 16, whole=True),
        "precision": choice("Precision", list(PRECISIONS.items())), "optimizer": choice("Optimizer", costs.setup.OPTIMIZERS),
        "checkpointing": check("Activation checkpointing", False), "memory_gb": number("Memory of the machine, GB", 8.0),
    }
    if unknown := [name for name in start if name not in controls]:
        raise ValueError(f"planner: expected knobs among {', '.join(controls)}, got {unknown[0]!r}. Fix: planner(config, method=\"full\", memory_gb=24.0).")
    for name, value in start.items():
        controls[name].value = value
    return View("Turn one knob at a time. Which of them makes this model fit into the machine?", controls, plan)


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
    found = costs.predict(read, **knobs)
    fits = _fits(found, memory_gb)
    text = (f"{found.parameters / 1e6:,.0f} million parameters, {found.trained / 1e6:,.1f} million trained. "
            f"Predicted peak {found.peak_gb:.1f} GB: {fits}. Most of it: {found.dominant}.")
    bars = {"now": found.memory.parts}
    if best := best_turn(read, knobs):
        change, after = best
        saved = found.peak_gb - after.peak_gb
        text += f"\nThe knob that saves most, turned alone: {change}: {saved:.1f} GB less, {after.peak_gb:.1f} GB, {_fits(after, memory_gb)}."
        bars[change] = after.memory.parts
    else:
        text += "\nNo knob of this form saves anything more."
    return Shown(text, plots.memory_bars(bars, f"Predicted peak {found.peak_gb:.1f} GB: {fits}"))


def best_turn(config: Mapping[str, Any], knobs: Mapping[str, Any]) -> tuple[str, costs.Prediction] | None:
    """The single turn of one knob of the form that lowers the predicted peak most, and the prediction after it; None where no turn lowers it.

    All values of the lists are tried, and half of each number. "bfloat16" counts another memory, the GPU's; so a plan stays on its side.
    """
    tried = [("method", name) for name in costs.setup.METHODS] + [("optimizer", name) for name in costs.setup.OPTIMIZERS]
    tried += [("checkpointing", True), *((name, knobs[name] // 2) for name in ("batch", "length", "rank") if knobs[name] > 1)]
    if knobs["precision"] != "bfloat16":
        tried += [("precision", name) for name in ("float32", "autocast")]
    now = costs.predict(config, **knobs).memory.peak
    turns = [(_turn(name, value), costs.predict(config, **{**knobs, name: value})) for name, value in tried if knobs[name] != value]
    best = min(turns, key=lambda turn: turn[1].memory.peak, default=None)
    return best if best and best[1].memory.peak < now else None


def _turn(name: str, value: Any) -> str:
    """A turned knob in words."""
    if name == "precision":
        return next(label for label, kind in PRECISIONS.items() if kind == value)
    return "activation checkpointing on" if name == "checkpointing" else f"{name} {value}"


def _fits(found: costs.Prediction, memory_gb: float) -> str:
    return f"{'fits into' if found.peak_gb <= memory_gb else 'does not fit into'} {memory_gb:g} GB"


def mask_viewer(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]] | None = None) -> View:
    """Which tokens of one's own conversation the loss sees, by the form of the data. Lesson 04.

    `messages`: a system, a user and an assistant turn; a short example by default.
    """
    system, user, assistant = [m["content"] for m in messages] if messages else ["Name the tone of this message.",
                                                                                 "It was a sock in the pump. Sorted now.", "neutral"]
    controls = {"system": line("System turn", system), "user": area("User turn", user),
                "assistant": area("Assistant turn, the answer", assistant, rows=2),
                "form": choice("Form of the data", FORMS)}
    return View("Try the three forms. Which one trains the answer and its end, and nothing else?", controls,
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
    return View("Write one sentence in each language. How many times the tokens of the first does the same content cost?", controls,
                lambda **values: fertile(tokenizer, values))


def fertile(tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> Shown:
    """Tokens per word of each text, and its tokens against the first text's. Raises ValueError where a text has no word."""
    counts = {name: (len(text.split()), len(tokenizer(text, add_special_tokens=False)["input_ids"])) for name, text in texts.items()}
    if empty := [name for name, (words, _) in counts.items() if not words]:
        raise ValueError(f"{empty[0]}: expected a text with at least one word, got nothing. Fix: write the same sentence in this language.")
    first = next(iter(counts.values()))[1]
    lines = [f"{name}: {words} word{'' if words == 1 else 's'}, {tokens} tokens, {tokens / words:.1f} a word, {tokens / first:.1f} times the first text"
             for name, (words, tokens) in counts.items()]
    most = max(counts, key=lambda name: counts[name][1] / counts[name][0])
    figure = plots.value_bars({name: tokens / words for name, (words, tokens) in counts.items()}, f"{escape(most)} takes the most tokens a word",
                              "tokens per word", 1)
    return Shown("\n".join(lines), figure)
