"""Predicted costs: counts equal the libraries' own modules, kept activations equal what PyTorch keeps, and knobs move what they should."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import costs, plots
from helpers.costs import memory as bytes_of
from helpers.costs.setup import METHODS, OPTIMIZERS, PRECISIONS

LLAMA_8B = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}
LLAMA_70B = {**LLAMA_8B, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
LLAMA_65B = {"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "num_attention_heads": 64, "vocab_size": 32000}
TINY = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500}


def tiny(kind: str = "llama", **changes) -> tuple:
    config = AutoConfig.for_model(kind, **{**TINY, **changes})
    torch.manual_seed(0)
    return config, AutoModelForCausalLM.from_config(config)


def adapted(model, setup: costs.Setup):
    """The model with the setup's adapter, its linear modules packed for QLoRA."""
    from peft import LoraConfig, get_peft_model

    if setup.method == "full":
        return model
    if setup.method == "qlora":
        costs.sample.pack(model)
    targets = setup.targets if setup.targets == "all-linear" else list(setup.targets)
    model.requires_grad_(False)
    return get_peft_model(model, LoraConfig(r=setup.rank, target_modules=targets, use_dora=setup.method == "dora", task_type="CAUSAL_LM"))


@pytest.mark.parametrize("kind, changes", [
    ("llama", {"tie_word_embeddings": True}), ("llama", {"tie_word_embeddings": False}), ("llama", {"num_key_value_heads": 4, "head_dim": 24}),
    ("llama", {"attention_bias": True, "mlp_bias": True}), ("mistral", {}), ("qwen2", {}),
])
def test_parameters_equal_those_of_the_loaded_model(kind, changes):
    config, model = tiny(kind, **changes)
    real = sum(p.numel() for p in model.parameters())
    assert costs.predict(config).parameters == costs.predict(config.to_dict()).parameters == real
    assert costs.predict(config, method="full").trained == real


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("down_proj",)])
@pytest.mark.parametrize("method", ["lora", "qlora", "dora"])
def test_trained_parameters_equal_those_of_the_adapter(method, targets):
    if method == "qlora" and targets != "all-linear":
        pytest.skip("counted as for LoRA")
    config, model = tiny()
    setup = costs.Setup(method=method, rank=4, targets=targets)
    assert costs.predict(config, setup).trained == sum(p.numel() for p in adapted(model, setup).parameters() if p.requires_grad)


def test_known_models_have_their_known_sizes():
    assert costs.predict(LLAMA_8B).parameters == 8_030_261_248
    assert costs.predict(LLAMA_70B).parameters == 70_553_706_496
    assert costs.predict(LLAMA_65B).parameters == 65_285_660_672


def test_packed_weights_take_the_bytes_that_bitsandbytes_stores():
    from bitsandbytes import functional

    for rows, columns in ((64, 160), (576, 1536), (100, 33)):
        packed, state = functional.quantize_4bit(torch.randn(rows, columns), quant_type="nf4", compress_statistics=True)
        tensors = (packed, state.absmax, state.state2.absmax, state.code, state.state2.code, state.offset)
        assert costs.nf4_bytes(rows * columns) == sum(t.numel() * t.element_size() for t in tensors)
    assert costs.nf4_bytes(4096 * 4096) / 4096**2 == pytest.approx(0.516, abs=0.001)


