"""Lesson 06's hand-built NF4 is the library's; 4-bit models stay frozen, compute alike in training and evaluation, and are counted to the byte."""

from __future__ import annotations

import copy
import types
import warnings
from pathlib import Path

import bitsandbytes
import bitsandbytes.functional as bnb
import nbformat
import pytest
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from datasets import Dataset
from peft import LoraConfig, prepare_model_for_kbit_training
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from helpers import models, plots, quantisation, results, training

LESSON = Path(__file__).parents[1] / "lessons" / "06_qlora.ipynb"
SHAPES = [(1,), (64,), (65,), (7, 13), (3, 64), (31, 33), (128, 65), (192, 576)]
FILLS = ("normal", "outlier", "zeros", "constant", "sparse", "uniform", "heavy")
ROWS = [
    {"prompt": [{"role": "user", "content": f"Number {n}?"}], "completion": [{"role": "assistant", "content": f"It is {n * n}, no doubt."}]}
    for n in range(12)
]


@pytest.fixture(scope="module")
def hand() -> types.SimpleNamespace:
    """The functions of the lesson's own cells, run without the rest of the lesson."""
    space = {"torch": torch}
    cells = [c for c in nbformat.read(LESSON, as_version=4).cells if "hand-built" in c.metadata.get("tags", [])]
    for cell in cells:
        exec(cell.source, space)
    assert len(cells) == 3
    return types.SimpleNamespace(**space)


def matrix(shape, fill: str, scale: float, seed: int = 0) -> torch.Tensor:
    make = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=make) * scale
    if fill == "outlier":
        w.view(-1)[0] = 1000 * scale
    elif fill == "zeros":
        w.zero_()
    elif fill == "constant":
        w.fill_(scale)
    elif fill == "sparse":
        w *= torch.rand(shape, generator=make) < 0.3
    elif fill == "uniform":
        w = (torch.rand(shape, generator=make) * 2 - 1) * scale
    elif fill == "heavy":
        w = w**3
    return w


def unpack(packed: torch.Tensor) -> torch.Tensor:
    return torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten()


def librarys_weights(packed: torch.Tensor, state) -> torch.Tensor:
    """The library's dequantised weights.

    bitsandbytes 0.50.2's fast kernel for AVX-512 gives wrong weights when a row is not a whole number of blocks; there its plain one is asked.
    """
    if state.shape[-1] % state.blocksize == 0:
        return bnb.dequantize_4bit(packed, state)
    return _dequantize_4bit_compute(packed.flatten(), state.absmax, state.code, state.blocksize, state.shape, state.dtype)


def real_weights() -> dict[str, torch.Tensor]:
    with safe_open(models.prepare() / "model.safetensors", framework="pt") as file:
        names = [n for n in file.keys() if ".layers.3." in n and "proj" in n]
        return {n: file.get_tensor(n) for n in names}


def test_the_levels_are_the_librarys_to_the_bit(hand):
    levels = hand.nf4_levels()
    assert torch.equal(levels, bnb.get_4bit_type("nf4", device="cpu")) and torch.equal(levels, bnb.create_normal_map().unique())
    assert (levels > 0).sum() == 8 and (levels < 0).sum() == 7 and (levels == 0).sum() == 1
    assert torch.equal(hand.dynamic_levels(), bnb.create_dynamic_map())


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_hand_built_nf4_is_the_librarys(hand, shape, fill):
    levels = hand.nf4_levels()
    for seed, scale in enumerate((1e-6, 1e-3, 0.05, 1.0, 1e4)):
        for block in (32, 64, 256, 4096):
            w = matrix(shape, fill, scale, seed)
            codes, scales = hand.quantise(w, levels, block)
            packed, state = bnb.quantize_4bit(w, blocksize=block, quant_type="nf4")
            assert torch.equal(codes.flatten(), unpack(packed)[: w.numel()].long())
            assert torch.allclose(scales, state.absmax, rtol=0, atol=1e-37)  # an empty last block: 0 here, 1e-38 there
            ours, theirs = hand.dequantise(codes, scales, levels, block), librarys_weights(packed, state)
            assert (ours.flatten() - theirs.flatten()).abs().max() <= 1e-6 * w.abs().max()
            assert ours.shape == w.shape and (ours - w).abs().max() <= 0.16 * w.abs().max() + 1e-30, "never farther than half the widest gap"


