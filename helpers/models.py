"""The base model, its tokenizer and the embedder: convert, load, generate. Explained in lesson 00.

The default is SmolLM2-135M-Instruct (Apache-2.0; Allal et al. 2025, arXiv:2502.02737), de-quantised once from the
pinned Q4_1 GGUF file that `helpers.fetch` verifies. `COURSE_MODEL` puts any other causal language model in its place:
a folder, or an id on the Hugging Face hub. `COURSE_DEVICE=cpu` leaves a GPU alone.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from helpers import fetch

# Read by the libraries when they are imported, so this stands above their imports. Nothing phones home.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # else its import advises about a kernel that nobody needs

import torch  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StaticCache,
)
from transformers.cache_utils import DynamicLayer  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

Message = dict[str, str]
Prompt = Sequence[Message] | str


class ModelError(RuntimeError):
    """A model that cannot be loaded or used; the message says how to mend it."""


@dataclass(frozen=True)
class Hardware:
    """Where the computation runs and in which precision."""

    device: str
    dtype: torch.dtype


def pick_hardware() -> Hardware:
    """The device and dtype that this machine does best.

    A CPU always computes in float32, so that stored outputs hold on any CPU. A CUDA GPU takes bfloat16 where it has
    it, else float16; Apple's GPU takes float32. (The GPU branches are not verified on a GPU.) With COURSE_DEVICE=cpu it
    is the CPU whatever there is. Raises ModelError when COURSE_DEVICE says anything else.
    """
    asked = os.environ.get("COURSE_DEVICE", "")
    if asked not in ("", "cpu"):
        raise ModelError(f"COURSE_DEVICE: expected cpu, got {asked!r}. Unset it to use the GPU if there is one.")
    if asked == "cpu":
        return Hardware("cpu", torch.float32)
    if torch.cuda.is_available():
        return Hardware("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16)
    if torch.backends.mps.is_available():
        return Hardware("mps", torch.float32)
    return Hardware("cpu", torch.float32)


def has_fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere bfloat16 is slower than float32."""
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name)() for name in tests if hasattr(torch.cpu, name))


def prepare() -> Path:
    """De-quantise the verified GGUF file once, into a folder of safetensors (538 MB); return the folder.

    Raises ModelError when the weights were not fetched, fetch.FetchError when the disk is full.
    """
    folder = fetch.converted_dir()
    if fetch.converted():
        return folder
    if not fetch.present(fetch.MODEL):
        raise ModelError(
            f"The base model is not in {fetch.cache_dir()}. Run `python course.py lab` once with a network, "
            "or set COURSE_CACHE to the folder that holds it, or COURSE_MODEL to a model of your own."
        )
    fetch.require_free(folder, 700_000_000)
    fresh = folder.with_name(folder.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    source, name = fetch.MODEL.folder, next(iter(fetch.MODEL.files))
    with _quiet():
        quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    # The loaded model carries a GGUF quantisation config and refuses to be saved; the same weights in a plain
    # model of the same config do not.
    settings = {k: v for k, v in quantised.config.to_dict().items() if k not in ("quantization_config", "dtype")}
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
    plain.load_state_dict(quantised.state_dict())
    try:
        plain.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"Could not write {fresh}: {error}. Free 1 GB, or set COURSE_CACHE to a larger disk.") from error
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    return folder


def model_name() -> str:
    """What `load_model` loads: the value of COURSE_MODEL, or the name of the default."""
    return os.environ.get("COURSE_MODEL") or "SmolLM2-135M-Instruct"


def source() -> str:
    """The folder or hub id that `load_model` loads from, for a library that loads for itself (lesson 06). Raises as `prepare` does."""
    return os.environ.get("COURSE_MODEL") or str(prepare())