def kept_bytes(setup: costs.Setup) -> int:
    """Bytes of all tensors, weights left out, that PyTorch keeps for the way back through a tiny model."""
    _, model = tiny()
    model = adapted(model, setup).train()
    core = model.get_base_model() if setup.method != "full" else model
    if setup.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: list[tuple] = []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept.append((storage.data_ptr(), storage.nbytes(), weakref.ref(tensor)))
        return tensor

    ids = torch.randint(5, 500, (setup.batch, setup.length))
    mask = torch.ones_like(ids)
    if setup.batch > 1:
        mask[0, -2:] = 0
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16, enabled=setup.precision == "autocast"):
        out = core.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    found = {where: size for where, size, tensor in kept if tensor() is not None}  # what the graph of `out` still holds
    assert out.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("method, targets, precision", [
    ("full", "all-linear", "float32"), ("lora", "all-linear", "float32"), ("lora", ("q_proj", "v_proj"), "float32"), ("qlora", "all-linear", "float32"),
    ("dora", "all-linear", "float32"), ("full", "all-linear", "autocast"), ("lora", "all-linear", "autocast"),
])
def test_predicted_activations_are_what_pytorch_keeps(method, targets, precision, batch):
    setup = costs.Setup(method=method, targets=targets, precision=precision, rank=4, batch=batch, length=96)
    predicted = bytes_of.activation_bytes(costs.shape_of(TINY), setup)
    assert predicted == pytest.approx(kept_bytes(setup), rel=0.05)


def test_optimizer_state_is_what_the_optimizers_keep():
    config, model = tiny(hidden_size=256)
    shape = costs.shape_of(config)
    for name in OPTIMIZERS:
        weights = [torch.nn.Parameter(p.detach().clone()) for p in model.parameters()]
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer = costs.optimizer_of(name, weights)
        optimizer.step()
        held = {t.data_ptr(): t.numel() * t.element_size() for state in optimizer.state.values() for k, t in state.items()
                if torch.is_tensor(t) and t.numel() > 1 and "qmap" not in k}
        predicted = bytes_of.optimizer_bytes(shape, shape.parameters, costs.Setup(method="full", optimizer=name))
        # bitsandbytes leaves tensors of up to 4,096 numbers, here the norms, in float32
        assert predicted == pytest.approx(sum(held.values()), rel=0.02 if name == "adamw_8bit" else 0.01), name


def peak(**knobs) -> float:
    return costs.predict(LLAMA_8B, **knobs).memory.peak


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_knobs_move_memory_the_way_they_must(method, precision):
    base = {"method": method, "precision": precision, "batch": 4, "length": 512}
    found = [peak(**base, rank=r) for r in (1, 8, 64, 256)]
    assert found == sorted(found), "more rank never takes less"
    for name, values in (("batch", (1, 2, 8)), ("length", (64, 256, 1024)), ("answer", (16, 64, 256))):
        found = [peak(**{**base, name: value}) for value in values]
        assert found == sorted(found) and found[0] < found[-1], name
    parts = [costs.predict(LLAMA_8B, **base, checkpointing=on).memory for on in (True, False)]
    assert parts[0].activations <= parts[1].activations and parts[0].peak <= parts[1].peak
    assert costs.predict(LLAMA_8B, **base).tokens == 2048 and costs.predict(LLAMA_8B, **{**base, "length": 513}).tokens > 2048


def test_weights_in_4_bits_are_fewer_bytes_than_in_16_and_in_32():
    sizes = [costs.predict(LLAMA_8B, method=m, precision=p).memory.weights for m, p in (("qlora", "bfloat16"), ("lora", "bfloat16"), ("lora", "float32"))]
    assert sizes[0] < 0.5 * sizes[1] < 0.3 * sizes[2]


def test_the_qlora_papers_780_gb_for_full_16_bit_training_of_65b():
    memory = costs.predict(LLAMA_65B, method="full", precision="bfloat16", batch=1, length=512).memory
    assert (memory.weights + memory.gradients + memory.optimizer) / 1e9 == pytest.approx(783, abs=1)
    assert 780 < memory.peak / 1e9 < 830


def test_a_70b_model_needs_36_gpus_in_full_and_two_with_qlora():
    full = costs.predict(LLAMA_70B, method="full", precision="bfloat16", batch=1, length=512, checkpointing=True).memory
    assert costs.devices(full.weights + full.gradients + full.optimizer, 24e9) == 36
    packed = costs.predict(LLAMA_70B, method="qlora", precision="bfloat16", batch=1, length=512, answer=64, checkpointing=True).memory
    assert 35e9 < packed.weights < 42e9 and costs.devices(packed.peak, 24e9) == 2


