"""Training runs, one knob at a time: methods, learning rates, ranks, amounts and quality of data. Read in lessons 04 to 07 and 09.

Every run is lesson 05's, with the changes that its recipe names, scored on rows that it was not trained on.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset

from helpers import data, evaluation, models, prompting, quantisation, training

from .rows import Family, listed, provenance, share

ANSWER_TOKENS = {"extract": 90, "tone": 8}
LOADERS = {"extract": data.load_extract, "tone": data.load_tone}
PROBE_TOKENS = 40


@dataclass(frozen=True)
class Tuning:
    """The knobs of one run. A knob that is not named is lesson 05's.

    method: none (the base model), full, lora, qlora (NF4, double quantisation) or dora. seed: of the adapter's start, the order
    and the choice of rows. split: where it is scored, `validation` while a knob is being chosen. epochs: times through the rows.
    rows: how many training rows, None for all. noise: share of training rows with a wrong label (tone). copies: how often every
    row stands in the training set. loss_on: `answer` or `all` tokens. start: `scratch` throws the pretrained weights away.
    batch: rows per step. longest: rows with more tokens, prompt and answer, are left out. probe: also measure what was forgotten.
    """

    need: str
    method: str = "lora"
    seed: int = 0
    split: str = "validation"
    epochs: int = 1
    learning_rate: float = 2e-3
    rank: int = 16
    alpha: int = 16
    rslora: bool = False
    targets: str = "all-linear"
    dropout: float = 0.0
    weight_decay: float = 0.0
    loss_on: str = "answer"
    start: str = "pretrained"
    rows: int | None = None
    noise: float = 0.0
    copies: int = 1
    batch: int = 4
    longest: int = 400
    probe: bool = False


RATE = {"none": 0.0, "lora": 2e-3, "qlora": 2e-3, "dora": 2e-3, "full": 1e-4}  # the best of RATES on validation rows; LoRA's for its relatives
EPOCHS = {"tone": 2, "extract": 1}  # about as many tokens each

RATES = tuple(
    [Tuning("tone", learning_rate=rate) for rate in (1e-5, 1e-4, 5e-4, 2e-3, 1e-2)]
    + [Tuning("tone", "full", learning_rate=rate) for rate in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)]
)
RANKS = tuple(Tuning("tone", **knobs) for knobs in (
    {"rank": 1, "alpha": 1}, {"rank": 4, "alpha": 4}, {"rank": 64, "alpha": 64}, {"rank": 64, "alpha": 16}, {"rank": 64, "alpha": 16, "rslora": True},
    {"targets": "q_proj,v_proj"}, {"loss_on": "all"},
    *({"method": "full", "start": "scratch", "learning_rate": rate} for rate in (1e-4, 3e-4, 1e-3)),
))
METHODS = tuple(
    Tuning(need, method, seed, "test", EPOCHS[need], RATE[method], probe=True)
    for need in ("tone", "extract") for seed in range(3) for method in ("lora", "qlora", "full", *(("dora",) if need == "tone" else ()))
) + tuple(Tuning(need, "none", 0, "test", 0, 0.0, probe=True) for need in ("tone", "extract"))
ROWS = tuple(Tuning("tone", "lora", seed, "test", 2, rows=rows) for seed in range(3) for rows in (25, 50, 100, 200))
NOISE = tuple(Tuning("tone", "lora", seed, "test", 2, rows=200, noise=noise) for noise in (0.05, 0.2, 0.4) for seed in range(3))
COPIES = tuple(Tuning("tone", "lora", seed, "test", rows=50, epochs=1, copies=8) for seed in range(3))
RUNS = tuple(dict.fromkeys((*RATES, *RANKS, *METHODS, *ROWS, *NOISE, *COPIES)))


def measure(recipe: Tuning) -> dict[str, Any]:
    """Train by the recipe and answer the rows of its split; one row of results.

    `score` is [share of right answers, low, high, rows] with a Wilson interval at 95 % (`tone`: the label; `extract`: the whole
    record), `hits` one 0 or 1 per row in the order of the split, `loss` the mean loss per answer token
    on those rows as [nats, low, high, rows]. `tokens`
    over all epochs, `minutes` of training, `memory_gb` the peak of this process, `precision` of the matrix products in training
    (bfloat16 where the processor multiplies it in hardware), `trainable` parameters, `adapter_mb` on disk. `prompt_tokens` and
    `answer_tokens` are means per request, `seconds` per request in a batch. `probe`: share of the general probe that passes, by
    kind, and the perplexity of its prose as [value, texts].
    """
    training.quiet()
    source = provenance(recipe.need)
    desk, tokenizer, model = LOADERS[recipe.need](), models.load_tokenizer(), _model(recipe)
    rows = training_rows(recipe, list(desk["train"]), tokenizer) if recipe.method != "none" else []
    row: dict[str, Any] = {"recipe": asdict(recipe), "train_rows": len(rows), "precision": "bfloat16" if models.has_fast_bf16() else "float32"}
    if rows:
        trainer = trainer_for(model, tokenizer, rows, recipe)
        start = time.monotonic()
        trainer.train()
        row["minutes"] = round((time.monotonic() - start) / 60, 2)
        row["losses"] = [round(x, 3) for x in training.loss_history(trainer)]
        row["memory_gb"] = round(training.peak_memory_gb(), 1)
        row["trainable"] = training.trainable_parameters(trainer.model)[0]
        row["tokens"] = recipe.epochs * sum(len(ids) for ids in trainer.train_dataset["input_ids"])
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()  # scored in float32
        row["adapter_mb"] = _saved_mb(model)
    return {**row, **_scored(model, tokenizer, list(desk[recipe.split]), recipe.need),
            **({"probe": probe_scores(model, tokenizer)} if recipe.probe else {}), "provenance": source}


def training_rows(recipe: Tuning, rows: list[data.Row], tokenizer) -> list[data.Row]:
    """The training rows of a recipe: chosen, copied and given wrong labels by its seed. Labels are wrong only in `tone`."""
    rng = random.Random(recipe.seed)
    fitting = [r for r in rows if len(tokenizer.apply_chat_template(r["messages"])["input_ids"]) <= recipe.longest]
    chosen = rng.sample(fitting, recipe.rows) if recipe.rows else fitting
    wrong = set(rng.sample(range(len(chosen)), round(recipe.noise * len(chosen))))
    chosen = [_with_wrong_label(r, rng) if n in wrong else r for n, r in enumerate(chosen)]
    return chosen * recipe.copies


def trainer_for(model, tokenizer, rows: list[data.Row], recipe: Tuning):
    """The trainer of lessons 05, 06 and 07, silent; bfloat16 products where the processor has them."""
    from peft import LoraConfig, prepare_model_for_kbit_training
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    if recipe.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = recipe.targets if "," not in recipe.targets else recipe.targets.split(",")
    adapter = None if recipe.method == "full" else LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, use_rslora=recipe.rslora, target_modules=targets, lora_dropout=recipe.dropout,
        use_dora=recipe.method == "dora", task_type="CAUSAL_LM",
    )
    pairs = [{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in rows]
    trainer = SFTTrainer(
        model, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer, peft_config=adapter,
        args=SFTConfig(output_dir="out", learning_rate=recipe.learning_rate, num_train_epochs=recipe.epochs, weight_decay=recipe.weight_decay,
                       per_device_train_batch_size=recipe.batch, lr_scheduler_type="linear", warmup_steps=0.1,
                       completion_only_loss=recipe.loss_on == "answer", train_sampling_strategy="group_by_length",
                       **training.quiet_settings(recipe.seed) | {"bf16": models.has_fast_bf16()}),
    )
    for weight in trainer.model.parameters():
        if weight.requires_grad:  # TRL turns the adapter of a 4-bit model into bfloat16; LoRA's stays in float32, so this one does
            weight.data = weight.data.float()
    trainer.remove_callback(PrinterCallback)
    return training.answer_loss_only(trainer)


def probe_scores(model, tokenizer) -> dict[str, list[float]]:
    """The general probe: [share passed, low, high, items] by kind, and the prose's perplexity as [value, texts]. Lesson 07."""
    items = list(data.load_probe())
    asked = [r for r in items if r["kind"] != "prose"]
    said = models.generate(model, tokenizer, [r["messages"][:-1] for r in asked], max_new_tokens=PROBE_TOKENS, batch_size=64)
    passed = [evaluation.passes(answer, r["check"]) for answer, r in zip(said, asked)]
    kinds = {kind: share([p for p, r in zip(passed, asked) if r["kind"] == kind]) for kind in ("knowledge", "arithmetic", "instruction")}
    prose = evaluation.perplexity(model, tokenizer, [r for r in items if r["kind"] == "prose"])
    return {**kinds, "all": share(passed), "prose": [round(prose.value(), 2), len(items) - len(asked)]}


