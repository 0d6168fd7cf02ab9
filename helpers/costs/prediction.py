"""What a training run will cost, from the model's configuration alone. Explained in lesson 07."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import CostsError
from .machine import Machine
from .memory import Memory, memory_of
from .money import price
from .setup import Setup, make_setup, trainable
from .shape import Shape, shape_of
from .time import time_of


@dataclass(frozen=True)
class Prediction:
    """The predicted costs of a setup. `memory` is in bytes; `times` holds the seconds of one step by part, None without a calibrated machine.

    `parameters` counts the model without its adapter, `trained` what is trained, `tokens` those of one step.
    """

    shape: Shape
    setup: Setup
    parameters: int
    trained: int
    tokens: int
    memory: Memory
    times: dict[str, float] | None = None

    @property
    def peak_gb(self) -> float:
        """Predicted peak memory of the process in GB (1e9 bytes)."""
        return self.memory.peak / 1e9

    @property
    def seconds(self) -> float | None:
        """Predicted seconds of one step of the optimizer; None without a calibrated machine, which is measured in float32 only."""
        return None if self.times is None else sum(self.times.values())

    def cost(self, tokens: float, per_hour: float) -> float:
        """What training on `tokens` tokens (all epochs, padding included) costs at a price per hour. Raises CostsError without a calibrated machine."""
        if self.seconds is None:
            raise CostsError("cost: expected a prediction with seconds, got one without. Fix: predict(..., machine=costs.calibrate()), in float32.")
        return price(tokens / self.tokens * self.seconds, per_hour)

    @property
    def dominant(self) -> str:
        """The part that takes most memory: "weights", "gradients", "optimizer", "activations", "logits" …"""
        parts = self.memory.parts
        return max(parts, key=parts.get)


def predict(config: Any, setup: Setup | None = None, *, machine: Machine | None = None, **knobs: Any) -> Prediction:
    """Predict what training a model costs; the model is not loaded.

    `config`: a transformers config, or the dictionary of a `config.json`, of a Llama-like model. The knobs are those of `Setup` and
    change `setup`: `predict(config, method="full", batch=8)`. `machine`: from `calibrate()`; without it no time is predicted.
    Raises CostsError for configs and knobs that cannot be.
    """
    shape, setup = shape_of(config), make_setup(setup, knobs)
    times = time_of(shape, setup, machine) if machine is not None and setup.precision == "float32" else None
    return Prediction(shape, setup, shape.parameters, trainable(shape, setup), setup.tokens, memory_of(shape, setup), times)