MACHINE = costs.Machine(
    threads=2, products=((8e-12,) * 3,) * 4, thin=3e-11, touch=(1e-10, 3e-10, 1e-9), norm=(3e-9, 5e-9), rotary=(3e-9, 5e-9), gate=(2e-9, 3e-9),
    attention=(1e-10, 1e-10), scores=2e-9, unpack=2e-10, update={"adamw": 1e-9, "adamw_8bit": 1e-8, "adafactor": 4e-9, "sgd": 3e-10}, call=5e-6,
    layers={"full": 0.05, "lora": 0.04, "qlora": 0.045, "dora": 0.055, "checkpointing": 0.06})


def test_time_follows_the_work():
    seconds = lambda **knobs: costs.predict(LLAMA_8B, machine=MACHINE, **{"batch": 2, "length": 512, **knobs}).seconds
    assert seconds(method="full") > seconds(method="lora") < seconds(method="qlora") and seconds(method="lora") < seconds(method="dora")
    assert seconds(checkpointing=True) > 1.2 * seconds() and seconds(length=1024) > 1.8 * seconds() and seconds(accumulation=4) > 3.9 * seconds()
    assert seconds(loss="all") > seconds(answer=32) and seconds(loss="tiles") > seconds(loss="all")
    share = lambda batch: seconds(method="qlora", batch=batch, length=32) / seconds(method="lora", batch=batch, length=32)
    assert share(1) > share(64) > 1, "unpacking costs less a token, the more tokens share it"
    assert costs.predict(LLAMA_8B).seconds is None and costs.predict(LLAMA_8B, machine=MACHINE, precision="autocast").seconds is None


def test_money_is_hours_times_price():
    found = costs.predict(LLAMA_8B, machine=MACHINE, batch=2, length=512)
    assert found.cost(1_024_000, per_hour=2.0) == pytest.approx(1000 * found.seconds / 3600 * 2)
    assert costs.price(5400, 2.0) == 3.0 and costs.devices(840e9, 24e9) == 35 and costs.devices(840.1e9, 24e9) == 36
    with pytest.raises(costs.CostsError, match="expected a prediction with seconds, got one without. Fix"):
        costs.predict(LLAMA_8B).cost(1000, 1.0)
    for wrong in (lambda: costs.price(-1, 1), lambda: costs.price(1, -1), lambda: costs.devices(1, 0)):
        with pytest.raises(costs.CostsError, match="Fix"):
            wrong()


def test_advice_names_the_largest_saving_first_and_its_price():
    found = costs.advice(LLAMA_8B, machine=MACHINE, method="full", batch=8, length=1024, answer=64, loss="all")
    assert [k.saved for k in found] == sorted((k.saved for k in found), reverse=True) and all(k.saved > 0 for k in found)
    now = costs.predict(LLAMA_8B, method="full", batch=8, length=1024, answer=64, loss="all")
    assert found[0].saved == pytest.approx(now.memory.peak - found[0].prediction.memory.peak)
    names = {k.change for k in found}
    assert {"checkpointing on", "half the batch", "half the length", "scores only at the answer", "method qlora", "optimizer adamw_8bit"} <= names
    slower = {k.change: k.slower for k in found}
    assert slower["checkpointing on"] > 1.2 and slower["half the batch"] == pytest.approx(1, abs=0.1)
    long_rows = costs.advice(LLAMA_8B, method="qlora", precision="bfloat16", batch=16, length=4096, answer=64)
    assert long_rows[0].change == "checkpointing on" and costs.predict(LLAMA_8B, long_rows[0].prediction.setup).dominant != "process"
    assert not {"checkpointing on", "half the batch"} & {k.change for k in costs.advice(LLAMA_8B, batch=1, checkpointing=True)}
    assert "GB less" in str(found[0]) and "the time per token" in str(found[0])


