"""Quiet, seeded settings; how much is trained; memory. Explained in lesson 05."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from helpers import models


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
