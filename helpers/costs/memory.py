"""Bytes of a training step, part by part: weights, gradients, optimizer state, activations, logits. Explained in lesson 07.

An activation is what a layer computed on the way forward and needs again on the way back. The formulas count the tensors that
PyTorch keeps for that in transformers' Llama; a test compares them with what it really keeps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from .setup import Setup, trainable
from .shape import Shape

PROCESS = 0.75e9  # Python with torch, transformers, peft, trl and bitsandbytes imported; `calibrate` measures it
TILE = (4096, 32768)  # tokens and vocabulary entries that TRL 1.16 scores at once


@dataclass(frozen=True)
class Memory:
    """Bytes by part, each at its largest. `peak` is less than their sum: gradients grow while activations go.

    `process` is Python and its libraries, `workspace` what a single operation needs for a moment.
    """

    process: float
    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float
    kept_gradients: float = 0.0

    @property
    def at_peak(self) -> dict[str, float]:
        """The parts at the moment of the peak, in bytes; they add up to `peak`."""
        still = {"process": self.process, "weights": self.weights}
        forward = still | {"optimizer": self.optimizer, "gradients": self.kept_gradients, "activations": self.activations, "logits": self.logits,
                           "workspace": self.workspace}
        step = still | {"optimizer": self.optimizer, "gradients": self.gradients, "activations": 0.0, "logits": 0.0, "workspace": self.workspace}
        return max(forward, step, key=lambda parts: sum(parts.values()))

    @property
    def peak(self) -> float:
        """Peak memory of the process in bytes."""
        return sum(self.at_peak.values())

    @property
    def parts(self) -> dict[str, float]:
        """All parts by name, in bytes, each at its largest."""
        return {name: value for name, value in asdict(self).items() if name != "kept_gradients"}


def memory_of(shape: Shape, setup: Setup, process: float = PROCESS) -> Memory:
    """The memory of one step of a setup, in bytes."""
    trained = trainable(shape, setup)
    gradients = gradient_bytes(trained, setup)
    return Memory(process, weight_bytes(shape, setup), gradients, optimizer_bytes(shape, trained, setup), activation_bytes(shape, setup),
                  logit_bytes(shape, setup), workspace_bytes(shape, setup), gradients if setup.accumulation > 1 else 0.0)


def nf4_bytes(weights: int) -> int:
    """Bytes of one matrix in NF4 with double quantisation: 4 bits a weight, 8 bits a block of 64, 4 bytes for 256 blocks, and three small tables.

    Dettmers et al. 2023, arXiv:2305.14314: 0.516 bytes a weight.
    """
    blocks = math.ceil(weights / 64)
    return math.ceil(weights / 2) + blocks + 4 * math.ceil(blocks / 256) + 4 * (16 + 256 + 1)


def weight_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes of all weights that are held, the adapter's too; QLoRA's linear modules in NF4."""
    wide = 2 if setup.precision == "bfloat16" else 4
    adapter = 0 if setup.method == "full" else 4 * trainable(shape, setup)  # PEFT keeps adapters in float32
    if setup.method != "qlora":
        return wide * shape.parameters + adapter
    packed = shape.layers * sum(nf4_bytes(rows * columns) for rows, columns in shape.linears.values())
    return packed + wide * (shape.parameters - shape.linear_parameters) + adapter


def gradient_bytes(trained: int, setup: Setup) -> float:
    """Bytes of the gradients: one number a trained parameter, in its precision."""
    return trained * (2 if setup.precision == "bfloat16" and setup.method == "full" else 4)


def optimizer_bytes(shape: Shape, trained: int, setup: Setup) -> float:
    """Bytes of the optimizer's state: AdamW two float32 numbers a parameter, in 8 bits two bytes and two scales a block of 256, Adafactor rows and columns."""
    if setup.optimizer == "adamw":
        return 8 * trained
    if setup.optimizer == "adamw_8bit":
        return trained * (2 + 8 / 256)
    if setup.optimizer == "sgd":
        return 0.0
    if setup.method == "full":
        edges = shape.layers * sum(map(sum, shape.linears.values())) + (shape.vocabulary + shape.hidden) * (1 if shape.tied else 2)
        return 4 * (edges + shape.small_parameters)
    sizes = [shape.linears[name] for name in setup.modules]
    whole = sum(outputs for _, outputs in sizes) if setup.method == "dora" else 0
    return 4 * shape.layers * (sum(map(sum, sizes)) + 2 * setup.rank * len(sizes) + whole)


def layer_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes that one layer keeps for the way back, for all tokens of a batch."""
    tokens = setup.batch * setup.length
    hidden, inner, q, kv = shape.hidden, shape.inner, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    kept = q if setup.batch > 1 else kv  # a padded batch needs a mask, and then keys and values are repeated for every head
    narrow = 4 if setup.precision == "float32" else 2
    full, modules = setup.method == "full", setup.modules
    into = lambda *names: sum(name in modules for name in names)  # adapters that read the same input
    attention, mlp = narrow * (2 * q + 2 * kept), narrow * 3 * inner
    down = narrow * inner if full or into("down_proj") else 0
    if setup.precision == "float32":
        norms = 4 * hidden * (2 + (2 if full else 0))
        inputs = 4 * hidden * ((full or into("q_proj", "k_proj", "v_proj") > 0) + (full or into("gate_proj", "up_proj") > 0))
    elif setup.precision == "autocast":  # each linear module casts its input by itself
        norms = 4 * hidden * (2 + (2 if full else 0))
        inputs = 2 * hidden * (5 if full else into("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"))
    else:
        norms = 4 * hidden * 2 + (2 * hidden * 2 if full else 0)
        inputs = 2 * hidden * 2 if full else 4 * hidden * (bool(into("q_proj", "k_proj", "v_proj")) + bool(into("gate_proj", "up_proj")))
    adapters = sum(setup.rank + (2 * shape.linears[name][1] if setup.method == "dora" else 0) for name in modules) * narrow
    mask = 4 * setup.length * setup.batch * setup.length if setup.batch > 1 else 0
    return tokens * (attention + mlp + down + norms + inputs + adapters + 4 * (2 + shape.heads)) + mask


def activation_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes kept for the way back; with checkpointing the input of every layer, and one layer whole."""
    layer = layer_bytes(shape, setup)
    if not setup.checkpointing:
        return shape.layers * layer
    wide = 2 if setup.precision == "bfloat16" else 4
    return shape.layers * wide * setup.batch * setup.length * shape.hidden + layer


def logit_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes of the scores over the vocabulary: log-probabilities, and on the way back two gradients of the same size; in float32 always."""
    if setup.loss == "tiles":
        rows, columns = min(setup.scored, TILE[0]), min(shape.vocabulary, TILE[1])
        return 4 * 4 * rows * columns
    return 3 * 4 * setup.scored * shape.vocabulary


def workspace_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes that single operations need for a moment: unpacked NF4 weights, DoRA's whole update, the widest tensors of a layer."""
    largest = max(rows * columns for rows, columns in shape.linears.values())
    wide = 4 if setup.precision == "float32" else 2
    passing = 4 * setup.batch * setup.length * shape.inner * wide
    return passing + wide * largest * {"full": 0, "lora": 0, "qlora": 1, "dora": 4}[setup.method]
