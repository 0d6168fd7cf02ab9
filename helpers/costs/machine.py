"""What this machine does in a second, measured in about ten seconds. Explained in lesson 07."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable, Sequence

import torch

from .sample import SAMPLES, layer_seconds
from .setup import OPTIMIZERS

WIDTHS, TOKENS = (256, 576, 1024, 2048), (64, 256, 1024)
SIZES = (1 << 18, 1 << 21, 1 << 24)  # numbers in a tensor: 1, 8 and 64 MB in float32


@dataclass(frozen=True)
class Machine:
    """Measured speeds in float32 with `threads` threads; all are seconds for one unit of work.

    `products`: for every width and number of tokens, seconds for one multiplication and addition of a matrix product, on the way
    forward and back. `thin`: the same for an adapter of rank 16. `touch`: for every size of tensor, seconds for a number that is read
    and written into fresh memory. `norm`, `rotary`, `gate`: seconds for a number that goes through that part of a layer and back, at two sizes.
    `attention`: seconds for one multiplication and addition between queries, keys and values, forward and back. `scores`: seconds for one score of the
    vocabulary, from logit to its gradient. `unpack`: seconds for one NF4 weight. `update`: for each optimizer, seconds a parameter.
    `call`: seconds that one operation takes besides its work, forward and back.
    `layers`: seconds through one whole layer and back, by method and with checkpointing: parts that were measured alone find their numbers
    in the cache, and the parts of a layer do not.
    """

    threads: int
    products: tuple[tuple[float, ...], ...]
    thin: float
    touch: tuple[float, ...]
    norm: tuple[float, float]
    rotary: tuple[float, float]
    gate: tuple[float, float]
    attention: tuple[float, float]
    scores: float
    unpack: float
    update: dict[str, float]
    call: float
    layers: dict[str, float]


def calibrate() -> Machine:
    """Measure this machine with the threads that torch has now; about ten seconds. Nothing else should run meanwhile.

    The measured pieces are the library's own: matrix products at the widths of small models, RMSNorm, rotary positions, the gate,
    attention, cross entropy, NF4 weights, optimizers.
    """
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        return Machine(
            torch.get_num_threads(), tuple(tuple(_product(width, tokens) for tokens in TOKENS) for width in WIDTHS), _thin(),
            tuple(map(_touch, SIZES)), _pair(_norm), _pair(_rotary), _pair(_gate), (_attention(4, 128), _attention(2, 512)),
            _scores(), _unpack(), {name: _update(name) for name in OPTIMIZERS}, _call(),
            {name: layer_seconds(name, _seconds) for name in SAMPLES},
        )
    finally:
        torch.random.set_rng_state(state)


def _seconds(run: Callable[[], object], least: int = 3, enough: float = 0.08) -> float:
    """The shortest time of a call, after one that warms up: what else the machine does can only add to it."""
    run()
    times: list[float] = []
    while len(times) < least or (sum(times) < enough and len(times) < 40):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _there_and_back(run: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> float:
    leaves = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]

    def once() -> None:
        out = run(*leaves)
        torch.autograd.grad(out, [x for x in leaves if x.requires_grad], torch.ones_like(out))

    return _seconds(once)


def _product(width: int, tokens: int) -> float:
    inner = width * 8 // 3
    x, up, grad = torch.randn(tokens, width), torch.randn(inner, width), torch.randn(tokens, inner)
    return _seconds(lambda: (x @ up.T, grad @ up, grad.T @ x)) / (3 * tokens * width * inner)


def _thin() -> float:
    x, down, up = torch.randn(512, 576), torch.randn(16, 576), torch.randn(576, 16)
    return _there_and_back(lambda x, down, up: (x @ down.T) @ up.T, x, down, up) / (3 * 512 * 16 * 2 * 576)


def _touch(size: int) -> float:
    x = torch.randn(size)
    return _seconds(lambda: x * x) / size


def _pair(piece: Callable[[int, int], float]) -> tuple[float, float]:
    return piece(256, 576), piece(2048, 2048)


def _norm(tokens: int, width: int) -> float:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = LlamaRMSNorm(width).requires_grad_(False)
    return _there_and_back(norm, torch.randn(1, tokens, width)) / (tokens * width)


def _rotary(tokens: int, width: int) -> float:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x, angle = torch.randn(1, width // 64, tokens, 64), torch.randn(1, tokens, 64)
    return _there_and_back(lambda x: apply_rotary_pos_emb(x, x[:, :1], angle.cos(), angle.sin())[0], x) / (tokens * width)


def _gate(tokens: int, width: int) -> float:
    silu = torch.nn.functional.silu
    return _there_and_back(lambda gate, up: silu(gate) * up, torch.randn(tokens, width), torch.randn(tokens, width)) / (tokens * width)


def _attention(rows: int, length: int) -> float:
    x = [torch.randn(rows, 9, length, 64) for _ in range(3)]
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(rows, 1, length, length)
    run = lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return _there_and_back(run, *x) / (rows * 9 * length * length * 64)


def _scores() -> float:
    labels = torch.arange(128)
    return _there_and_back(lambda x: torch.nn.functional.cross_entropy(x, labels), torch.randn(128, 32768)) / (128 * 32768)


def _unpack() -> float:
    from bitsandbytes import functional

    weight = torch.randn(1024, 2048)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return _seconds(lambda: functional.dequantize_4bit(packed, state)) / weight.numel()


def _update(name: str) -> float:
    weight = torch.nn.Parameter(torch.randn(1024, 2048))
    weight.grad = torch.randn_like(weight)
    return _seconds(optimizer_of(name, [weight]).step) / weight.numel()


def _call() -> float:
    x = torch.randn(16, 16)

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            x = x * 1.01
        return x

    return _there_and_back(chain, x) / 100


def optimizer_of(name: str, weights: Sequence[torch.nn.Parameter], learning_rate: float = 1e-5) -> torch.optim.Optimizer:
    """The optimizer that a trainer takes for a name of `costs.Setup`."""
    if name == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(weights, lr=learning_rate)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(weights, lr=learning_rate, scale_parameter=False, relative_step=False)
    return torch.optim.SGD(weights, lr=learning_rate) if name == "sgd" else torch.optim.AdamW(weights, lr=learning_rate, fused=True)
