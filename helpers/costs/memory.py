"""Bytes of a training step, part by part: weights, gradients, optimizer state, activations, logits. Explained in lesson 07.

An activation is what a layer computed on the way forward and needs again on the way back. The formulas count the tensors that
PyTorch keeps for that in transformers' Llama; a test compares them with what it really keeps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from .setup import Setup, trainable
from .shape import LINEARS, Shape

PROCESS = 0.60e9  # Python with torch, transformers, peft, trl and bitsandbytes imported, measured on Linux
HOLES = {"full": 0.2, "lora": 0.85, "qlora": 0.85, "dora": 0.5}  # bytes of holes for a byte of activations, measured with Linux's allocator
TILE = (4096, 32768)  # tokens and vocabulary entries that TRL 1.16 scores at once


@dataclass(frozen=True)
class Memory:
    """Bytes by part; `peak` is their sum, because memory that was freed mostly stays with the process.

    `process` is Python and its libraries; `mapped` the file of float32 weights that QLoRA packs from, which stays in view;
    `workspace` what a single operation needs for a moment; `holes` what freed tensors leave between those that are kept.
    """

    process: float
    mapped: float
    weights: float
    optimizer: float
    gradients: float
    activations: float
    logits: float
    workspace: float
    holes: float

    @property
    def parts(self) -> dict[str, float]:
        """All parts by name, in bytes."""
        return asdict(self)

    @property
    def peak(self) -> float:
        """Peak memory of the process in bytes; in "bfloat16", where tensors on an accelerator are counted, of those alone."""
        return sum(self.parts.values())


def memory_of(shape: Shape, setup: Setup) -> Memory:
    """The memory of a step of a setup, in bytes.

    In "bfloat16" only tensors are counted: the process, the file and the holes lie in the main memory, not on the accelerator.
    """
    trained, here = trainable(shape, setup), setup.precision != "bfloat16"
    activations = activation_bytes(shape, setup)
    return Memory(
        process=PROCESS if here else 0.0, mapped=4 * shape.parameters if here and setup.method == "qlora" else 0.0,
        weights=weight_bytes(shape, setup), optimizer=optimizer_bytes(shape, trained, setup), gradients=gradient_bytes(trained, setup),
        activations=activations, logits=logit_bytes(shape, setup), workspace=workspace_bytes(shape, setup),
        holes=HOLES[setup.method] * activations if here else 0.0)


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
    tokens, masked, full = setup.batch * setup.length, setup.batch > 1, setup.method == "full"
    hidden, inner, q, kv = shape.hidden, shape.inner, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    narrow = 4 if setup.precision == "float32" else 2
    attention = narrow * (2 * q + 2 * (q if masked else kv))  # with a mask (padding), keys and values are repeated for every head
    mlp = (4 if (setup.method, setup.precision) == ("qlora", "autocast") else narrow) * 3 * inner
    norms = 2 * hidden * (4 + ((2 if setup.precision == "bfloat16" else 4) if full else 0))  # computed in float32 always
    mask = narrow * tokens * setup.length if masked else 0
    statistics = 4 * (2 + shape.heads)
    return tokens * (attention + mlp + norms + inputs_bytes(shape, setup) + statistics) + mask


def inputs_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes a token that the linear modules of a layer keep for the gradients of what is trained in them: their inputs, and DoRA's parts."""
    hidden, full, modules = shape.hidden, setup.method == "full", setup.modules
    read = [{name for name in group if full or name in modules} for group in (LINEARS[:3], LINEARS[4:6])]
    wide = 4 if setup.precision == "float32" or (setup.precision == "bfloat16" and not full) else 2  # PEFT casts to its float32 adapters
    if setup.precision == "float32" or (full and setup.precision == "bfloat16"):  # modules that read the same tensor share it
        kept = sum(hidden for group in read if group) + (shape.inner if full or "down_proj" in modules else 0)
    else:
        sizes = [hidden for group in read for _ in group] if full else [shape.linears[name][0] for name in modules]
        kept = sum(sizes) + (shape.inner if full else 0)
    outputs = sum(shape.linears[name][1] for name in modules) if setup.method == "dora" else 0  # kept twice: from the base and from the adapter
    return wide * (kept + setup.rank * len(modules)) + {"float32": 8, "autocast": 4, "bfloat16": 6}[setup.precision] * outputs


def activation_bytes(shape: Shape, setup: Setup) -> float:
    """Bytes kept for the way back; with checkpointing the input of every layer, and one layer whole."""
    layer, tokens = layer_bytes(shape, setup), setup.batch * setup.length
    if setup.precision == "autocast" and setup.method != "qlora":
        layer += 2 * shape.linear_parameters / shape.layers  # the weights, cast for the product
    wide = 2 if setup.precision == "bfloat16" else 4
    last = tokens * shape.hidden * (2 * 4 + (wide if setup.method == "full" else 0))  # the last norm, and the input of the output layer
    return last + (shape.layers * wide * tokens * shape.hidden + layer if setup.checkpointing else shape.layers * layer)


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
