"""Training steps measured in fresh processes: peak memory and seconds, beside which `helpers.costs` puts its predictions. Read in lesson 07."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from helpers import costs, models, training

from .rows import Family, provenance

LLAMA = {"model_type": "llama", "max_position_embeddings": 2048, "initializer_range": 0.02}
SMALL = LLAMA | {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 6, "num_key_value_heads": 2,
                 "vocab_size": 16384, "tie_word_embeddings": True}
LARGE = LLAMA | {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
                 "vocab_size": 32000, "tie_word_embeddings": False}
RANDOM = {"25M": SMALL, "374M": LARGE}


@dataclass(frozen=True)
class CostsRecipe:
    """One training setup, see `costs.Setup`. `model`: "135M", the course's own, or "25M" or "374M", of random weights."""

    model: str
    method: str
    batch: int
    length: int
    answer: int | None = None
    loss: str = "answer"
    checkpointing: bool = False
    optimizer: str = "adamw"
    rank: int = 16
    targets: str = "all-linear"
    need: str = "random"

    @property
    def setup(self) -> costs.Setup:
        return costs.Setup(**{key: value for key, value in asdict(self).items() if key not in ("model", "need")})


R = CostsRecipe
FITTED = (  # some constants of `helpers.costs` were set with these in sight
    R("135M", "lora", 4, 128, 32), R("374M", "lora", 1, 128, 32), R("25M", "lora", 8, 256, 64),
    R("135M", "qlora", 4, 128, 32), R("374M", "qlora", 1, 128, 32), R("25M", "qlora", 16, 64, 16),
    R("135M", "dora", 4, 128, 32), R("374M", "dora", 1, 128, 32), R("25M", "dora", 4, 256, 64),
    R("135M", "full", 4, 128, 32), R("374M", "full", 1, 128, 32), R("25M", "full", 8, 256, 64),
    R("135M", "lora", 8, 96, 24, checkpointing=True), R("374M", "lora", 2, 256, 64, checkpointing=True),
    R("25M", "lora", 16, 128, 32, checkpointing=True),
    R("135M", "full", 2, 256, 32, checkpointing=True), R("374M", "qlora", 2, 256, 32, checkpointing=True),
    R("25M", "full", 4, 512, None, "all", checkpointing=True), R("135M", "lora", 1, 512, 64), R("135M", "lora", 16, 64, 8),
    R("25M", "qlora", 2, 512, 64),
    R("374M", "full", 2, 64, 16, optimizer="sgd"), R("135M", "lora", 4, 128, 32, "all"), R("135M", "lora", 4, 128, 32, "tiles"),
    R("374M", "lora", 4, 64, 16, rank=64), R("25M", "full", 4, 128, 32, optimizer="adamw_8bit"), R("135M", "qlora", 1, 64, 16),
    R("135M", "full", 1, 64, 16),
)
HELD_OUT = (  # measured afterwards, for a judgement on setups that no constant has seen
    R("135M", "lora", 2, 384, 96), R("135M", "qlora", 8, 160, 40, checkpointing=True), R("135M", "dora", 2, 192, 48), R("135M", "full", 8, 80, 20),
    R("25M", "full", 16, 96, None, "all"), R("25M", "dora", 16, 128, 32, checkpointing=True), R("374M", "lora", 1, 320, 80, rank=8),
    R("374M", "full", 1, 192, 48, checkpointing=True),
)
RUNS = FITTED + HELD_OUT


def folder_of(model: str) -> Path:
    """The folder of a model of the recipes; random ones are written by another process, so that this one's peak is its own."""
    if model not in RANDOM:
        return models.prepare()
    folder = Path(tempfile.gettempdir()) / f"course-costs-{model}"
    if not (folder / "whole").exists():
        code = "import sys; from helpers.results import costs; costs.write_random(*sys.argv[1:])"
        subprocess.run([sys.executable, "-c", code, model, str(folder)], check=True)
    return folder


