"""Loading and generating, on the course's real model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import fetch, models, training


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="module")
def model():
    return models.load_model()


def ask(text: str, system: str | None = None) -> list[dict]:
    return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": text}]


def test_the_default_is_the_135m_model_in_float32_on_a_cpu(model):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("a GPU is present: other dtype")
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32 and not model.training


def test_a_gpu_is_left_alone_when_asked_and_another_wish_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert models.pick_hardware().device == "mps"
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert models.pick_hardware() == models.Hardware("cpu", torch.float32)
    assert training.quiet_settings(0)["use_cpu"] is True
    monkeypatch.setenv("COURSE_DEVICE", "gpu")
    with pytest.raises(models.ModelError, match="expected cpu, got 'gpu'"):
        models.pick_hardware()


def test_it_answers_and_stops(model, tokenizer):
    assert models.generate(model, tokenizer, [ask("What is the capital of France?")], max_new_tokens=30) == ["The capital of France is Paris."]


QUESTIONS = ["What is the capital of France?", "Name a fruit.", "Count to five, please, slowly and carefully, in words.", "Hi",
             "Repeat exactly: assistant user assistant"]


@pytest.mark.parametrize("system", [None, "You are a patient helper at a desk for questions about the world. " * 6], ids=["short", "shared"])
def test_a_batch_answers_to_the_token_as_one_by_one(model, tokenizer, system):
    """With padding, sorting, and (long system turn) the shared prefix run only once."""
    chats = [ask(q, system) for q in QUESTIONS]
    alone = []
    for chat in chats:  # the plainest way there is
        ids = tokenizer(models.render(tokenizer, chat), return_tensors="pt", add_special_tokens=False)["input_ids"]
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24,
                             pad_token_id=tokenizer.pad_token_id)
        alone.append(tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip())
    assert models.generate(model, tokenizer, chats, max_new_tokens=24, batch_size=3) == alone


def test_identical_prompts_and_no_prompts(model, tokenizer):
    same = models.generate(model, tokenizer, [ask("Name a fruit.", "Be brief. " * 20)] * 3, max_new_tokens=8)
    assert len(set(same)) == 1
    assert models.generate(model, tokenizer, []) == []


def test_a_prompt_longer_than_the_context_is_refused(model, tokenizer):
    with pytest.raises(models.ModelError, match=r"need \d+ tokens; the model's context holds 8192"):
        models.generate(model, tokenizer, [ask("word " * 9000)])


@pytest.mark.parametrize("first, second, shared", [([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 1), ([5], [5], 0), ([1, 9], [2, 9], 0)])
def test_shared_prefix_leaves_a_token_to_each(first, second, shared):
    assert models.shared_prefix([first, second]) == shared


def test_count_tokens_counts_what_the_model_sees(tokenizer):
    chat = ask("Hi")
    assert models.count_tokens(tokenizer, chat) == len(tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"])


def test_course_model_takes_another_model_through_the_same_calls(tmp_path, monkeypatch, model, tokenizer):
    config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                                  num_attention_heads=2, num_key_value_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path))
    other = models.load_model()
    assert other.config.hidden_size == 16 and models.model_name() == str(tmp_path)
    assert len(models.generate(other, models.load_tokenizer(), [ask("Hi")], max_new_tokens=3)) == 1


def test_a_model_that_is_not_there_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path / "nothing"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(models.ModelError, match="Could not load the model.*Expected a folder.*Unset COURSE_MODEL"):
        models.load_model()


def test_a_model_without_chat_template_is_refused(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(models.ModelError, match="no chat template"):
        models.load_tokenizer(tmp_path)


def test_without_fetched_weights_the_command_to_run_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    for call in (models.load_model, models.load_tokenizer, models.load_embedder):
        with pytest.raises(models.ModelError, match="python course.py lab"):
            call()


def test_a_conversion_that_breaks_off_leaves_nothing_and_is_made_again(tmp_path, monkeypatch, model, tokenizer):
    """`prepare` writes beside and renames: what a full disk cuts off never counts as done."""
    import copy

    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "present", lambda artifact: True)
    small = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=64, hidden_size=16, intermediate_size=32,
                                                                  num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2))
    words = copy.deepcopy(tokenizer)
    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: small)
    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", lambda *_, **__: words)
    with monkeypatch.context() as patch:
        patch.setattr(type(words), "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(models.ModelError, match="No space left.*COURSE_CACHE"):
            models.prepare()
    assert not fetch.converted()
    assert (models.prepare() / "model.safetensors").is_file() and fetch.converted()


def test_pickled_weights_are_refused(tmp_path, tokenizer):
    AutoConfig.for_model("llama", vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=2).save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(models.ModelError, match="safetensors"):
        models.load_model(tmp_path)


def test_a_model_with_a_sliding_window_answers_as_one_by_one(tokenizer):
    config = AutoConfig.for_model("mistral", vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, sliding_window=16)
    torch.manual_seed(0)
    other = AutoModelForCausalLM.from_config(config).eval()
    chats = [ask(q, "You are a patient helper at a desk for questions about the world. " * 6) for q in QUESTIONS[:2]]
    together = models.generate(other, tokenizer, chats, max_new_tokens=4, batch_size=1)
    assert together == [models.generate(other, tokenizer, [c], max_new_tokens=4)[0] for c in chats]


def test_the_embedder_puts_like_beside_like():
    embedder = models.load_embedder()
    a, b, c = embedder.encode(["the kettle leaks", "water runs out of my kettle", "invoice charged twice"], normalize_embeddings=True)
    assert a.shape == (384,) and a @ b > 0.5 > a @ c
