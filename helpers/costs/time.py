"""Seconds of a training step on a calibrated machine, part by part. Explained in lesson 07.

Each part is a number of operations, counted from the shape, times what `calibrate` measured for one of them. A matrix product happens once
on the way forward and once on the way back for its input's gradient; full fine-tuning does it a third time, for the weight's gradient.
Checkpointing repeats the way forward.
"""

from __future__ import annotations

import math
from typing import Sequence

from .machine import SIZES, TOKENS, WIDTHS, Machine
from .setup import Setup, trainable
from .shape import Shape

FORWARD = 0.35  # share of the way forward in a part that was measured there and back


def between(x: float, at: Sequence[float], values: Sequence[float]) -> float:
    """The value at x on straight lines between (log at, value), the end values outside."""
    if x <= at[0]:
        return values[0]
    for low, high, a, b in zip(at, at[1:], values, values[1:]):
        if x <= high:
            return a + (b - a) * math.log(x / low) / math.log(high / low)
    return values[-1]


def time_of(shape: Shape, setup: Setup, machine: Machine) -> dict[str, float]:
    """Seconds of one step of the optimizer by part, in float32; their sum is the step's."""
    tokens, again = setup.batch * setup.length, int(setup.checkpointing)
    full, modules = setup.method == "full", setup.modules
    product = lambda rows, columns, at: between(
        math.sqrt(rows * columns * 3 / 8), WIDTHS, [between(at, TOKENS, by_width) for by_width in machine.products])
    touch = lambda numbers: numbers * between(numbers, SIZES, machine.touch)
    pair = lambda measured, numbers: numbers * between(numbers, (256 * 576, 2048 * 2048), measured)
    hidden, inner, q, kv = shape.hidden, shape.inner, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    once = 2 + again + full
    products = sum(once * tokens * rows * columns * product(rows, columns, tokens) for rows, columns in shape.linears.values())
    passing = 1 + FORWARD * again
    attention = (setup.batch * shape.heads * setup.length**2 * shape.head_dim * between(setup.length, (128, 512), machine.attention)
                 * (1 if setup.batch > 1 else 0.6) + (4 * touch(tokens * q) if setup.batch > 1 else 0))
    elementwise = (2 * pair(machine.norm, tokens * hidden) + pair(machine.rotary, tokens * (q + kv)) + pair(machine.gate, tokens * inner)
                   + 6 * touch(tokens * hidden) + (4 * touch(tokens * hidden) if full else 0)) * passing
    sizes = [shape.linears[name] for name in modules]
    adapters = sum(
        (3 + again) * tokens * setup.rank * (rows + columns) * machine.thin + passing * (1.5 * touch(tokens * rows) + 3.5 * touch(tokens * columns))
        for rows, columns in sizes)
    if setup.method == "dora":
        adapters += sum(
            (1 + again) * (setup.rank * rows * (rows + columns) * machine.thin + touch(rows * rows) + 3.5 * touch(rows * columns))
            + passing * 10 * touch(tokens * columns) for rows, columns in sizes)
    unpack = 0.0
    if setup.method == "qlora":
        unpack = (2 + again) * machine.unpack * shape.linear_parameters / shape.layers + sum(passing * touch(tokens * columns) for _, columns in sizes)
    calls = (45 + (10 + (20 if setup.method == "dora" else 0)) * len(modules)) * machine.call * passing
    layer = {"products": products, "attention": attention, "elementwise": elementwise + calls, "adapters": adapters, "unpack": unpack}
    parts = {name: seconds * shape.layers for name, seconds in layer.items()}
    parts["scores"] = _scores(shape, setup, machine, product, touch)
    if full:
        parts["products"] += 1.5 * touch(max(rows * columns for rows, columns in shape.linears.values())) * shape.linear_parameters / max(
            rows * columns for rows, columns in shape.linears.values())
    parts = {name: seconds * setup.accumulation for name, seconds in parts.items()}
    return parts | {"update": trainable(shape, setup) * machine.update[setup.optimizer]}


def _scores(shape: Shape, setup: Setup, machine: Machine, product, touch) -> float:
    """The output layer and the loss: products with the embeddings, and the way from scores to their gradients and back."""
    scored, size = setup.scored, shape.hidden * shape.vocabulary
    times = (3 if setup.loss == "tiles" else 2) + (setup.method == "full")
    numbers = scored * shape.vocabulary
    embedding = 4 * touch(size) if setup.method == "full" else 0.0
    return times * scored * size * product(shape.hidden, shape.vocabulary, scored) + numbers * machine.scores + embedding
