"""The right answers of labs 05 and 06 are those of the libraries: PEFT, bitsandbytes, and the course's own cost model."""

from __future__ import annotations

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model

from helpers import costs
from helpers.checks import lab05, lab06
from helpers.checks.exercise import Exercise


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "off")


def cases(exercise: Exercise) -> list[tuple]:
    return list(exercise.cases().values())


def adapter_for(linear: torch.nn.Linear, rank: int, alpha: float, rslora: bool = False):
    config = LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=["one"])
    return inject_adapter_in_model(config, torch.nn.ModuleDict({"one": linear})).one


@pytest.mark.parametrize("case", cases(lab05.exercise_1), ids=lambda case: str(tuple(case[1].shape)))
def test_the_layer_and_its_merge_are_pefts(case):
    x, W, A, B, alpha = case
    layer = adapter_for(torch.nn.Linear(W.shape[1], W.shape[0], bias=False), len(A), alpha)
    with torch.no_grad():
        layer.base_layer.weight.copy_(W)
        layer.lora_A["default"].weight.copy_(A)
        layer.lora_B["default"].weight.copy_(B)
        beside = layer(x)
        layer.merge()
    output, merged = lab05.exercise_1.right(*case)
    assert torch.allclose(torch.tensor(output), beside, atol=1e-5) and torch.allclose(torch.tensor(merged), layer.base_layer.weight, atol=1e-5)


@pytest.mark.parametrize("case", cases(lab05.exercise_2), ids=lambda case: f"{len(case[2])} kinds, rank {case[1]}")
def test_the_count_is_pefts(case):
    from transformers import AutoModelForCausalLM

    config, rank, targets = case
    with torch.device("meta"):
        model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM"))
    assert lab05.exercise_2.right(*case) == model.num_parameters(only_trainable=True)


@pytest.mark.parametrize("case", cases(lab05.exercise_3), ids=str)
def test_the_new_alpha_gives_pefts_factor_of_the_old_recipe(case):
    rank, alpha, new_rank, rslora = case
    factor = adapter_for(torch.nn.Linear(8, 8), new_rank, lab05.exercise_3.right(*case), rslora).scaling["default"]
    assert factor == pytest.approx(adapter_for(torch.nn.Linear(8, 8), rank, alpha).scaling["default"])


@pytest.mark.parametrize("rate, said", [(1e-5, "hardly does"), (3e-4, "Raise the learning rate"), (2e-3, "right."), (3e-2, "right."), (0.5, "smaller learning rate"), (2.0, "smaller learning rate")])
def test_a_learning_rate_gets_the_advice_that_fits(rate, said):
    assert said in lab05.exercise_4.judge(lambda make, batch: lab05._run(make, batch, rate)).text


def test_the_small_model_is_the_same_each_time_and_leaves_the_seed_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second = lab05.small_model(), lab05.small_model()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


@pytest.mark.parametrize("case", [case for case in cases(lab06.exercise_1) if len(case[1]) == 16], ids=lambda case: f"blocks of {case[2]}")
def test_codes_and_scales_are_those_of_bitsandbytes(case):
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes.functional as bnb

    w, levels, block = case
    packed, state = bnb.quantize_4bit(w, blocksize=block, quant_type="nf4")
    theirs = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten()
    codes, scales = lab06.exercise_1.right(*case)
    assert torch.equal(levels, bnb.get_4bit_type("nf4", device="cpu")) and codes == theirs.tolist() and scales == state.absmax.tolist()


@pytest.mark.parametrize("double", [False, True])
def test_the_bits_are_what_bitsandbytes_stores(double):
    import bitsandbytes.functional as bnb

    w = torch.randn(1024, 256)
    packed, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=double)
    stored = packed.nbytes + state.absmax.nbytes + (state.state2.absmax.nbytes if double else 0)
    assert lab06.exercise_2.right(4, 64, 256 if double else None) == 8 * stored / w.numel()


@pytest.mark.parametrize("numbers, shape", [
    (lab06.LARGE, dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, vocab_size=32000, tie_word_embeddings=False)),
    (lab06.COURSE, dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True)),
])
def test_the_memory_is_that_of_the_courses_cost_model(numbers, shape):
    """Up to three small tables per matrix."""
    from transformers import LlamaConfig

    model, setup = costs.shape_of(LlamaConfig(**shape)), costs.Setup("qlora", precision="float32", rank=16)
    trained = costs.memory.memory_of(model, setup)
    linear, other, adapter = numbers
    assert (linear, other) == (model.linear_parameters, model.parameters - model.linear_parameters)
    assert lab06.exercise_3.right(*numbers) == pytest.approx((trained.weights + trained.gradients + trained.optimizer) / 1e9, rel=2e-3)


def test_a_config_may_name_its_precision_as_text():
    from transformers import BitsAndBytesConfig

    said = lambda dtype: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=str(dtype).split(".")[1])
    assert lab06.exercise_4.judge(said).credit == 1
