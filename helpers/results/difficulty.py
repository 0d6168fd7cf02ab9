"""How hard the desk's data is: the base model and lesson 05's recipe, trained longer than a lesson may. Read in lesson 05."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset

from helpers import data, evaluation, models, training

from .rows import Family, provenance, share

ANSWER_TOKENS = {"extract": 90, "tone": 8}


@dataclass(frozen=True)
class Recipe:
    """The knobs of lesson 05 for one run. `epochs` 0 is the base model without training; `longest` is in tokens, prompt and answer."""

    need: str
    epochs: int
    learning_rate: float = 2e-3
    rank: int = 16
    alpha: int = 16
    targets: str = "all-linear"
    batch: int = 4
    longest: int = 400
    seed: int = 0


RUNS = (Recipe("extract", 0), Recipe("extract", 3), Recipe("tone", 0), Recipe("tone", 2))


def measure(recipe: Recipe) -> dict[str, Any]:
    """Train by the recipe and answer every test row; one row of results.

    `exact` is [share of whole answers that are right, low, high, rows] with a Wilson interval at 95 %; `hard` and `easy` are
    the same over rows with and without a mark. `train_rows` and `tokens` (over all epochs) say what was trained on, `minutes`
    what the training steps took, `memory_gb` the peak of this process in GB.
    """
    training.quiet()
    source = provenance(recipe.need)
    desk = {"extract": data.load_extract, "tone": data.load_tone}[recipe.need]()
    tokenizer, model = models.load_tokenizer(), models.load_model()
    rows = [r for r in desk["train"] if _tokens(tokenizer, r) <= recipe.longest] if recipe.epochs else []
    model, minutes = trained(model, tokenizer, rows, recipe) if rows else (model, 0.0)
    test = list(desk["test"])
    answers = models.generate(model, tokenizer, [r["messages"][:-1] for r in test], max_new_tokens=ANSWER_TOKENS[recipe.need])
    right = [_right(recipe.need, answer, row) for answer, row in zip(answers, test)]
    return {
        "recipe": asdict(recipe), "rows": len(test), "exact": share(right),
        "hard": share([x for x, r in zip(right, test) if r["hard"]]), "easy": share([x for x, r in zip(right, test) if not r["hard"]]),
        "train_rows": len(rows), "tokens": recipe.epochs * sum(_tokens(tokenizer, r) for r in rows), "minutes": round(minutes, 1),
        "memory_gb": round(training.peak_memory_gb(), 1), "provenance": source,
    }


def trained(model, tokenizer, rows: list[data.Row], recipe: Recipe):
    """The model with an adapter trained on rows by lesson 05's recipe, and the minutes that its steps took."""
    trainer = _trainer(model, tokenizer, rows, recipe)
    start = time.monotonic()
    trainer.train()
    return trainer.model.eval(), (time.monotonic() - start) / 60


def _trainer(model, tokenizer, rows: list[data.Row], recipe: Recipe):
    """The trainer of lesson 05, silent."""
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    train = Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in rows])
    trainer = SFTTrainer(
        model, train_dataset=train, processing_class=tokenizer,
        peft_config=LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=recipe.targets, task_type="CAUSAL_LM"),
        args=SFTConfig(output_dir="out", learning_rate=recipe.learning_rate, num_train_epochs=recipe.epochs,
                       per_device_train_batch_size=recipe.batch, lr_scheduler_type="linear", warmup_steps=0.1,
                       train_sampling_strategy="group_by_length", **training.quiet_settings(recipe.seed)),
    )
    trainer.remove_callback(PrinterCallback)
    return training.answer_loss_only(trainer)


def _tokens(tokenizer, row: data.Row) -> int:
    return len(tokenizer.apply_chat_template(row["messages"])["input_ids"])


def _right(need: str, answer: str, row: data.Row) -> bool:
    if need == "extract":
        return bool(evaluation.exact_match([answer], [data.record_of(row)])[0])
    return answer.strip() == row["messages"][-1]["content"]


DIFFICULTY = Family("difficulty", RUNS, measure, "about twenty minutes")