def load_tokenizer(source: str | Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to `load_model`'s model, padding on the left as batched generation needs.

    Raises ModelError when there is none, or when it has no chat template.
    """
    where = str(source or os.environ.get("COURSE_MODEL") or prepare())
    with _quiet(), _found(where):
        tokenizer = AutoTokenizer.from_pretrained(where, padding_side="left")
    if tokenizer.chat_template is None:
        raise ModelError(f"{where} has no chat template: expected an instruct or chat model, got a plain base model. "
                         "Set COURSE_MODEL to an instruct model.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: str | Path | None = None, hardware: Hardware | None = None) -> PreTrainedModel:
    """The course's causal language model, in evaluation mode, on the device that `pick_hardware` names.

    `source` (a folder or hub id) wins over COURSE_MODEL, which wins over the default.
    Raises ModelError when it cannot be found or is not a causal language model.
    """
    where = str(source or os.environ.get("COURSE_MODEL") or prepare())
    hardware = hardware or pick_hardware()
    with _quiet(), _found(where):
        model = AutoModelForCausalLM.from_pretrained(where, dtype=hardware.dtype, use_safetensors=True)
    return model.to(hardware.device).eval()


def load_embedder():
    """The sentence embedder all-MiniLM-L6-v2 (384 dimensions) from the cache, as a SentenceTransformer."""
    if not fetch.present(fetch.EMBEDDER):
        raise ModelError(f"The embedder is not in {fetch.cache_dir()}. Run `python course.py lab` once with a network.")
    from sentence_transformers import SentenceTransformer

    with _quiet():
        return SentenceTransformer(str(fetch.EMBEDDER.folder), device=pick_hardware().device)


def render(tokenizer: PreTrainedTokenizerBase, messages: Prompt) -> str:
    """The text that the model sees for `messages`, ending where the assistant's answer begins. A prompt that is a text stays as it is."""
    if isinstance(messages, str):
        return messages
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 128,
    batch_size: int = 24,
) -> list[str]:
    """Answer each conversation greedily, or continue each text; return the answers in the order of `prompts`.

    Prompts are sorted by length and padded on the left. What all prompts begin with (instructions, examples) goes
    through the model once and its keys and values are reused: *prefix caching*. The answer is cut out by token
    position, `out[:, prompt_length:]`, never by searching the text. Explained in lessons 00 and 05.

    Raises ModelError when a prompt and its answer do not fit into the model's context.
    """
    if not prompts:
        return []
    encoded = [tokenizer(render(tokenizer, p), add_special_tokens=False)["input_ids"] for p in prompts]
    longest = max(map(len, encoded)) + max_new_tokens
    context = context_length(model)
    if context and longest > context:
        raise ModelError(f"The longest prompt and its answer need {longest} tokens; the model's context holds {context}. "
                         "Shorten the prompt, use fewer examples, or lower max_new_tokens.")
    # sliding windows and other special caches count their tokens in ways that a copied prefix would upset
    # so would a trainer's wrapper that computes in bfloat16 while the weights, and so a prepared cache, are float32
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers) and not hasattr(model, "_original_forward")
    shared = shared_prefix(encoded) if plain and len(encoded) > 1 else 0
    prefix = prefix_cache(model, encoded[0][:shared]) if shared >= 32 else None
    shared = shared if prefix else 0
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    answers: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = max(len(encoded[i]) for i in chosen)
        ids = torch.full((len(chosen), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            # shared prefix, then padding, then the rest: the padding is masked wherever it stands
            ids[row, :shared], mask[row, :shared] = torch.tensor(encoded[i][:shared], dtype=torch.long), 1
            rest = len(encoded[i]) - shared
            ids[row, width - rest :], mask[row, width - rest :] = torch.tensor(encoded[i][shared:]), 1
        out = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device),
            past_key_values=_cache_for(model, len(chosen), width + max_new_tokens, prefix) if plain else None, disable_compile=True,
            max_new_tokens=max_new_tokens, do_sample=False, temperature=None, top_p=None, top_k=None,
            pad_token_id=tokenizer.pad_token_id,
        )
        for i, text in zip(chosen, tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)):
            answers[i] = text.strip()
    return [answers[i] for i in range(len(prompts))]


def count_tokens(tokenizer: PreTrainedTokenizerBase, messages: Prompt) -> int:
    """Prompt tokens of one request: what a provider would charge for and what the context must hold."""
    return len(tokenizer(render(tokenizer, messages), add_special_tokens=False)["input_ids"])


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens the model's context holds, prompt and answer together; None where its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def shared_prefix(encoded: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all sequences share, leaving at least one token to each."""
    first, last = min(encoded), max(encoded)  # in sorted order, the first and the last share the least
    length = 0
    for a, b in zip(first, last):
        if a != b:
            break
        length += 1
    return min(length, min(map(len, encoded)) - 1)


def prefix_cache(model: PreTrainedModel, ids: Sequence[int], rows: int = 1) -> DynamicCache:
    """Keys and values of a prompt's beginning, computed once, for `rows` conversations that begin so."""
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    if rows > 1:
        cache.batch_repeat_interleave(rows)
    return cache


def _cache_for(model: PreTrainedModel, rows: int, length: int, prefix: DynamicCache | None) -> StaticCache:
    """Room for `length` tokens of `rows` conversations, with the shared prefix already in it.

    It is allocated once. A growing cache is copied at every token, which takes most of the time of a large batch.
    """
    cache = StaticCache(config=model.config, max_cache_len=length)
    for index, layer in enumerate(prefix.layers if prefix else ()):
        cache.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
    return cache


class _quiet:
    """No progress bars and no advice from transformers while a model loads; errors still come through."""

    def __enter__(self) -> None:
        self.level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self.level)


class _found:
    """Turn the libraries' errors about a model that is not there into one sentence with the fix."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if kind is not None and issubclass(kind, (OSError, ValueError)):
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise ModelError(
                f"Could not load the model {self.where!r}: {first} "
                "Expected a folder with config.json and safetensors, or the id of a causal model on the hub "
                "(which needs a network once). Unset COURSE_MODEL to use the course's own model."
            ) from error


def fetch_all() -> Path:
    """Fetch, verify and unpack both models; what `course.py lab` does, for other environments. Returns the base model's folder."""
    for artifact in fetch.ARTIFACTS:
        fetch.fetch(artifact)
    return prepare()


if __name__ == "__main__":
    print(fetch_all())
