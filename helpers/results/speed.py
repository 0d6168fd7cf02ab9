"""How fast the lessons' recipe trains against TRL's trainer as it is, and what recomputing activations costs. Read in lesson 07."""

from __future__ import annotations

import gc
import math
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any, Sequence

import torch
from datasets import Dataset

from helpers import data, evaluation, models, training

from .rows import Family, provenance

WAYS = {  # settings of SFTConfig, and whether the loss is computed only where there is a label
    "plain": ({}, False),
    "answer only": ({}, True),  # the same order of rows as plain: the loss can be compared step by step
    "recipe": ({"train_sampling_strategy": "group_by_length"}, True),
    "recipe bf16": ({"train_sampling_strategy": "group_by_length", "bf16": True}, True),
}
ONCE = ("answer only",)  # its time is not a target, only its loss


@dataclass(frozen=True)
class SpeedRecipe:
    """`what`: "recipe" trains `rows` training rows once in each of `WAYS` (LoRA), `repeats` times in turn; "checkpointing" takes one
    batch forward and backward, with activation checkpointing and without, for all weights and for LoRA."""

    need: str = "extract"
    what: str = "recipe"
    rows: int = 64
    batch: int = 8
    repeats: int = 3
    rank: int = 16
    learning_rate: float = 1e-3
    seed: int = 0


RUNS = (SpeedRecipe(), SpeedRecipe(what="checkpointing", rows=4, batch=4))


def measure(recipe: SpeedRecipe) -> dict[str, Any]:
    """One row of results; what it holds stands with `measure_recipe` and `measure_checkpointing`. Times are of this machine."""
    training.quiet()
    source = provenance(recipe.need)
    found = {"recipe": measure_recipe, "checkpointing": measure_checkpointing}[recipe.what](recipe, models.load_tokenizer())
    return {"recipe": asdict(recipe), **found, "fast_bf16": models.has_fast_bf16(), "provenance": source}


def measure_recipe(recipe: SpeedRecipe, tokenizer) -> dict[str, Any]:
    """Each way of training on the same rows, in turn.

    `ways` holds per way `tokens_per_second` (one per repeat; padding is not counted as tokens), `losses` (one per step), `padding`
    (share of positions that are padding), `held_out` (nats per answer token on validation rows after training) and `memory_gb` (peak,
    None where the system cannot say). `ratios` compares each way's speed with plain's of the same repeat. bf16 is left out where the
    processor has no instructions for it.
    """
    desk = data.load_extract()
    rows, held_out = spread(desk["train"], recipe.rows), spread(desk["validation"], 16)
    ways: dict[str, dict[str, Any]] = {name: {"tokens_per_second": []} for name in WAYS if "bf16" not in name or models.has_fast_bf16()}
    tokens = 0
    for repeat in range(recipe.repeats):
        for name, found in ways.items():
            if repeat and name in ONCE:
                continue
            trainer = None  # the last one goes before the next is made
            gc.collect()
            trainer = trainer_of(recipe, tokenizer, rows, name)
            tokens, padding = sum(map(len, trainer.train_dataset["input_ids"])), padding_share(trainer)
            with training.peak_memory() as peak:
                start = time.monotonic()
                trainer.train()
                seconds = time.monotonic() - start
            found["tokens_per_second"].append(round(tokens / seconds, 1))
            if not repeat:
                tuned = evaluation.perplexity(trainer.model, tokenizer, held_out)
                found |= {"losses": [round(loss, 4) for loss in training.loss_history(trainer)], "padding": round(padding, 3),
                          "held_out": round(math.log(tuned.value()), 4), "memory_gb": peak[0]}
    plain = ways["plain"]["tokens_per_second"]
    ratios = {name: [round(fast / slow, 2) for fast, slow in zip(found["tokens_per_second"], plain)] for name, found in ways.items() if name != "plain"}
    return {"ways": ways, "ratios": ratios, "tokens": tokens}


def measure_checkpointing(recipe: SpeedRecipe, tokenizer) -> dict[str, Any]:
    """One batch forward and backward, without and with activation checkpointing, in turn, for all weights and for LoRA.

    `methods` holds for each `seconds` without and with (one per repeat), `ratio` of their medians, `kept_mb` without and with (bytes
    that the forward pass keeps for the backward pass, in millions), `memory_gb` (peaks). `positions` is the size of the batch.
    """
    rows, methods, positions = spread(data.load_extract()["train"], recipe.rows), {}, 0
    for method in ("full", "lora"):
        trainer = model = loss = None
        gc.collect()
        trainer = trainer_of(recipe, tokenizer, rows, "answer only", lora=method == "lora")
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(recipe.batch)])
        model, positions = trainer.model.train(), batch["input_ids"].numel()
        seconds, kept_mb, peaks = {False: [], True: []}, [], []
        for repeat in range(-1, recipe.repeats):  # the first one warms up, and counts bytes
            for on in (False, True):
                (model.gradient_checkpointing_enable if on else model.gradient_checkpointing_disable)()
                with training.peak_memory() as peak:
                    start = time.monotonic()
                    if repeat < 0:
                        with training.kept_for_backward(model) as kept:
                            loss = trainer.compute_loss(model, batch)
                        kept_mb.append(round(sum(kept.values()) / 1e6, 1))
                    else:
                        loss = trainer.compute_loss(model, batch)
                    loss.backward()
                    took = time.monotonic() - start
                model.zero_grad()
                if repeat >= 0:
                    seconds[on].append(round(took, 3))
                if repeat == 0:
                    peaks.append(peak[0])
        methods[method] = {"seconds": [seconds[False], seconds[True]], "ratio": round(statistics.median(seconds[True]) / statistics.median(seconds[False]), 2),
                           "kept_mb": kept_mb, "memory_gb": peaks}
    return {"methods": methods, "positions": positions}


def trainer_of(recipe: SpeedRecipe, tokenizer, rows: Sequence[data.Row], way: str, lora: bool = True):
    """A silent trainer of one of `WAYS` on the base model, with an adapter or for all weights."""
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    changes, answer_only = WAYS[way]
    adapter = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        models.load_model(), processing_class=tokenizer, peft_config=adapter if lora else None,
        train_dataset=Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in rows]),
        args=SFTConfig(output_dir="out", num_train_epochs=1, per_device_train_batch_size=recipe.batch, learning_rate=recipe.learning_rate,
                       **training.quiet_settings(recipe.seed) | changes),
    )
    trainer.remove_callback(PrinterCallback)
    return training.answer_loss_only(trainer) if answer_only else trainer


def padding_share(trainer) -> float:
    """The share of positions in the batches of an epoch that are padding. Draws the batches that `trainer.train()` will draw."""
    with torch.random.fork_rng():
        masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def spread(rows: Sequence[data.Row], count: int) -> list[data.Row]:
    """`count` rows at equal distances, so that all writer batches and lengths are among them."""
    return [rows[i * len(rows) // count] for i in range(count)]


SPEED = Family("speed", RUNS, measure, "about ten minutes")
