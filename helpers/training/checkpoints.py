"""Checkpoints that are whole or absent, and a training that stops before it spoils anything. Explained in lesson 07.

The trainer writes a checkpoint file by file. When it is stopped in the middle, the folder looks like any other. So a list of the
files and their sizes is written last, and renamed into place: a checkpoint counts only if it has all that its list names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback

from .checks import TrainingError

LIST = "whole.json"
SPARE = 1.1  # files are a little larger than their tensors


def guard(trainer: Trainer) -> Trainer:
    """Let a trainer mark whole checkpoints, stop before a step with a gradient that is no number, and see a full disk in time.

    Each stop is a TrainingError; weights and earlier checkpoints are then those of the step before. transformers itself shows such
    a loss as if it were fine (`logging_nan_inf_filter`). Returns the trainer. Explained in lesson 07.
    """
    trainer.add_callback(_Guard())
    return trainer


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint in a trainer's `output_dir`, for `trainer.train(resume_from_checkpoint=…)`; None when there is none.

    Only checkpoints of a guarded trainer count: a folder without its list, or with a file missing or shorter, is passed over. Explained in lesson 07.
    """
    found = [path for path in _checkpoints(Path(folder)) if _is_whole(path)]
    return str(max(found, key=_step)) if found else None


class _Guard(TrainerCallback):
    """See `guard`."""

    def on_train_begin(self, args, state, control, model=None, **_):
        # later checkpoints of an earlier run in this folder will be written over, file by file
        for path in _checkpoints(Path(args.output_dir)):
            if _step(path) > state.global_step:
                (path / LIST).unlink(missing_ok=True)
        if args.save_strategy != "no":
            self._require_room(args, model)

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        for name, weight in model.named_parameters():
            if weight.grad is not None and not torch.isfinite(weight.grad).all():
                raise TrainingError(
                    f"Step {state.global_step + 1}: expected finite gradients, got a value that is no number (in {name}). The weights are those "
                    "of the step before. Fix: lower the learning rate; if it happens at step 1, look for a row without a trained token, or "
                    "for float16, which overflows where bfloat16 and float32 do not."
                )

    def on_step_end(self, args, state, control, model=None, **_):
        if control.should_save:
            self._require_room(args, model)

    def on_save(self, args, state, control, **_):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LIST}
        part = folder / (LIST + ".part")
        part.write_text(json.dumps(sizes), encoding="utf-8")
        os.replace(part, folder / LIST)

    def _require_room(self, args, model) -> None:
        weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        need = SPARE * weights * (1 if args.save_only_model else 3)  # AdamW keeps two numbers per trained weight
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < need:
            raise TrainingError(
                f"{folder}: expected {need / 1e6:.0f} MB free for a checkpoint, got {free / 1e6:.0f} MB. Nothing was half-written; the newest whole "
                f"checkpoint is {last_checkpoint(folder) or 'none'}. Fix: free some space, name another output_dir, or set save_total_limit=2."
            )


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


def _is_whole(path: Path) -> bool:
    try:
        sizes = json.loads((path / LIST).read_text(encoding="utf-8"))
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
