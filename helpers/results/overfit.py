"""Which knob helps against overfitting on 20 rows: rank, dropout, weight decay, fewer steps, more rows. Read in lesson 10."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from helpers import data, models, training

from .rows import Family, provenance


@dataclass(frozen=True)
class Overfit:
    """The overfitting run of lesson 10 with one knob turned. `rows` are the first of the training rows; `steps` of 4 rows each."""

    need: str = "tone"
    rows: int = 20
    rank: int = 16
    alpha: int = 16
    dropout: float = 0.0
    weight_decay: float = 0.0
    learning_rate: float = 2e-3
    steps: int = 25
    seed: int = 0


EVERY = 5  # steps between two looks at the validation rows
RUNS = (Overfit(), Overfit(rank=4, alpha=4), Overfit(dropout=0.1), Overfit(weight_decay=0.01), Overfit(rows=120))


def measure(recipe: Overfit) -> dict[str, Any]:
    """Train by the recipe; one row of results.

    `validation`: the mean loss per answer token (nats) over 24 validation rows every `EVERY` steps;
    `training`: the mean training loss of the steps between. Lower is better; where `validation` turns up, the run overfits.
    """
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    source, desk = provenance(recipe.need), data.load_tone()
    sets = [Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in rows])
            for rows in (list(desk["train"])[: recipe.rows], list(desk["validation"])[:24])]
    settings = SFTConfig(
        output_dir="out/overfit", learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay, max_steps=recipe.steps,
        lr_scheduler_type="constant", per_device_train_batch_size=4, per_device_eval_batch_size=12, eval_strategy="steps", eval_steps=EVERY,
        **training.quiet_settings(recipe.seed),
    )
    lora = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(models.load_model(), args=settings, train_dataset=sets[0], eval_dataset=sets[1],
                         processing_class=models.load_tokenizer(), peft_config=lora)
    trainer.remove_callback(PrinterCallback)
    training.answer_loss_only(trainer).train()
    losses = np.reshape(training.loss_history(trainer), (-1, EVERY)).mean(axis=1)
    return {
        "recipe": asdict(recipe), "every": EVERY, "training": [round(float(x), 4) for x in losses],
        "validation": [round(entry["eval_loss"], 4) for entry in trainer.state.log_history if "eval_loss" in entry], "provenance": source,
    }


OVERFIT = Family("overfit", RUNS, measure, "about four minutes")