def write_random(model: str, folder: str) -> None:
    """Write a model of random weights (seed 0) into a folder."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    training.quiet()
    AutoModelForCausalLM.from_config(LlamaConfig(**RANDOM[model]), dtype=torch.float32).save_pretrained(folder)
    (Path(folder) / "whole").touch()


def load(recipe: CostsRecipe, folder: Path) -> Any:
    """The model as lessons 05 to 07 prepare it, ready to train."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=packed if recipe.method == "qlora" else None)
    if recipe.method != "full":
        from peft import LoraConfig, get_peft_model

        model.requires_grad_(False)
        adapter = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=recipe.targets, use_dora=recipe.method == "dora",
                             task_type="CAUSAL_LM")
        model = get_peft_model(model, adapter)
    if recipe.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def loss_of(model: Any, batch: dict[str, torch.Tensor], loss: str) -> torch.Tensor:
    """The loss of one batch where the setup computes it; "answer" as `training.answer_loss` does."""
    if loss == "all":
        return model(**batch, use_cache=False).loss
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    if loss == "tiles":
        return core(**batch, fused_lm_head=True).loss
    labels = batch["labels"][:, 1:]
    wanted = labels != -100
    body = core.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    scores = core.get_output_embeddings()(body.last_hidden_state[:, :-1][wanted])
    return torch.nn.functional.cross_entropy(scores.float(), labels[wanted])


def random_batch(setup: costs.Setup, vocabulary: int) -> dict[str, torch.Tensor]:
    """Random token ids with labels on the last `answer` tokens of each row; two positions of padding where a batch has several rows."""
    ids = torch.randint(10, vocabulary, (setup.batch, setup.length))
    labels, mask = ids.clone(), torch.ones_like(ids)
    if setup.answer:
        labels[:, :-setup.answer] = -100
    if setup.batch > 1:
        mask[0, -2:], labels[0, -2:] = 0, -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def measure(recipe: CostsRecipe) -> dict[str, Any]:
    """One row of results: `peak_gb` of this process, `seconds` of the fastest of some steps, and the calibrated `machine`.

    `base_gb` is the peak of the process with its libraries and nothing else, `loaded_gb` the peak before the first step.
    `trained` counts what is trained; `config` holds what a prediction needs.
    """
    training.quiet()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    source, setup, folder = provenance(recipe.need), recipe.setup, folder_of(recipe.model)
    for library in ("bitsandbytes", "peft", "trl"):
        importlib.import_module(library)
    getattr(importlib.import_module("trl"), "SFTTrainer")  # as a lesson's process has them
    base = training.peak_memory_gb()
    model = load(recipe, folder)
    if recipe.loss == "tiles":
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model.get_base_model() if recipe.method != "full" else model, outputs=("log_probs", "entropy", "is_top1"))
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer, loaded, seconds = costs.optimizer_of(recipe.optimizer, weights), training.peak_memory_gb(), []
    while len(seconds) < 3 or (sum(seconds) < 5 and len(seconds) < 6):
        batch, start = random_batch(setup, model.config.vocab_size), time.perf_counter()
        loss_of(model, batch, recipe.loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        print(f"   step {seconds[-1]:.2f} s, {training.peak_memory_gb():.2f} GB", flush=True)
    peak, trained = training.peak_memory_gb(), sum(p.numel() for p in weights)
    config = {key: getattr(model.config, key) for key in (*costs.shape.NEEDED, "num_key_value_heads", "head_dim", "tie_word_embeddings")}
    del model, optimizer, weights
    machine = costs.calibrate()  # after the steps, so that it leaves no trace in their memory
    return {
        "recipe": asdict(recipe), "config": config, "peak_gb": round(peak, 3), "loaded_gb": round(loaded, 3), "base_gb": round(base, 3),
        "seconds": round(min(seconds), 4), "steps": len(seconds), "trained": trained,
        "machine": asdict(machine), "provenance": source,
    }


COSTS = Family("costs", RUNS, measure, "about twelve minutes")
