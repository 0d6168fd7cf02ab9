"""Which single knob saves most memory, and what it costs in time. Explained in lesson 07."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .prediction import Prediction, predict


@dataclass(frozen=True)
class Knob:
    """One knob turned alone. `saved` bytes of peak memory; `slower` is the seconds per token of the changed setup over the old one's, None
    without a calibrated machine; `prediction` is of the changed setup. `price` says what is lost besides time."""

    change: str
    saved: float
    slower: float | None
    price: str
    prediction: Prediction

    def __str__(self) -> str:
        time = "" if self.slower is None else f", {self.slower:.2f} × the time per token"
        return f"{self.change}: {self.saved / 1e9:.2f} GB less{time}" + (f" ({self.price})" if self.price else "")


def advice(config: Any, setup: Any = None, *, machine: Any = None, **knobs: Any) -> list[Knob]:
    """Every knob turned alone, the largest saving of peak memory first; those that save nothing are left out.

    Arguments and errors as for `predict`. A halved batch is accumulated twice, so that the optimizer sees the same rows in a step.
    """
    now = predict(config, setup, machine=machine, **knobs)
    found = []
    for change, changed, price in _turns(now.setup):
        after = predict(config, replace(now.setup, **changed), machine=machine)
        saved = now.memory.peak - after.memory.peak
        slower = None if now.seconds is None or after.seconds is None else (after.seconds / after.tokens) / (now.seconds / now.tokens)
        if saved > 0:
            found.append(Knob(change, saved, slower, price, after))
    return sorted(found, key=lambda knob: -knob.saved)


def _turns(setup: Any) -> list[tuple[str, dict[str, Any], str]]:
    """What can be turned in a setup: a name, the changed knobs, and what it costs besides time."""
    turns = [("checkpointing on", {"checkpointing": True}, "")] if not setup.checkpointing else []
    if setup.batch > 1:
        turns.append(("half the batch", {"batch": setup.batch // 2, "accumulation": setup.accumulation * 2}, ""))
    if setup.length > 1:
        half = setup.length // 2
        turns.append(("half the length", {"length": half, "answer": setup.answer and min(setup.answer, half)}, "longer rows are cut off"))
    if setup.loss != "answer":
        turns.append(("scores only at the answer", {"loss": "answer"}, ""))
    methods = {"full": ("lora", "qlora"), "dora": ("lora", "qlora"), "lora": ("qlora",), "qlora": ()}[setup.method]
    turns += [(f"method {name}", {"method": name}, "other weights are trained; measure the score") for name in methods]
    if setup.optimizer == "adamw":
        turns += [(f"optimizer {name}", {"optimizer": name}, "the state is coarser; measure the score") for name in ("adamw_8bit", "adafactor")]
    if setup.precision == "float32":
        turns.append(("autocast to bfloat16", {"precision": "autocast"}, "needs a processor with bfloat16"))
    return turns
