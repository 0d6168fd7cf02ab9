"""One layer of random weights, trained for a moment: what the sum of the parts leaves out. Explained in lesson 07."""

from __future__ import annotations

from typing import Any, Callable

import torch

from .setup import METHODS, Setup

CONFIG = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 1, "num_attention_heads": 9,
          "num_key_value_heads": 3, "vocab_size": 256, "tie_word_embeddings": True}
SAMPLES = {name: Setup(method=name, batch=4, length=128) for name in METHODS} | {"checkpointing": Setup(batch=4, length=128, checkpointing=True)}


def one_layer(setup: Setup) -> Any:
    """A model of one layer with the setup's adapter, NF4 weights for QLoRA, ready to train; float32."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM(LlamaConfig(**{key: value for key, value in CONFIG.items() if key != "model_type"}))
    if setup.method == "qlora":
        pack(model)
    if setup.method != "full":
        model.requires_grad_(False)
        model = get_peft_model(model, LoraConfig(r=setup.rank, target_modules="all-linear", use_dora=setup.method == "dora", task_type="CAUSAL_LM"))
    if setup.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def pack(model: Any) -> None:
    """Put every linear module of the layers into NF4 with double quantisation, as loading with a BitsAndBytesConfig does."""
    import bitsandbytes as bnb

    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, linear in list(parent.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    packed = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, quant_type="nf4", compute_dtype=torch.float32)
                    packed.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
                    setattr(parent, name, packed.to("cpu"))
    model.is_loaded_in_4bit = True


def layer_seconds(name: str, seconds: Callable[[Callable[[], object]], float]) -> float:
    """Seconds of the way through one layer and back for a name of SAMPLES, measured with `seconds`."""
    setup = SAMPLES[name]
    model = one_layer(setup)
    core = model.get_base_model() if setup.method != "full" else model
    mask = torch.ones(setup.batch, setup.length, dtype=torch.long)
    mask[0, -2:] = 0
    x = torch.randn(setup.batch, setup.length, CONFIG["hidden_size"], requires_grad=True)
    trained = [x, *(p for p in core.model.layers.parameters() if p.requires_grad)]

    def once() -> None:
        out = core.model(inputs_embeds=x, attention_mask=mask, use_cache=False).last_hidden_state
        out.backward(torch.ones_like(out), inputs=trained)
        for weight in trained:
            weight.grad = None

    return seconds(once)
