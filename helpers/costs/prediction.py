"""What a training run will cost, from the model's configuration alone. Explained in lesson 07."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .memory import PROCESS, Memory, memory_of
from .setup import Setup, make_setup, trainable
from .shape import Shape, shape_of


@dataclass(frozen=True)
class Prediction:
    """The predicted costs of a setup. Memory in bytes, times in seconds; `seconds` (of one step) is None without a calibrated machine.

    `parameters` counts the model without its adapter, `trained` what is trained, `tokens` those of one step.
    """

    shape: Shape
    setup: Setup
    parameters: int
    trained: int
    tokens: int
    memory: Memory
    seconds: float | None = None

    @property
    def peak_gb(self) -> float:
        """Predicted peak memory of the process in GB (1e9 bytes)."""
        return self.memory.peak / 1e9

    @property
    def dominant(self) -> str:
        """The largest part of the memory at its peak: "weights", "gradients", "optimizer", "activations", "logits" …"""
        parts = self.memory.at_peak
        return max(parts, key=parts.get)


def predict(config: Any, setup: Setup | None = None, *, machine: Any = None, **knobs: Any) -> Prediction:
    """Predict what training a model costs; the model is not loaded.

    `config`: a transformers config, or the dictionary of a `config.json`, of a Llama-like model. The knobs are those of `Setup` and
    change `setup`: `predict(config, method="full", batch=8)`. `machine`: from `calibrate()`; without it no time is predicted.
    Raises CostsError for configs and knobs that cannot be.
    """
    shape, setup = shape_of(config), make_setup(setup, knobs)
    process = getattr(machine, "process", None) or PROCESS
    return Prediction(shape, setup, shape.parameters, trainable(shape, setup), setup.tokens, memory_of(shape, setup, process))