def test_what_dominates_is_the_largest_part():
    assert costs.predict(LLAMA_8B, method="full", batch=1, length=64).dominant == "optimizer"
    assert costs.predict(LLAMA_8B, method="qlora", precision="bfloat16", batch=32, length=2048, answer=8).dominant == "activations"
    assert costs.predict({**TINY, "vocab_size": 200_000}, loss="all", precision="bfloat16", batch=32, length=512).dominant == "logits"


@pytest.mark.parametrize("knobs, said", [
    ({"method": "qdora"}, "method: expected one of full, lora, qlora, dora, got 'qdora'. Fix"), ({"rank": 0}, "rank: expected a whole number above 0, got 0. Fix"),
    ({"batch": 1.5}, "batch: expected a whole number"), ({"length": True}, "length: expected a whole number"), ({"precision": "fp16"}, "precision: expected one of"),
    ({"optimizer": "lion"}, "optimizer: expected one of"), ({"answer": 999}, "answer: expected between 1 and the length of a row, 256 tokens, got 999. Fix"),
    ({"targets": ("q_proj", "lm_head")}, r"targets: expected 'all-linear' or names among .* got \['lm_head'\]. Fix"), ({"targets": ()}, "targets: expected"),
    ({"loss": "some"}, "loss: expected one of"), ({"bach": 4}, "expected knobs among method, .* got bach. Fix"),
])
def test_wrong_knobs_are_named_with_what_was_expected(knobs, said):
    with pytest.raises(costs.CostsError, match=said):
        costs.predict(LLAMA_8B, **knobs)


@pytest.mark.parametrize("config, said", [
    ({"model_type": "gpt2", "n_embd": 768}, "expected a model_type among llama, .* got 'gpt2'. Fix"),
    ({"hidden_size": 64}, "got none for intermediate_size, num_hidden_layers, num_attention_heads, vocab_size. Fix"),
    ({**TINY, "num_hidden_layers": -1}, "expected whole numbers above 0, got {'num_hidden_layers': -1}. Fix"),
    ({**TINY, "num_key_value_heads": 3}, "expected num_key_value_heads that divides num_attention_heads, got 3 and 4. Fix"), ("llama", "got str. Fix"),
])
def test_configs_that_cannot_be_counted_are_refused(config, said):
    with pytest.raises(costs.CostsError, match=said):
        costs.predict(config)


def test_the_figures_draw_what_they_say():
    figure = plots.predicted_measured({"LoRA": [(1.0, 1.1), (2.0, 1.9)], "full": [(4.0, 4.4)]}, "Close", "GB", worst=0.25)
    points = [tuple(map(tuple, dots.get_offsets())) for dots in figure.axes[0].collections]
    assert points == [((1.0, 1.1), (2.0, 1.9)), ((4.0, 4.4),)] and len(figure.axes[0].lines) == 3
    assert repr(figure).startswith("[figure] Close (LoRA: 1.00 predicted 1.10 measured") and figure._repr_png_().startswith(b"\x89PNG")
    found = costs.predict(LLAMA_8B).memory
    bars = plots.memory_bars({"LoRA": found.parts, "full": costs.predict(LLAMA_8B, method="full").memory.parts}, "Parts")
    assert sum(bar.get_width() for c in bars.axes[0].containers for bar in c if bar.get_y() < 0.5) == pytest.approx(found.peak / 1e9)
    assert "activations" in repr(bars) and bars._repr_png_().startswith(b"\x89PNG")
    for wrong in (lambda: plots.predicted_measured({}, "x", "GB"), lambda: plots.predicted_measured({"a": [(0, 1)]}, "x", "GB"), lambda: plots.memory_bars({}, "x")):
        with pytest.raises(ValueError, match="Fix"):
            wrong()


def test_a_setup_is_changed_knob_by_knob():
    setup = costs.Setup(method="dora", batch=2)
    assert costs.predict(LLAMA_8B, setup, batch=8).setup == replace(setup, batch=8)
