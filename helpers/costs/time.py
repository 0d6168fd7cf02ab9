"""Seconds of a training step on a calibrated machine, part by part. Explained in lesson 07.

Each part is a number of operations, counted from the shape, times what `calibrate` measured for one of them. A matrix product happens once
on the way forward and once on the way back for its input's gradient; full fine-tuning does it a third time, for the weight's gradient.
Checkpointing repeats the way forward.
"""

from __future__ import annotations

import math
from typing import Sequence

from .machine import SIZES, TOKENS, WIDTHS, Machine
from .sample import CONFIG, SAMPLES
from .setup import Setup, trainable
from .shape import Shape, shape_of

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
    share = beside_the_parts(setup, machine)
    parts = {name: seconds * share * shape.layers for name, seconds in _layer(shape, setup, machine).items()}
    parts["scores"] = _scores(shape, setup, machine)
    parts = {name: seconds * setup.accumulation for name, seconds in parts.items()}
    return parts | {"update": trainable(shape, setup) * machine.update[setup.optimizer]}


def beside_the_parts(setup: Setup, machine: Machine) -> float:
    """How much longer a whole layer takes here than its parts measured alone; from the one-layer samples of the calibration."""
    shape = shape_of(CONFIG)
    ratio = {name: machine.layers[name] / sum(_layer(shape, sample, machine).values()) for name, sample in SAMPLES.items()}
    return ratio[setup.method] * (ratio["checkpointing"] / ratio["lora"] if setup.checkpointing else 1)


def _product(machine: Machine, rows: int, columns: int, tokens: int) -> float:
    return between(math.sqrt(rows * columns * 3 / 8), WIDTHS, [between(tokens, TOKENS, by_width) for by_width in machine.products])


def _touch(machine: Machine, numbers: float) -> float:
    return numbers * between(numbers, SIZES, machine.touch)


def _layer(shape: Shape, setup: Setup, machine: Machine) -> dict[str, float]:
    """Seconds of one layer's parts, each as fast as when it was measured alone."""
    tokens, again = setup.batch * setup.length, int(setup.checkpointing)
    passing = 1 + FORWARD * again
    full, masked = setup.method == "full", setup.batch > 1
    touch = lambda numbers: _touch(machine, numbers)
    pair = lambda measured, numbers: numbers * between(numbers, (256 * 576, 2048 * 2048), measured)
    hidden, inner, q, kv = shape.hidden, shape.inner, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    linears, sizes = shape.linears.values(), [shape.linears[name] for name in setup.modules]
    products = sum((2 + again + full) * tokens * rows * columns * _product(machine, rows, columns, tokens) for rows, columns in linears)
    if full:  # gradients lie in fresh memory
        products += sum(1.5 * touch(rows * columns) for rows, columns in linears)
    pairs = setup.batch * shape.heads * setup.length**2 * shape.head_dim
    attention = pairs * between(setup.length, (128, 512), machine.attention) * (1 if masked else 0.6) + 4 * touch(tokens * q) * masked
    elementwise = (2 * pair(machine.norm, tokens * hidden) + pair(machine.rotary, tokens * (q + kv)) + pair(machine.gate, tokens * inner)
                   + (6 + 4 * full) * touch(tokens * hidden) + (45 + (30 if setup.method == "dora" else 10) * len(sizes)) * machine.call)
    adapters = sum((3 + again) * tokens * setup.rank * (rows + columns) * machine.thin
                   + passing * (1.5 * touch(tokens * rows) + 3.5 * touch(tokens * columns)) for rows, columns in sizes)
    if setup.method == "dora":  # the whole update is computed to find its length
        adapters += sum((1 + again) * (setup.rank * rows * (rows + columns) * machine.thin + touch(rows * rows) + 3.5 * touch(rows * columns))
                        + passing * 10 * touch(tokens * columns) for rows, columns in sizes)
    unpack = 0.0
    if setup.method == "qlora":
        unpack = (2 + again) * machine.unpack * shape.linear_parameters / shape.layers + sum(passing * touch(tokens * columns) for _, columns in sizes)
    return {"products": products, "attention": attention * passing, "elementwise": elementwise * passing, "adapters": adapters, "unpack": unpack}


def _scores(shape: Shape, setup: Setup, machine: Machine) -> float:
    """The output layer and the loss: products with the embeddings, and the way from scores to their gradients and back."""
    scored, size, full = setup.scored, shape.hidden * shape.vocabulary, setup.method == "full"
    times = (3 if setup.loss == "tiles" else 2) + full
    products = times * scored * size * _product(machine, shape.hidden, shape.vocabulary, scored)
    return products + scored * shape.vocabulary * machine.scores + 4 * _touch(machine, size) * full
