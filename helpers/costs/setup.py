"""How a model is trained: the knobs that its costs depend on. Explained in lesson 07."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import CostsError
from .shape import LINEARS, Shape

METHODS = ("full", "lora", "qlora", "dora")
PRECISIONS = ("float32", "autocast", "bfloat16")
OPTIMIZERS = ("adamw", "adamw_8bit", "adafactor", "sgd")
LOSSES = ("answer", "tiles", "all")


@dataclass(frozen=True)
class Setup:
    """The knobs of a training run.

    `method`: "full" trains all weights; "lora", "qlora" (NF4 weights with double quantisation) and "dora" an adapter of rank `rank` at
    `targets` ("all-linear", or names of linear modules such as ("q_proj", "v_proj")).
    `batch` rows of `length` tokens go through the model at once; `accumulation` such batches make one step of the optimizer.
    `answer` tokens of each row carry a label (None: all). `loss` says where scores over the vocabulary are computed:
    "answer" only there, all at once (`training.answer_loss_only`); "tiles" at every position, piece by piece (TRL 1.16 on a CPU);
    "all" at every position at once (the model's own loss).
    `precision`: "float32"; "autocast" keeps weights in float32 and computes in bfloat16 (`bf16=True` in a trainer);
    "bfloat16" keeps the weights in bfloat16 too, with Adam's state in float32, as the memory of GPU runs is usually counted.
    `checkpointing` keeps only the input of each layer and computes the rest again.
    `optimizer`: "adamw", "adamw_8bit" (bitsandbytes), "adafactor", "sgd" (no momentum).
    """

    method: str = "lora"
    rank: int = 16
    targets: str | tuple[str, ...] = "all-linear"
    precision: str = "float32"
    batch: int = 4
    length: int = 256
    answer: int | None = None
    loss: str = "answer"
    checkpointing: bool = False
    optimizer: str = "adamw"
    accumulation: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (("method", METHODS), ("precision", PRECISIONS), ("optimizer", OPTIMIZERS), ("loss", LOSSES)):
            if getattr(self, name) not in allowed:
                raise CostsError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}. Fix: {name}={allowed[0]!r}.")
        for name in ("rank", "batch", "length", "accumulation"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CostsError(f"{name}: expected a whole number above 0, got {value!r}. Fix: {name}={getattr(type(self), name)}.")
        if self.answer is not None and not 1 <= self.answer <= self.length:
            raise CostsError(f"answer: expected between 1 and the length of a row, {self.length} tokens, got {self.answer!r}. "
                             "Fix: answer=None scores every position.")
        if self.targets != "all-linear":
            names = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
            if not names or (wrong := [name for name in names if name not in LINEARS]):
                raise CostsError(f"targets: expected 'all-linear' or names among {', '.join(LINEARS)}, got {wrong if names else 'none'}. "
                                 "Fix: targets='all-linear'.")
            object.__setattr__(self, "targets", tuple(name for name in LINEARS if name in names))

    @property
    def modules(self) -> tuple[str, ...]:
        """The linear modules of a layer that carry an adapter; none for "full"."""
        return () if self.method == "full" else LINEARS if self.targets == "all-linear" else self.targets

    @property
    def tokens(self) -> int:
        """Tokens of one step of the optimizer, padding included."""
        return self.batch * self.length * self.accumulation

    @property
    def scored(self) -> int:
        """Positions of one batch whose scores over the vocabulary are computed."""
        return self.batch * ((self.answer or self.length) if self.loss == "answer" else self.length)


def make_setup(setup: Setup | None, knobs: dict[str, Any]) -> Setup:
    """The setup with the knobs changed. Raises CostsError for a knob that does not exist."""
    known = [field.name for field in fields(Setup)]
    if unknown := [name for name in knobs if name not in known]:
        raise CostsError(f"expected knobs among {', '.join(known)}, got {', '.join(unknown)}. Fix: see help(costs.Setup).")
    return replace(setup or Setup(), **knobs)


def trainable(shape: Shape, setup: Setup) -> int:
    """How many parameters are trained: two matrices of the rank per target module, with DoRA one magnitude per output besides."""
    if setup.method == "full":
        return shape.parameters
    sizes = [shape.linears[name] for name in setup.modules]
    extra = sum(outputs for _, outputs in sizes) if setup.method == "dora" else 0
    return shape.layers * (setup.rank * sum(map(sum, sizes)) + extra)