def _model(recipe: Tuning):
    if recipe.start == "scratch":
        from transformers import AutoModelForCausalLM, set_seed

        set_seed(recipe.seed)
        return AutoModelForCausalLM.from_config(models.load_model().config)
    if recipe.method != "qlora":
        return models.load_model()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=torch.bfloat16 if models.has_fast_bf16() else torch.float32)
    model = AutoModelForCausalLM.from_pretrained(models.source(), quantization_config=four_bit, dtype=torch.float32)
    quantisation.keep_float32(model)
    return model


def _scored(model, tokenizer, rows: list[data.Row], need: str) -> dict[str, Any]:
    prompts = [r["messages"][:-1] for r in rows]
    start = time.monotonic()
    answers = models.generate(model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS[need], batch_size=64)
    seconds = (time.monotonic() - start) / len(rows)
    if need == "extract":
        right = evaluation.exact_match(answers, [data.record_of(r) for r in rows])
        f1 = {"macro_f1": listed(evaluation.macro_f1(answers, [data.record_of(r) for r in rows]), len(rows))}
    else:
        right, f1 = evaluation.label_accuracy(answers, [r["messages"][-1]["content"] for r in rows]), {}
    said = [len(tokenizer(a)["input_ids"]) for a in answers]
    return {
        "score": share(right), **f1, "hits": [int(x) for x in right], "loss": listed(evaluation.bootstrap(evaluation.perplexity(model, tokenizer, rows).nll), len(rows)),
        "prompt_tokens": round(sum(models.count_tokens(tokenizer, p) for p in prompts) / len(rows), 1),
        "answer_tokens": round(sum(said) / len(rows), 1), "seconds": round(seconds, 3),
    }


def _saved_mb(model) -> float:
    if not hasattr(model, "peft_config"):
        return round(sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6, 1)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return round((Path(folder) / "adapter_model.safetensors").stat().st_size / 1e6, 1)


def _with_wrong_label(row: data.Row, rng: random.Random) -> data.Row:
    answer = row["messages"][-1]
    wrong = rng.choice([tone for tone in prompting.TONES if tone != answer["content"]])
    return {**row, "messages": [*row["messages"][:-1], {**answer, "content": wrong}]}


TUNING = Family("tuning", RUNS, measure, "about five and a half hours; one row takes one to fifteen minutes")