def test_real_weights_give_the_same_codes_and_weights(hand):
    levels, found = hand.nf4_levels(), real_weights()
    assert len(found) == 7
    for name, w in found.items():
        codes, scales = hand.quantise(w, levels)
        packed, state = bnb.quantize_4bit(w, quant_type="nf4")
        assert torch.equal(codes.flatten(), unpack(packed).long()) and torch.equal(scales, state.absmax), name
        assert torch.equal(hand.dequantise(codes, scales, levels), bnb.dequantize_4bit(packed, state)), name


@pytest.mark.parametrize("fill", ("normal", "outlier", "heavy", "uniform"))
@pytest.mark.parametrize("shape", [(64, 256), (192, 576), (100, 64), (1536, 576), (63, 128)], ids=str)
def test_hand_built_double_quantisation_is_the_librarys(hand, shape, fill):
    """Decoding is equal to the bit; the library's 8-bit search may take a level beside the nearest one."""
    w, levels = matrix(shape, fill, 0.05), hand.nf4_levels()
    codes, scales = hand.quantise(w, levels)
    packed, state = bnb.quantize_4bit(w, quant_type="nf4", compress_statistics=True)
    small, largest, offset = hand.quantise_scales(scales)
    assert torch.equal(largest, state.state2.absmax) and torch.equal(offset, state.offset)
    off = (small - state.absmax.long()).abs()
    assert fill != "normal" or (off.max() <= 1 and (off > 0).float().mean() < 0.02)
    theirs = hand.dequantise_scales(state.absmax.long(), state.state2.absmax, state.offset)
    assert torch.equal(hand.dequantise(codes, theirs, levels).flatten(), bnb.dequantize_4bit(packed, state).flatten())
    ours = hand.dequantise_scales(small, largest, offset)
    assert (ours - theirs).abs().max() <= 0.0142 * largest.max(), "one step of the coarsest levels"
    assert ((ours - scales).abs() <= (theirs - scales).abs() + 1e-6 * largest.max()).all(), "the nearest level is never farther"


def test_bits_per_weight_are_what_the_lesson_counts(hand):
    w = torch.randn(1024, 1024)
    packed, state = bnb.quantize_4bit(w, quant_type="nf4")
    assert 8 * (packed.nbytes + state.absmax.nbytes) / w.numel() == 4.5
    packed, state = bnb.quantize_4bit(w, quant_type="nf4", compress_statistics=True)
    assert 8 * (packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes) / w.numel() == 4 + 8 / 64 + 32 / (64 * 256)


# ---------------------------------------------------------------- a 4-bit model


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2)
    where = tmp_path_factory.mktemp("tiny")
    AutoModelForCausalLM.from_config(config).save_pretrained(where)
    return where


def four_bit(folder: Path, kept: bool = True):
    training.quiet()
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
    if kept:
        assert quantisation.keep_float32(model) == 14
    return model


