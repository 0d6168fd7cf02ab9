"""What a Llama-like model is made of, read from its configuration alone; no weights. Explained in lesson 07."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from .errors import CostsError

NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
FAMILIES = ("llama", "mistral", "qwen2")  # those whose counts a test compares with the library's own modules
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder. `linears` maps each linear module of one layer to (inputs, outputs); `biases` to its number of biases."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    biased: tuple[str, ...] = ()

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {"q_proj": (self.hidden, q), "k_proj": (self.hidden, kv), "v_proj": (self.hidden, kv), "o_proj": (q, self.hidden),
                "gate_proj": (self.hidden, self.inner), "up_proj": (self.hidden, self.inner), "down_proj": (self.inner, self.hidden)}

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear modules of all layers: what QLoRA quantises. Biases, norms, embeddings and the output layer are not in it."""
        return self.layers * sum(rows * columns for rows, columns in self.linears.values())

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embeddings and the output layer; shared ("tied") ones are counted once."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def small_parameters(self) -> int:
        """Norms and biases."""
        return self.hidden * (2 * self.layers + 1) + self.layers * sum(self.linears[name][1] for name in self.biased)

    @property
    def parameters(self) -> int:
        """All parameters, shared ones counted once."""
        return self.linear_parameters + self.embedding_parameters + self.small_parameters


def shape_of(config: Any) -> Shape:
    """The shape in a transformers config, or in the dictionary of a `config.json`.

    Raises CostsError for a kind of model that was not checked, for missing keys, and for sizes that cannot be.
    """
    if not isinstance(config, Mapping):
        if not hasattr(config, "to_dict"):
            raise CostsError(f"config: expected a transformers config or the dictionary of a config.json, got {type(config).__name__}. "
                             "Fix: AutoConfig.from_pretrained(folder), or json.loads of the file's text.")
        config = (config.get_text_config() if hasattr(config, "get_text_config") else config).to_dict()
    kind = config.get("model_type", "llama")
    if kind not in FAMILIES:
        raise CostsError(f"config: expected a model_type among {', '.join(FAMILIES)}, got {kind!r}. "
                         "Fix: use a Llama-like model; other kinds have parts that these formulas do not count.")
    if missing := [key for key in NEEDED if not config.get(key)]:
        raise CostsError(f"config: expected {', '.join(NEEDED)}, got none for {', '.join(missing)}. Fix: give the whole config.json of the model.")
    if wrong := {key: config[key] for key in NEEDED if not isinstance(config[key], int) or config[key] < 1}:
        raise CostsError(f"config: expected whole numbers above 0, got {wrong}. Fix: copy them from the model's config.json.")
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    kv_heads = config.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise CostsError(f"config: expected num_key_value_heads that divides num_attention_heads, got {kv_heads} and {heads}. "
                         "Fix: copy both from the model's config.json.")
    biased = ("q_proj", "k_proj", "v_proj") if kind == "qwen2" else LINEARS[:4] if config.get("attention_bias") else ()
    return Shape(config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"], heads, kv_heads, head_dim, config["vocab_size"],
                 bool(config.get("tie_word_embeddings", False)), biased + (LINEARS[4:] if config.get("mlp_bias") else ()))
