"""4-bit models on a CPU: computed as on any other machine, and how many bytes they hold. Explained in lesson 06."""

from __future__ import annotations

import torch


def keep_float32(model: torch.nn.Module) -> int:
    """Let the 4-bit layers of a model compute in the precision they are asked for; return how many layers there are.

    On a processor with AVX512-BF16 instructions, bitsandbytes 0.50 changes a 4-bit layer at its first use in evaluation mode: the
    layer packs its codes anew, rounds the scales to bfloat16 and multiplies in bfloat16 from then on. Answers then differ from
    those of other processors, no gradient passes the layer any more (torch warns of it once), and merging an adapter into it gives
    wrong weights. Call this right after loading. Elsewhere it changes nothing. A model without 4-bit layers returns 0.
    """
    import bitsandbytes

    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    for layer in layers:
        if getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False):
            raise ValueError("keep_float32: expected a model that was not used yet, got 4-bit layers that were packed anew by an evaluation. "
                             "Fix: load the model again and call keep_float32 before anything else.")
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def stored_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights as they lie in memory, shared ones counted once; 4-bit layers with their scales and tables."""
    tensors = list(model.parameters())
    for state in (getattr(p, "quant_state", None) for p in model.parameters()):
        for part in (state, getattr(state, "state2", None)):
            tensors += [t for t in vars(part).values() if isinstance(t, torch.Tensor)] if part else []
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
