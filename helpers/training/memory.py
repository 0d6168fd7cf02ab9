"""What a training step holds in memory: the tensors kept for the backward pass, and the peak of the process. Explained in lesson 07."""

from __future__ import annotations

import ctypes
import gc
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import torch

from .settings import peak_memory_gb


@contextmanager
def kept_for_backward(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Count what a forward pass inside the `with` block keeps for the backward pass: the activations.

    Gives a dictionary of memory blocks, address -> bytes; the sum of its values is what is kept. A block that several
    operations keep is counted once, weights are not counted. Call `backward()` after the block, not inside it: it computes
    checkpointed activations anew. Explained in lesson 07; follows PyTorch's tutorial "Hooks for autograd saved tensors".
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield kept


def free_memory() -> None:
    """Collect what nothing uses any more, and give freed memory back to the system (where the C library can: Linux with glibc)."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory for later
    except (OSError, AttributeError, TypeError):
        pass


@contextmanager
def peak_memory() -> Iterator[list[float | None]]:
    """The peak resident memory of this process during the `with` block, in GB (1e9 bytes), as the one item of the list that it gives.

    Memory that was freed before is given back to the system first, so that it is not counted. None where the system cannot start
    the count anew (all but Linux). Explained in lesson 07.
    """
    peak: list[float | None] = [None]
    free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # see `man 5 proc`: sets the peak to what is used now
        known = True
    except OSError:
        known = False
    try:
        yield peak
    finally:
        peak[0] = round(peak_memory_gb(), 2) if known else None
