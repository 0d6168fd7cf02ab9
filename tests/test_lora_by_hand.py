"""The LoRA layer that lesson 05 builds by hand is PEFT's: outputs, gradients and merged weights, on random and on real tensors."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from helpers import models

LESSON = Path(__file__).parents[1] / "lessons" / "05_lora.ipynb"


def lesson_layer() -> type[torch.nn.Module]:
    """The class as the lesson's own cell defines it."""
    cells = [c.source for c in nbformat.read(LESSON, as_version=4).cells if c.cell_type == "code" and "class LoRALinear" in c.source]
    assert len(cells) == 1, "the lesson builds the layer in one cell"
    names: dict = {"torch": torch}
    exec(cells[0], names)
    return names["LoRALinear"]


def pair(linear: torch.nn.Linear, rank: int, alpha: int):
    """The lesson's layer and PEFT's around the same weights, with the same A and B, neither of them zero."""
    ours = lesson_layer()(linear, rank, alpha)
    copy = torch.nn.ModuleDict({"one": torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)})
    copy.one.load_state_dict(linear.state_dict())
    theirs = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=["one"]), copy).one
    with torch.no_grad():
        ours.B.normal_()
        theirs.lora_A["default"].weight.copy_(ours.A)
        theirs.lora_B["default"].weight.copy_(ours.B)
    return ours, theirs


def close(a: torch.Tensor, b: torch.Tensor, share: float = 2e-6) -> bool:
    return bool((a - b).abs().max() <= share * b.abs().max())


@pytest.mark.parametrize("seed", range(12))
def test_outputs_gradients_and_merged_weights_equal_pefts_on_random_layers(seed):
    torch.manual_seed(seed)
    wide, tall, rank = (int(n) for n in torch.randint(1, 130, (3,)))
    ours, theirs = pair(torch.nn.Linear(wide, tall, bias=seed % 2 == 0), rank, alpha=int(torch.randint(1, 64, ())))
    x = torch.randn(7, wide)
    assert close(ours(x), theirs(x))
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    assert close(ours.A.grad, theirs.lora_A["default"].weight.grad, 1e-5) and close(ours.B.grad, theirs.lora_B["default"].weight.grad, 1e-5)
    assert ours.linear.weight.grad is None and theirs.base_layer.weight.grad is None, "the weights are frozen"
    merged = ours.linear.weight + ours.scale * ours.B @ ours.A
    theirs.merge()
    assert close(merged, theirs.base_layer.weight)


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.down_proj"])
def test_it_equals_pefts_on_layers_of_the_course_model(name):
    torch.manual_seed(0)
    layer = models.load_model().model.layers[7].get_submodule(name)
    ours, theirs = pair(layer, 16, 32)
    x = torch.randn(5, layer.in_features)
    assert close(ours(x), theirs(x), 1e-6 * 2)


def test_a_new_update_changes_nothing():
    linear = torch.nn.Linear(9, 5)
    x = torch.randn(3, 9)
    assert torch.equal(lesson_layer()(linear, 4, 8)(x), linear(x))