def qlora_trainer(model, tokenizer, tmp_path, **changes) -> SFTTrainer:
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    settings = {"output_dir": str(tmp_path), "learning_rate": 5e-3, "max_steps": 4, "per_device_train_batch_size": 4,
                **training.quiet_settings(0), **changes}
    trainer = SFTTrainer(model, args=SFTConfig(**settings), train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer,
                         peft_config=LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for p in trainer.model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return training.answer_loss_only(trainer)


@torch.no_grad()
def logits(model, ids=torch.arange(20)[None]):
    return model.eval()(ids).logits


def quantised(model) -> dict[str, torch.Tensor]:
    return {n.replace("base_model.model.", "").replace(".base_layer", ""): p.detach().clone() for n, p in model.named_parameters() if p.dtype == torch.uint8}


def test_training_leaves_the_4_bit_weights_untouched_and_off_is_the_quantised_base(folder, tokenizer, tmp_path):
    model = four_bit(folder)
    before, base = quantised(model), logits(model)
    scales = [m.weight.quant_state.absmax.clone() for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    trainer = qlora_trainer(model, tokenizer, tmp_path)
    trainer.train()
    after = quantised(trainer.model)
    assert len(before) == 14 and before.keys() == after.keys() and all(torch.equal(after[n], before[n]) for n in before)
    now = [m.weight.quant_state.absmax for m in trainer.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert all(torch.equal(a, b) for a, b in zip(scales, now))
    on = logits(trainer.model)
    with trainer.model.disable_adapter():
        assert torch.equal(logits(trainer.model), base)
    assert (on - base).abs().max() > 1e-3, "training changed something"


def test_merged_into_the_dequantised_base_is_the_adapter_on_and_into_4_bits_is_not(folder, tokenizer, tmp_path):
    trainer = qlora_trainer(four_bit(folder), tokenizer, tmp_path, max_steps=12)
    trainer.train()
    on, plain = logits(trainer.model), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for name, m in trainer.model.named_modules():
            if hasattr(m, "base_layer"):
                weight = m.base_layer.weight
                target = plain.get_submodule(name.removeprefix("base_model.model."))
                target.weight.copy_(bnb.dequantize_4bit(weight.data, weight.quant_state) + m.get_delta_weight("default"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = trainer.model.merge_and_unload()
    assert (logits(plain) - on).abs().max() < 1e-4 < (logits(merged) - on).abs().max() < 1


def test_keep_float32_makes_evaluation_what_training_is(folder):
    model, ids = four_bit(folder), torch.arange(20)[None]
    with torch.enable_grad():
        trained = model.train()(inputs_embeds=model.get_input_embeddings()(ids).detach().requires_grad_()).logits.detach()
    evaluated = logits(model)
    assert torch.equal(evaluated, logits(model)) and (evaluated - trained).abs().max() < 1e-5
    assert not any(getattr(p.quant_state, "packing_format_for_cpu", False) for p in model.parameters() if p.dtype == torch.uint8)
    x = model.get_input_embeddings()(ids).detach().requires_grad_()
    model.train()(inputs_embeds=x).logits.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0, "the gradient passes the 4-bit layers, after an evaluation too"


@pytest.mark.skipif(not bnb.has_avx512bf16(), reason="only processors with AVX512-BF16 pack anew")
def test_without_it_the_first_evaluation_changes_the_model_and_is_refused_afterwards(folder):
    model = four_bit(folder, kept=False)
    logits(model)
    with pytest.raises(ValueError, match="expected a model that was not used yet.*Fix: load"):
        quantisation.keep_float32(model)
    layer = model.model.layers[0].mlp.up_proj.train()
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is None, "when this fails, the library is mended: take keep_float32 and its explanation out"


def test_a_model_without_4_bit_layers_is_left_alone():
    assert quantisation.keep_float32(torch.nn.Linear(4, 4)) == 0


def test_stored_bytes_are_predicted_to_the_byte(folder):
    plain, small = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), four_bit(folder)
    assert quantisation.stored_bytes(plain) == 4 * sum(p.numel() for p in plain.parameters())
    expected = 0
    for name, p in plain.named_parameters():
        blocks = -(-p.numel() // 64)
        expected += p.numel() // 2 + blocks + 4 * -(-blocks // 256) + 4 * (256 + 16 + 1) if "proj" in name else 4 * p.numel()
    assert quantisation.stored_bytes(small) == expected


def test_the_8_bit_optimizer_runs_here_and_small_tensors_stay_in_32_bits(folder, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = SFTTrainer(model, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer, args=SFTConfig(
        output_dir=str(tmp_path), max_steps=15, learning_rate=5e-3, per_device_train_batch_size=4, optim="adamw_bnb_8bit", **training.quiet_settings(0)))
    training.answer_loss_only(trainer).train()
    losses = training.loss_history(trainer)
    assert losses[-1] < losses[0] - 0.5
    table = trainer.model.get_input_embeddings().weight  # transformers keeps embeddings in 32 bits too
    for p, state in trainer.optimizer.state.items():
        assert state["state1"].dtype == (torch.uint8 if p.numel() >= 4096 and p is not table else torch.float32)


# ---------------------------------------------------------------- the stored rows and the figures


def test_a_step_reaches_every_adapter_and_leaves_no_gradient(folder):
    from peft import get_peft_model

    model = get_peft_model(four_bit(folder), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    reached = set()
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.register_hook(lambda grad, name=name: reached.add(name) if grad.abs().sum() > 0 else None)
    for everywhere in (False, True):
        reached.clear()
        results.slowdown.step(model, 128, everywhere)
        assert len(reached) == 14 and all(p.grad is None for p in model.parameters())
    timed = results.slowdown._timed({"lora": model, "qlora": copy.copy(model)}, 8, 2)
    assert timed["tokens"] == 8 and timed["lora"].keys() == {"cpu", "wall"} and timed["qlora"]["cpu"] >= 0


def test_a_step_dequantises_each_layer_twice_however_many_tokens_it_has(folder):
    from peft import get_peft_model

    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    packed = get_peft_model(four_bit(folder), lora).train()
    plain = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), lora).train()
    few, many = results.slowdown.counted(packed, 8), results.slowdown.counted(packed, 512)
    assert few["dequantised"] == many["dequantised"] == 14 + 14 - 3  # forward; backward without the first block's q, k and v, whose input needs no gradient
    assert results.slowdown.counted(plain, 8) == {"dequantised": 0, "gflop": few["gflop"]}
    assert results.slowdown.counted(plain, 512) == {"dequantised": 0, "gflop": many["gflop"]} and many["gflop"] > 10 * few["gflop"]


def test_the_stored_slowdown_is_what_lesson_06_says():
    steps = results.SLOWDOWN.stored(results.Slowdown())["steps"]
    ratio = {s["tokens"]: s["qlora"]["cpu"] / s["lora"]["cpu"] for s in steps}
    assert list(ratio) == list(results.slowdown.TOKENS) and ratio[8] > 1.3 > ratio[2048] > 0.95 and ratio[8] > ratio[128] > ratio[2048]
    lora, qlora = (results.SLOWDOWN.stored(results.Slowdown(method=m)) for m in ("lora", "qlora"))
    assert qlora["weights_mb"] < 0.4 * lora["weights_mb"]


def test_the_figure_of_levels_says_each_levels_share():
    figure = plots.levels_over_weights([-0.9, 0.1, 0.2, 0.95], [-1.0, 0.0, 1.0], "Three levels")
    assert repr(figure).startswith("[figure] Three levels (level and share of weights: -1.00 0.25, 0.00 0.50, 1.00 0.25)")
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [-1.0, 0.0, 1.0] and figure._repr_png_().startswith(b"\x89PNG")


def test_value_curves_and_bars_draw_each_value_and_name_it():
    figure = plots.value_curves({"a": [(8, 1.5), (64, 1.2)], "b": [(8, 2.0)]}, "Falls", "tokens", "ratio", log_x=True, line=(1.3, "claim"))
    first, second, across = figure.axes[0].lines
    assert list(first.get_xdata()) == [8, 64] and list(first.get_ydata()) == [1.5, 1.2] and set(across.get_ydata()) == {1.3}
    assert first.get_marker() != second.get_marker() and first.get_linestyle() != second.get_linestyle()
    assert repr(figure) == "[figure] Falls (a: 8 1.500, 64 1.200; b: 8 2.000)" and figure._repr_png_()
    bars = plots.value_bars({"x": 1.0, "y": 0.25}, "Two", "loss")
    assert [b.get_width() for b in bars.axes[0].patches] == [1.0, 0.25] and repr(bars) == "[figure] Two (x 1.00, y 0.25)"


@pytest.mark.parametrize("call", [
    lambda: plots.levels_over_weights([], [0, 1], "x"), lambda: plots.value_curves({}, "x", "a", "b"), lambda: plots.value_curves({"a": []}, "x", "a", "b"),
    lambda: plots.value_curves({str(n): [(1, 1)] for n in range(7)}, "x", "a", "b"), lambda: plots.value_bars({}, "x", "a"),
])
def test_figures_of_nothing_are_refused(call):
    with pytest.raises(ValueError, match="expected.*got.*Fix"):
        call()
