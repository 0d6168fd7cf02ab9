"""The exercises of lab 06: weights in 4 bits, what they take, and where the trained adapter may be merged into. Lesson 06 explains them."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Callable

import torch

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab06"
Tensor = torch.Tensor

# ---------------------------------------------------------------- 1: codes and scales


def nf4() -> Tensor:
    """The 16 levels of NF4, ascending (lesson 06)."""
    quantile, outermost = NormalDist().inv_cdf, 0.9677083
    above = [quantile(p) for p in torch.linspace(outermost, 0.5, 9).tolist()]
    below = [-quantile(p) for p in torch.linspace(outermost, 0.5, 8).tolist()[:-1]]
    levels = torch.tensor(sorted(above + below))
    return levels / levels.max()


def _nearest(inside: Tensor, levels: Tensor) -> Tensor:
    return torch.bucketize(inside, (levels[:-1] + levels[1:]) / 2)


def _below(inside: Tensor, levels: Tensor) -> Tensor:
    return (torch.bucketize(inside, levels, right=True) - 1).clamp(min=0)


def _above(inside: Tensor, levels: Tensor) -> Tensor:
    return torch.bucketize(inside, levels).clamp(max=len(levels) - 1)


def _coded(blocks: Tensor, scales: Tensor, levels: Tensor, code: Callable[[Tensor, Tensor], Tensor] = _nearest) -> list[Any]:
    return [code(blocks / scales[:, None], levels).flatten().tolist(), scales.tolist()]


def _quantised(w: Tensor, levels: Tensor, block: int, code: Callable[[Tensor, Tensor], Tensor] = _nearest) -> list[Any]:
    blocks = w.view(-1, block)
    return _coded(blocks, blocks.abs().amax(dim=1), levels, code)


def _one_scale(w: Tensor, levels: Tensor, block: int) -> list[Any]:
    return _coded(w.view(1, -1), w.abs().max()[None], levels)


def _scale_of(size: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, int], list[Any]]:
    return lambda w, levels, block: _coded(w.view(-1, block), size(w.view(-1, block)), levels)


def _quantise_cases() -> dict[str, tuple]:
    made = torch.Generator().manual_seed(6)
    small = torch.tensor([0.12, -0.40, 0.33, 0.05, 2.0, 1.3, -0.2, 0.9, -0.03, 0.011, 0.006, -0.021])
    outlier = torch.randn(256, generator=made) * 0.05
    outlier[70] = 3.0
    return {"twelve weights, five even levels, blocks of 4": (small, torch.linspace(-1, 1, 5), 4),
            "512 weights, NF4, blocks of 64": (torch.randn(512, generator=made), nf4(), 64), "one very large weight, NF4, blocks of 32": (outlier, nf4(), 32)}


def _codes_and_scales(value: Any) -> list[list[float]]:
    """Two flat lists; equal scales of all blocks become one."""
    codes, scales = (_flat(plain(part)) for part in value)
    return [codes, scales[:1] if len(set(scales)) == 1 else scales]


def _flat(value: Any) -> list[float]:
    return [item for part in value for item in _flat(part)] if isinstance(value, list) else [value]


exercise_1 = Exercise(
    LAB, 1, 3,
    right=_quantised,
    cases=_quantise_cases,
    returns="the codes, one per weight, and the scales, one per block",
    read=_codes_and_scales,
    rtol=1e-4,
    mistakes=[
        Mistake(_one_scale,
                "You take one scale for all weights. One large weight then pushes all others to the levels near zero: each block has a scale of its own."),
        Mistake(_scale_of(lambda blocks: blocks.amax(dim=1)),
                "Your scale is the largest weight of a block. A block's largest weight may be a negative one: take the largest absolute value.", credit=0.5),
        Mistake(lambda w, levels, block: _quantised(w, levels, block, _below),
                "You take the level below each weight. Take the nearest one: rounding down makes all weights smaller and nearly doubles the error.", credit=0.5),
        Mistake(lambda w, levels, block: _quantised(w, levels, block, _above),
                "You take the level above each weight, as `bucketize` with the levels themselves does. Take the nearest one: its borders are the middles between the levels.",
                credit=0.5),
        Mistake(lambda w, levels, block: [_nearest(w, levels).tolist(), _quantised(w, levels, block)[1]],
                "The scales are right, but your codes are those of the weights as they are. The levels reach from -1 to 1: divide each block by its scale first.", credit=0.25),
        Mistake(lambda w, levels, block: _quantised(w, levels, len(w) // block),
                "Rows and columns are exchanged: you made `block` blocks. You want blocks of `block` weights each: w.reshape(-1, block).", credit=0.25),
        Mistake(_scale_of(lambda blocks: blocks.std(dim=1)),
                "Your scale is the standard deviation. Then large weights lie outside the levels and are cut off: take the largest absolute value.", credit=0.25),
        Mistake(lambda w, levels, block: (lambda codes, scales: [levels[codes].tolist(), scales])(*_quantised(w, levels, block)),
                "These are the nearest levels themselves. A code is the position of the level, a whole number: only that fits into 4 bits.", credit=0.5),
        Mistake(lambda w, levels, block: [[len(levels) - 1] * len(w), _quantised(w, levels, block)[1]],
                "All your codes are the last level. The nearest level has the smallest distance without its sign: take .abs() of the differences before argmin.", credit=0.25),
    ],
    after="bitsandbytes makes the same codes and scales.",
)

# ---------------------------------------------------------------- 2: bits per weight


def _bits(bits: int, block: int, group: int | None) -> float:
    return bits + (32 / block if group is None else 8 / block + 32 / (block * group))


exercise_2 = Exercise(
    LAB, 2, 2,
    right=_bits,
    cases=lambda: {"4 bits, blocks of 64": (4, 64, None), "4 bits, blocks of 64, double": (4, 64, 256), "2 bits, blocks of 32": (2, 32, None),
                   "8 bits, blocks of 128, double, groups of 64": (8, 128, 64), "4 bits, blocks of 32, double, groups of 16": (4, 32, 16)},
    returns="the bits per weight, a number",
    mistakes=[
        Mistake(lambda bits, block, group: bits,
                "You count the codes alone. Each block also stores its scale, or nobody could look the weights up again."),
        Mistake(lambda bits, block, group: bits + 32 / block,
                "Right without double quantisation. With it a scale takes 8 bits, and one more float of 32 bits serves a group of scales.", credit=0.5),
        Mistake(lambda bits, block, group: bits + (32 if group is None else 8) / block,
                "Nearly: the scales are in 8 bits, but they have scales themselves. One float of 32 bits for each group of scales is still to be counted.", credit=0.5),
        Mistake(lambda bits, block, group: bits + (32 / block if group is None else 8 / block + 32 / group),
                "You share the second scale among `group` weights. A group is `group` scales, and each of these serves a whole block: block × group weights.", credit=0.5),
        Mistake(lambda bits, block, group: bits + 32 / block + (0 if group is None else 8 / block + 32 / (block * group)),
                "With double quantisation you count the scales twice, in 32 and in 8 bits. The 8-bit codes replace the floats.", credit=0.5),
        Mistake(lambda bits, block, group: bits + (4 / block if group is None else 1 / block + 4 / (block * group)),
                "You mix bytes and bits: a float32 scale has 4 bytes, and that is 32 bits.", credit=0.5),
        Mistake(lambda bits, block, group: bits + (16 / block if group is None else 8 / block + 16 / (block * group)),
                "You count 16 bits for a scale. bitsandbytes stores scales as float32: 32 bits.", credit=0.5),
    ],
    after="4 bits are 4.5, or with double quantisation about 4.13.",
)

# ---------------------------------------------------------------- 3: the memory of a large model

LARGE = (6_476_005_376, 262_410_240, 39_976_960)  # Llama 2 with 7 billion parameters; the adapter has rank 16 on all linear layers
COURSE = (106_168_320, 28_346_688, 4_884_480)


def _memory(linear: int, other: int, adapter: int, bits: float = 4 + 8 / 64 + 32 / (64 * 256), wide: int = 4, trained: int = 16) -> float:
    return (linear * bits / 8 + other * wide + adapter * trained) / 1e9


exercise_3 = Exercise(
    LAB, 3, 3,
    right=_memory,
    cases=lambda: {"7 billion parameters": LARGE, "the course's model": COURSE, "a vocabulary of half the model": (10**9, 10**9, 10**7)},
    returns="the memory in GB",
    rtol=2e-3,  # 4.13 bits will do
    prediction=Prediction(
        "the memory of the weights, the adapter and its training states in GB", 0, 1000, lambda: _memory(*LARGE),
        typical=[
            (3.2, 3.8, "7 billion times half a byte. The rest is what stays in float32, the scales, and what training keeps for the adapter."),
            (12, 16, "That is the model in 16 bits. Only the scales and a small part of the weights are not in 4 bits."),
            (20, 32, "That is the model in float32."), (80, 130, "That is the training of all weights with AdamW: 16 bytes for each. Here only the adapter has such states."),
        ]),
    mistakes=[
        Mistake(lambda linear, other, adapter: (linear + other) / 2 / 1e9,
                "You count half a byte for every weight, and nothing else. Three things are missing: the scales (4.13 bits instead of 4), `other` in float32, and 16 bytes "
                "for each number of the adapter."),
        Mistake(lambda linear, other, adapter: _memory(linear + other, 0, adapter),
                "You put all weights into 4 bits. Only the linear layers are quantised; what is counted in `other` stays in float32, 4 bytes each.", credit=0.5),
        Mistake(lambda linear, other, adapter: _memory(linear, other, adapter, bits=4),
                "You count 4 bits for a quantised weight and forget the scales: with double quantisation it is 4 + 8/64 + 32/(64 × 256).", credit=0.5),
        Mistake(lambda linear, other, adapter: _memory(linear, other, adapter, bits=4.5),
                "4.5 bits is without double quantisation. With it a weight takes 4 + 8/64 + 32/(64 × 256) bits.", credit=0.5),
        Mistake(lambda linear, other, adapter: _memory(linear, other, adapter, wide=2),
                "You count 2 bytes for `other`. It may be loaded in 16 bits, but `prepare_model_for_kbit_training` turns it into float32: 4 bytes.", credit=0.5),
        Mistake(lambda linear, other, adapter: _memory(linear, other, adapter, trained=4),
                "You count the adapter's weights alone. A number that is trained also has a gradient and AdamW's two means: 16 bytes in all.", credit=0.5),
        Mistake(lambda linear, other, adapter: _memory(linear, other, 0),
                "The adapter is missing. It is small, but each of its numbers takes 16 bytes while it is trained.", credit=0.5),
        Mistake(lambda linear, other, adapter: _memory(linear, other, adapter, bits=8 * (4 + 8 / 64 + 32 / (64 * 256))),
                "You take bits for bytes: divide the bits of the linear weights by 8.", credit=0.25),
        Mistake(lambda linear, other, adapter: _memory(linear, other, adapter) * 1e9,
                "These are bytes. Divide by 1e9 for GB.", credit=0.5),
        Mistake(lambda linear, other, adapter: _memory(linear, other, adapter) * 1e9 / 2**30,
                "You divide by 2 to the power of 30; that is GiB. The course counts in GB: divide by 1e9.", credit=0.5),
    ],
    after="Activations come on top, and they grow with the tokens of a step.",
)

# ---------------------------------------------------------------- 4: a config that relies on defaults


def _config(**knobs: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**({"load_in_4bit": True} | knobs))


def _knobs(value: Any) -> dict[str, Any]:
    return {"bits": 4 if value.load_in_4bit else 8 if value.load_in_8bit else 32, "levels": value.bnb_4bit_quant_type,
            "double quantisation": value.bnb_4bit_use_double_quant, "computes in": str(value.bnb_4bit_compute_dtype).removeprefix("torch.")}


exercise_4 = Exercise(
    LAB, 4, 3,
    right=lambda dtype: _config(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype),
    cases=lambda: {"a GPU, which computes in bfloat16": (torch.bfloat16,), "a CPU, which computes in float32": (torch.float32,)},
    returns="a BitsAndBytesConfig",
    read=_knobs,
    mistakes=[
        Mistake(lambda dtype: _config(),
                "These are the library's defaults: FP4 levels, no double quantisation, and computation in float32 whatever the hardware. Say all three yourself."),
        Mistake(lambda dtype: _config(bnb_4bit_quant_type="nf4"),
                "The levels are NF4 now. Two defaults are left: no double quantisation, and computation in float32 whatever the hardware.", credit=0.25),
        Mistake(lambda dtype: _config(bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype),
                "Double quantisation is still off, which is the default: each weight takes 4.5 bits instead of about 4.13. The name is bnb_4bit_use_double_quant.", credit=0.5),
        Mistake(lambda dtype: _config(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
                "It computes in float32, the default, also where the hardware is made for bfloat16, and is slow there. Pass `dtype` on as bnb_4bit_compute_dtype.", credit=0.5),
        Mistake(lambda dtype: _config(bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype),
                "The levels are still FP4, the default, with the largest error of the three kinds in lesson 06. The name is bnb_4bit_quant_type.", credit=0.5),
        Mistake(lambda dtype: _config(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16),
                "It computes in bfloat16 everywhere, as tutorials for GPUs write it. Use the precision that your function is given: on this course's CPU it is float32.", credit=0.5),
        Mistake(lambda dtype: _config(load_in_4bit=False, load_in_8bit=True),
                "This loads the model in 8 bits, and the settings with 4bit in their names then do nothing. You want load_in_4bit=True."),
        Mistake(lambda dtype: _config(load_in_4bit=False, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype),
                "The three settings are right, but load_in_4bit=True is missing: without it nothing is quantised.", credit=0.5),
    ],
    after="Nothing is left to a default that you did not choose.",
)

# ---------------------------------------------------------------- 5: merged into what?


def _base(codes: Tensor, scales: Tensor, levels: Tensor) -> Tensor:
    return levels[codes] * scales[:, None]


def _again(w: Tensor, levels: Tensor) -> Tensor:
    scales = w.abs().amax(dim=1)
    return _base(_nearest(w / scales[:, None], levels), scales, levels)


def _merge_cases() -> dict[str, tuple]:
    made, cases = torch.Generator().manual_seed(7), {}
    for name, rows, size in (("a small update", 6, 0.01), ("a large update", 4, 0.3)):
        original = torch.randn(rows, 64, generator=made)
        scales = original.abs().amax(dim=1)
        cases[name] = (original, _nearest(original / scales[:, None], nf4()), scales, nf4(), torch.randn(rows, 64, generator=made) * size)
    return cases


exercise_5 = Exercise(
    LAB, 5, 3,
    right=lambda original, codes, scales, levels, update: (_base(codes, scales, levels) + update).tolist(),
    cases=_merge_cases,
    returns="the merged weight, in the shape of `original`",
    rtol=1e-4, atol=1e-5,
    mistakes=[
        Mistake(lambda original, codes, scales, levels, update: (original + update).tolist(),
                "You merge into the original weights. The adapter was trained beside the rounded ones, so this is another model than the one that was scored. It may even "
                "be better, but nobody has measured it.", credit=0.5),
        Mistake(lambda original, codes, scales, levels, update: _again(_base(codes, scales, levels) + update, levels).tolist(),
                "You quantise again after the merge. The update is smaller than half the way to the next level, so most codes fall back to what they were, and the training "
                "is lost.", credit=0.5),
        Mistake(lambda original, codes, scales, levels, update: _again(original + update, levels).tolist(),
                "You merge into the original weights and then quantise. That is two changes: another base, and an update that the rounding mostly takes away."),
        Mistake(lambda original, codes, scales, levels, update: _base(codes, scales, levels).tolist(),
                "This is the quantised base without the update: what was trained is missing.", credit=0.25),
        Mistake(lambda original, codes, scales, levels, update: (levels[codes] + update).tolist(),
                "The scales are missing. A code names a level from -1 to 1; multiply each row by its scale, then add the update.", credit=0.25),
        Mistake(lambda original, codes, scales, levels, update: ((levels[codes] + update) * scales[:, None]).tolist(),
                "You scale the update too. It was trained beside the weights as they come back: first levels times scales, then add the update.", credit=0.5),
        Mistake(lambda original, codes, scales, levels, update: (codes * scales[:, None] + update).tolist(),
                "You multiply the codes by the scales. A code is only the number of a level: look the level up with levels[codes].", credit=0.25),
    ],
    after="This plain weight gives the answers of the model that was trained and scored.",
)
