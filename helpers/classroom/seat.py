"""What only a try can tell of a seat: a kernel starts and computes, the model trains a step. Runs inside the environment.

`course.py preflight` runs this after the checks of `course.py doctor`. Each check is printed as one line of JSON as soon as it is
known, so that a check that hangs does not hide the others.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any, Callable

from helpers import fetch

Row = tuple[str, str, str, str]  # check, found, verdict (ok, note or bad), fix
ANEW = "delete the folder .venv and run: python course.py setup"


def kernel(limit: float = 25.0) -> Row:
    """Start a kernel as a notebook does and let it compute; `limit` in seconds."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=limit)
    try:
        said: list[str] = []
        client.execute_interactive("print(6 * 7)", timeout=limit, output_hook=lambda message: said.append(message["content"].get("text", "")))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    good = "".join(said).strip() == "42"
    return "kernel", "starts and computes" if good else f"expected 42, got {''.join(said)!r}", "ok" if good else "bad", "" if good else ANEW


def model_step(model: Any = None, rows: int = 4, length: int = 96, seconds: float = 5.0) -> Row:
    """Train LoRA steps of `rows` x `length` tokens for about `seconds`, after one that is not counted. Lesson 05 explains the steps.

    The default is the course's own model; a `torch.nn.Module` of transformers can be given instead.
    """
    if model is None:
        if not fetch.converted():
            return "model step", "not tried: the base model is not there", "note", "run: python course.py setup"
        import torch

        from helpers import models

        model = models.load_model(fetch.converted_dir(), models.Hardware("cpu", torch.float32))
    steps, spent, loss = _train(model, rows, length, seconds)
    good = math.isfinite(loss)
    found = f"{steps * rows * length / spent:.0f} tokens per second in training" if good else f"expected a finite loss, got {loss}"
    return "model step", found, "ok" if good else "bad", "" if good else ANEW


def _train(model: Any, rows: int, length: int, seconds: float) -> tuple[int, float, float]:
    """(steps, their seconds, last loss); at least one step."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.arange(rows * length).reshape(rows, length) % model.config.vocab_size

    def step() -> float:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step()
    started, steps, loss = time.perf_counter(), 0, math.nan
    while steps == 0 or time.perf_counter() - started < seconds:
        loss, steps = step(), steps + 1
    return steps, time.perf_counter() - started, loss


def guarded(name: str, check: Callable[[], Row]) -> Row:
    """The check's row; a check that raises is a bad row with the reason."""
    try:
        return check()
    except Exception as error:  # whatever an installation can raise is what this check looks for
        return name, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}", "bad", ANEW


def main() -> None:
    """Print one line of JSON per check."""
    for name, check in (("kernel", kernel), ("model step", model_step)):
        print(json.dumps(guarded(name, check)), flush=True)
