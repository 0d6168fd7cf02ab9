"""How much slower a training step on 4-bit weights is, by tokens per step, and what memory it saves. Read in lesson 06."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers import models, quantisation, training

from .rows import Family, provenance

TOKENS = (8, 32, 128, 512, 2048)
LENGTH = 64  # tokens in a row, as in a short message


@dataclass(frozen=True)
class Slowdown:
    """method: `pair` times LoRA and QLoRA in turns in one process; `lora` or `qlora` measures memory in a process of its own."""

    need: str = "tone"
    method: str = "pair"
    rank: int = 16
    seed: int = 0
    repeats: int = 7


def measure(recipe: Slowdown) -> dict[str, Any]:
    """One row of results.

    `pair`: under `steps`, for each number of tokens the median seconds of forward and backward, as process time (`cpu`) and by
    the clock (`wall`), of `lora` and `qlora`. The loss stands at the last token of each row, so the output layer costs little.
    `lora`, `qlora`: `weights_mb` counted, and the peak resident memory of the process in GB: once the model is loaded
    (`loaded_gb`), after a step of 1,024 tokens with the loss at the last token of each row (`peak_gb`), and after one with
    the loss at every token (`peak_all_gb`).
    """
    training.quiet()
    torch.manual_seed(recipe.seed)
    row: dict[str, Any] = {"recipe": asdict(recipe), "provenance": provenance(recipe.need)}
    if recipe.method == "pair":
        both = {method: with_adapter(method, recipe.rank) for method in ("lora", "qlora")}
        return {**row, "steps": [_timed(both, tokens, recipe.repeats) for tokens in TOKENS]}
    model = with_adapter(recipe.method, recipe.rank)
    row["weights_mb"] = round(quantisation.stored_bytes(model) / 1e6, 1)
    row["loaded_gb"] = round(training.peak_memory_gb(), 2)
    step(model, 1024)
    row["peak_gb"] = round(training.peak_memory_gb(), 2)
    step(model, 1024, everywhere=True)
    return {**row, "peak_all_gb": round(training.peak_memory_gb(), 2)}


def with_adapter(method: str, rank: int = 16):
    """The course's model with an untrained adapter on all linear layers, ready to train; NF4 with double quantisation for `qlora`."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if method == "qlora":
        four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
        model = AutoModelForCausalLM.from_pretrained(models.source(), quantization_config=four_bit, dtype=torch.float32)
        quantisation.keep_float32(model)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        model = AutoModelForCausalLM.from_pretrained(models.source(), dtype=torch.float32)
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")).train()


def step(model, tokens: int, everywhere: bool = False) -> None:
    """Forward and backward over random tokens in rows of at most 64; gradients are thrown away."""
    length = min(tokens, LENGTH)
    ids = torch.randint(0, model.config.vocab_size, (tokens // length, length))
    core = model.get_base_model()
    hidden = core.model(input_ids=ids, use_cache=False).last_hidden_state
    kept = hidden if everywhere else hidden[:, -1:]
    scores = core.lm_head(kept)
    torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, -kept.shape[1] :].flatten()).backward()
    model.zero_grad()


def counted(model, tokens: int) -> dict[str, float]:
    """What a step over `tokens` does: `dequantised` layers, and `gflop`, the billions of operations of its matrix products.

    bitsandbytes dequantises a layer in two operations: `gemm_4bit`, which also multiplies (forward), and `dequantize_4bit` (backward).
    """
    import bitsandbytes  # noqa: F401  (makes the two operations known)

    layers: list[str] = []

    def forward(x, packed, shape, *_, **__) -> int:
        """Shapes: `x` (..., in), the layer (out, in)."""
        layers.append("forward")
        return 2 * math.prod(x) * shape[0]

    def backward(*_, **__) -> int:
        layers.append("backward")
        return 0  # the product is an operation of its own

    ours = {torch.ops.bitsandbytes.gemm_4bit: forward, torch.ops.bitsandbytes.dequantize_4bit: backward}
    with FlopCounterMode(display=False, custom_mapping=ours) as work:
        step(model, tokens)
    return {"dequantised": len(layers), "gflop": work.get_total_flops() / 1e9}


def _timed(both: dict[str, Any], tokens: int, repeats: int) -> dict[str, Any]:
    """Medians over `repeats` turns; each turn measures both, so that what else the machine does meets both alike."""
    times: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": []} for name in both}
    for turn in range(-1, repeats if tokens < 1000 else min(repeats, 3)):
        for name, model in both.items():
            cpu, wall = time.process_time(), time.perf_counter()
            step(model, tokens)
            if turn >= 0:  # the first turn warms up
                times[name]["cpu"].append(time.process_time() - cpu)
                times[name]["wall"].append(time.perf_counter() - wall)
    return {"tokens": tokens, **{name: {kind: round(statistics.median(ts), 4) for kind, ts in found.items()} for name, found in times.items()}}


SLOWDOWN = Family("slowdown", tuple(Slowdown(method=method) for method in ("pair", "lora", "qlora")), measure, "about three minutes")
