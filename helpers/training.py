"""Plumbing for training: quiet, seeded settings; a live picture of the loss; memory. Explained in lesson 05.

What a lesson teaches (`LoraConfig`, `SFTConfig`, `SFTTrainer`) stands in the lesson's own cells.
"""

from __future__ import annotations

import logging
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from IPython.display import display
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed
from transformers.utils import logging as transformers_logging
from trl import SFTTrainer

from helpers import models, plots


def quiet() -> None:
    """Switch off progress bars, advice and future warnings, so that a cell shows only what it prints itself."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def quiet_settings(seed: int = 0) -> dict[str, Any]:
    """Keyword arguments for `SFTConfig` (or any `TrainingArguments`) that are plumbing, not choices.

    Nothing is reported or saved by itself, every step's loss is kept, the seed is set here and for the data order,
    and the precision follows the hardware: float32 on a CPU, because TRL's default, bf16, raises there.
    """
    quiet()
    set_seed(seed)
    hardware = models.pick_hardware()
    return {
        "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no",
        "seed": seed, "data_seed": seed,
        "bf16": hardware.dtype == torch.bfloat16, "fp16": hardware.dtype == torch.float16, "use_cpu": hardware.device == "cpu",
        "gradient_checkpointing": False, "dataloader_pin_memory": False,
    }


def answer_loss(trainer, model, inputs, return_outputs=False, num_items_in_batch=None):
    """The loss of TRL's completion-only training, with vocabulary scores computed only where there is a label."""
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = inputs["labels"][:, 1:]  # position t predicts token t + 1
    wanted = labels != -100
    body = core.base_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
    scores = core.get_output_embeddings()(body.last_hidden_state[:, :-1][wanted])  # (answer tokens, vocabulary)
    total = torch.nn.functional.cross_entropy(scores.float(), labels[wanted], reduction="sum")
    loss = total / (wanted.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
    return (loss, {}) if return_outputs else loss


def answer_loss_only(trainer: SFTTrainer) -> SFTTrainer:
    """Let a trainer compute its loss with `answer_loss`; return the trainer.

    On a CPU, TRL 1.16 scores the whole vocabulary at every position, masked or not, twice per step. Refused with
    ValueError for models that transform their scores after the output layer (such as Gemma's soft-capping).
    """
    args, adapter = trainer.args, getattr(trainer.model, "active_peft_config", None)
    for other, what in (
        (args.loss_type != "nll", f"loss_type={args.loss_type!r}"), (args.label_smoothing_factor, "label smoothing"),
        (args.packing or args.padding_free, "packing"), (getattr(trainer, "aux_loss_enabled", False), "a router loss"),
        (getattr(adapter, "is_prompt_learning", False), "prompt learning"),
    ):
        if other:
            raise ValueError(f"answer_loss_only: expected plain completion-only training, got {what}. Leave this call out.")
    config = trainer.model.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(f"answer_loss_only: expected a plain output layer, got a model with {name}. Leave this call out; "
                             "the trainer's own loss is right, only slower.")
    trainer.compute_loss = types.MethodType(answer_loss, trainer)
    return trainer


class LiveLoss(TrainerCallback):
    """Draws the loss while the trainer runs, and takes the picture away at the end.

    So a person sees the training live and the stored notebook keeps nothing that changes from run to run.
    `every`: steps between two pictures.
    """

    def __init__(self, every: int = 5) -> None:
        self.every = every
        self.losses: list[float] = []
        self.handle = None

    def on_train_begin(self, args, state, control, **_):
        self.losses.clear()
        self.handle = display({"text/plain": f"training: step 0 of {state.max_steps}"}, raw=True, display_id=True)

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" not in (logs or {}):
            return
        self.losses.append(float(logs["loss"]))
        if self.handle and (len(self.losses) % self.every == 0 or state.global_step == state.max_steps):
            self.handle.update(plots.as_png(plots.live_loss(self.losses, state.max_steps)), raw=True)

    def on_train_end(self, args, state, control, **_):
        if self.handle:
            self.handle.update({"text/plain": ""}, raw=True)


def add_live_loss(trainer: Trainer, every: int = 5) -> Trainer:
    """Give a trainer the live picture instead of its printed logs; return the trainer."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LiveLoss(every))
    return trainer


def loss_history(trainer: Trainer) -> list[float]:
    """The training loss of every logged step, in order."""
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def trainable_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """How many parameters are trained, and how many there are in all (shared ones counted once)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)


def peak_memory_gb() -> float:
    """Peak resident memory of this process so far, in GB (1e9 bytes); 0.0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found.group(1)) * 1024 / 1e9  # ru_maxrss would start at the parent's peak
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", 0) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
