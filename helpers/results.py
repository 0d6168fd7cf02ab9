"""Measured rows with their provenance, and the runs that re-make them. First part: how hard the desk's data is.

`python -m helpers.results` re-makes what is missing or out of date in `lessons/results/`. Rows are read in lesson 05 and
explained in lesson 09. Each row says what it was measured with, so a reader can judge it and a test can see that it is stale.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Sequence

import torch
from datasets import Dataset

from helpers import data, evaluation, models, training

FOLDER = Path(__file__).parents[1] / "lessons" / "results"
DIFFICULTY = FOLDER / "difficulty.jsonl"
LIBRARIES = ("torch", "transformers", "peft", "trl")
FILES = {"extract": "extract/tickets.jsonl", "tone": "tone/messages.jsonl"}
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


def data_hash(need: str) -> str:
    """SHA-256 of the file that holds a need's rows, line ends as on Linux: another data set, another hash."""
    return hashlib.sha256((data.HERE / FILES[need]).read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def provenance(need: str) -> dict[str, Any]:
    """With what and on what a row was measured: versions, processor, threads, data, commit, day (UTC)."""
    return {
        **{name: version(name) for name in LIBRARIES}, "python": platform.python_version(), "model": models.model_name(),
        "cpu": _cpu(), "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "data": data_hash(need), "commit": _commit(), "day": datetime.now(timezone.utc).date().isoformat(),
    }


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
    minutes = 0.0
    if rows:
        trainer = _trainer(model, tokenizer, rows, recipe)
        start = time.monotonic()
        trainer.train()
        minutes, model = (time.monotonic() - start) / 60, trainer.model.eval()
    test = list(desk["test"])
    answers = models.generate(model, tokenizer, [r["messages"][:-1] for r in test], max_new_tokens=ANSWER_TOKENS[recipe.need])
    right = [_right(recipe.need, answer, row) for answer, row in zip(answers, test)]
    return {
        "recipe": asdict(recipe), "rows": len(test), "exact": _interval(right),
        "hard": _interval([x for x, r in zip(right, test) if r["hard"]]), "easy": _interval([x for x, r in zip(right, test) if not r["hard"]]),
        "train_rows": len(rows), "tokens": recipe.epochs * sum(_tokens(tokenizer, r) for r in rows), "minutes": round(minutes, 1),
        "memory_gb": round(training.peak_memory_gb(), 1), "provenance": source,
    }


def read(path: Path = DIFFICULTY) -> list[dict[str, Any]]:
    """The stored rows, in order; none when the file is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def find(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of a recipe, if it was measured with this model on today's data. Library versions are not compared."""
    now = {"model": models.model_name(), "data": data_hash(recipe.need)}
    same = [r for r in rows if r["recipe"] == asdict(recipe) and now.items() <= r["provenance"].items()]
    return same[-1] if same else None


def due(rows: Sequence[dict[str, Any]], need: str | None = None, force: bool = False) -> list[int]:
    """Which of `RUNS`, by number, have no row for this model and today's data; with `force`, all of the need."""
    return [n for n, recipe in enumerate(RUNS) if need in (None, recipe.need) and (force or find(recipe, rows) is None)]


def stored(recipe: Recipe) -> dict[str, Any]:
    """The stored row of a recipe for today's data. Raises LookupError that says how to make it when there is none."""
    if (row := find(recipe, read())) is None:
        raise LookupError(f"{DIFFICULTY}: expected a row of {recipe} measured on today's data, found none. "
                          f"Fix: python -m helpers.results --need {recipe.need} (a quarter of an hour), or check out the file with git.")
    return row


def store(row: dict[str, Any], path: Path = DIFFICULTY) -> None:
    """Add a row in the place of the one with the same recipe and model; the file is replaced whole.

    Rows of the same need that were measured on other data than this one go: nobody can compare with them any more.
    """
    key = lambda r: (r["recipe"], r["provenance"]["model"])
    stale = lambda r: r["recipe"]["need"] == row["recipe"]["need"] and r["provenance"]["data"] != row["provenance"]["data"]
    rows = [r for r in read(path) if key(r) != key(row) and not stale(r)] + [row]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8", newline="\n")
    os.replace(part, path)


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


def _interval(right: Sequence[bool]) -> list[float]:
    found = evaluation.proportion(right)
    return [round(x, 3) for x in (found.estimate, found.low, found.high)] + [len(right)]


def _commit() -> str | None:
    """The commit of the course, marked `-dirty` when tracked files differ from it; None outside a git checkout."""
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=data.HERE, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description="Re-make the measured rows that are missing or out of date in lessons/results/.")
    parser.add_argument("--need", choices=sorted(FILES), help="only this need")
    parser.add_argument("--force", action="store_true", help="measure again even where the stored row is up to date")
    parser.add_argument("--run", type=int, choices=range(len(RUNS)), help="measure this one run in this process (used for each row, so that memory is its own)")
    chosen = parser.parse_args()
    if chosen.run is not None:
        store(measure(RUNS[chosen.run]))
        return
    for number in due(read(), chosen.need, chosen.force):
        recipe = RUNS[number]
        print(f"{recipe.need}, {recipe.epochs} epochs: measuring …", flush=True)
        if code := subprocess.run([sys.executable, "-m", "helpers.results", "--run", str(number)]).returncode:
            raise SystemExit(f"{recipe.need}, {recipe.epochs} epochs: the run stopped with code {code}, see above. Rows measured before it are stored; the same command goes on.")
        row = stored(recipe)
        print(f"{recipe.need}, {recipe.epochs} epochs: exact {row['exact']}, hard {row['hard']}, easy {row['easy']}, {row['minutes']} min", flush=True)


if __name__ == "__main__":
    main()
