"""What a training step holds in memory: the tensors kept for the backward pass, and the peak of the process. Explained in lesson 07."""

from __future__ import annotations

import ctypes
import gc
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import torch
from transformers import PreTrainedModel

from .settings import peak_memory_gb


@contextmanager
def kept_for_backward(model: PreTrainedModel) -> Iterator[dict[int, int]]:
    """Count what a forward pass inside the `with` block keeps for the backward pass: the activations.

    Gives a dictionary of memory blocks, address -> bytes; the sum of its values is what is kept. A block that several
    operations keep is counted once, weights are not counted. Where activations are checkpointed, the inputs of the decoder
    layers are all that is kept of them, and they are counted too. Call `backward()` after the block, not inside it: it
    computes checkpointed activations anew. Explained in lesson 07; follows PyTorch's tutorial "Hooks for autograd saved tensors".
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def count_input(_, inputs: tuple[torch.Tensor, ...]) -> None:
        count(inputs[0])

    handles = [layer.register_forward_pre_hook(count_input) for layer in model.modules() if hasattr(layer, "self_attn")]
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def peak_memory() -> Iterator[list[float | None]]:
    """The peak resident memory of this process during the `with` block, in GB (1e9 bytes), as the one item of the list that it gives.

    Memory that was freed before is given back to the system first, so that it is not counted. None where the system cannot start
    the count anew (all but Linux). Explained in lesson 07.
    """
    peak: list[float | None] = [None]
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory for later
        Path("/proc/self/clear_refs").write_text("5")  # see `man 5 proc`: sets the peak to what is used now
        known = True
    except (OSError, AttributeError, TypeError):
        known = False
    try:
        yield peak
    finally:
        peak[0] = round(peak_memory_gb(), 2) if known else None
