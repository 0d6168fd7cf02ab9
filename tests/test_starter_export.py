"""labs/starters/export.py: what it merges equals the adapter, and what it can't merge is refused with a reason."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from test_starter_tune import STARTERS, runner, tiny  # noqa: F401  (fixtures)
from transformers import AutoModelForCausalLM, AutoTokenizer

IDS = torch.arange(20, 60)[None]


def make_adapter(base: Path, folder: Path, trained: bool = True, **knobs) -> Path:
    """An adapter as a training leaves it; both matrices hold numbers, unless it was never trained."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=not trained, **knobs)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


@pytest.fixture
def place(tmp_path, tiny) -> Path:  # noqa: F811
    """An empty folder with only the script and an adapter."""
    (tmp_path / "export.py").write_bytes((STARTERS / "export.py").read_bytes())
    make_adapter(tiny, tmp_path / "tuned")
    return tmp_path


def export(runner, place: Path, *more: str):  # noqa: F811
    return runner(place, "export.py", "--adapter", "tuned", "--output", "merged", *more)


def refused(runner, place: Path, *more: str, words: tuple[str, ...]) -> None:  # noqa: F811
    done = export(runner, place, *more)
    assert done.code == 1 and all(word in done.err for word in [*words, ": expected ", ", found ", " Fix: "]) and "Traceback" not in done.err, done.err
    assert not list(place.glob("merged*"))


def test_it_is_one_short_file_of_public_libraries():
    text = (STARTERS / "export.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300 and max(map(len, text.splitlines())) <= 150
    assert set(re.findall(r"^(?:from|import) (\w+)", text, re.M)) - set(sys.stdlib_module_names) == {"torch", "peft", "transformers"}


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_the_merged_model_answers_as_the_adapter_does(runner, place, tiny, dora):  # noqa: F811
    if dora:
        make_adapter(tiny, place / "tuned", use_dora=True)
    done = export(runner, place)
    assert done.code == 0 and "Whole: merged" in done.out, done.err
    merged = AutoModelForCausalLM.from_pretrained(place / "merged")
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), place / "tuned")
    with torch.no_grad():
        ours, theirs = merged(IDS).logits, tuned(IDS).logits
        with tuned.disable_adapter():
            base = tuned(IDS).logits
    assert (ours - theirs).abs().max() < 1e-4 < (ours - base).abs().max()
    assert not hasattr(merged, "peft_config") and not (place / "merged" / "adapter_config.json").exists()
    assert AutoTokenizer.from_pretrained(place / "merged").chat_template
    assert json.loads((place / "merged" / "export.json").read_text())["largest_difference"] < 1e-4


def test_another_dtype_halves_the_file_and_force_replaces_only_its_own_folder(runner, place):  # noqa: F811
    assert export(runner, place).code == 0
    wide = (place / "merged" / "model.safetensors").stat().st_size
    done = export(runner, place, "--dtype", "bfloat16")
    assert done.code == 1 and "--force" in done.err
    assert export(runner, place, "--dtype", "bfloat16", "--force").code == 0
    assert (place / "merged" / "model.safetensors").stat().st_size == pytest.approx(wide / 2, rel=0.05)
    (place / "merged" / "export.json").unlink()
    done = export(runner, place, "--force")
    assert done.code == 1 and "export.json" in done.err and (place / "merged" / "model.safetensors").exists()


def test_what_is_missing_is_named(runner, place):  # noqa: F811
    (place / "tuned" / "adapter_model.safetensors").unlink()
    refused(runner, place, words=("--adapter tuned", "adapter_model.safetensors"))
    (place / "tuned" / "model.safetensors").touch()
    refused(runner, place, words=("nothing is to be merged",))


def test_a_base_that_moved_is_named_and_can_be_given(runner, place, tiny):  # noqa: F811
    config = json.loads((place / "tuned" / "adapter_config.json").read_text())
    (place / "tuned" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gone/away"}))
    refused(runner, place, words=("base model gone/away", "--base"))
    assert export(runner, place, "--base", str(tiny)).code == 0


def test_a_base_of_another_name_is_said(runner, place, tiny):  # noqa: F811
    config = json.loads((place / "tuned" / "adapter_config.json").read_text())
    (place / "tuned" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gone/away"}))
    done = export(runner, place, "--base", str(tiny))
    assert done.code == 0 and "The adapter names gone/away as its base" in done.out and "QLoRA" not in done.out, done.err


def test_an_adapter_of_a_deeper_model_is_refused(runner, place, tiny, tmp_path):  # noqa: F811
    """PEFT loads what fits, and leaves out the rest without an error."""
    config = AutoModelForCausalLM.from_pretrained(tiny).config
    config.num_hidden_layers = 1
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "flat")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "flat")
    refused(runner, place, "--base", str(tmp_path / "flat"), words=("an adapter of this model", "on one side only"))


def test_an_adapter_with_another_vocabulary_is_refused(runner, place, tiny):  # noqa: F811
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(place / "tuned")
    refused(runner, place, words=("one vocabulary", "found two"))


def test_what_is_merged_for_qlora_is_said(runner, place):  # noqa: F811
    (place / "tuned" / "tune.yaml").write_text('method: "qlora"\n')
    done = export(runner, place)
    assert done.code == 0 and "4-bit weights (QLoRA)" in done.out and "full precision" in done.out, done.err


def test_a_folder_that_cannot_be_written_is_named(runner, place):  # noqa: F811
    done = runner(place, "export.py", "--adapter", "tuned", "--output", "export.py/merged")
    assert done.code == 1 and "Not a directory" in done.err and "Nothing was saved. Fix: check the path" in done.err and "Traceback" not in done.err


def test_a_quantised_base_is_refused(runner, place, tiny, tmp_path):  # noqa: F811
    packed = tmp_path / "packed"
    packed.mkdir()
    AutoTokenizer.from_pretrained(tiny).save_pretrained(packed)
    config = json.loads((tiny / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    refused(runner, place, "--base", str(packed), words=("full-precision weights", "bitsandbytes"))


def test_an_adapter_of_another_model_an_untrained_one_and_a_prompt_are_refused(runner, place, tiny, tmp_path):  # noqa: F811
    make_adapter(tiny, place / "tuned", trained=False)
    refused(runner, place, words=("changes something",))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model.save_pretrained(place / "tuned")
    refused(runner, place, words=("can be merged", "PROMPT_TUNING"))
    other = tmp_path / "other"
    config = AutoModelForCausalLM.from_pretrained(tiny).config
    config.hidden_size = 48
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    make_adapter(tiny, place / "tuned")
    refused(runner, place, "--base", str(other), words=("tokenizer",))
    AutoTokenizer.from_pretrained(tiny).save_pretrained(other)
    refused(runner, place, "--base", str(other), words=("an adapter of this model",))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_named_and_leaves_nothing(runner, place):  # noqa: F811
    done = runner(place, "export.py", "--adapter", "tuned", "--output", "merged", largest_file=50_000)
    assert done.code == 1 and "disk is full" in done.err and "Traceback" not in done.err and not list(place.glob("merged*")), done.err


def test_ctrl_c_while_saving_leaves_nothing(tiny, tmp_path):  # noqa: F811
    spec = importlib.util.spec_from_file_location("starter_export", STARTERS / "export.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def stopped(folder):
        assert (folder / "model.safetensors").is_file(), "the weights are there already"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.save(AutoModelForCausalLM.from_pretrained(tiny), SimpleNamespace(save_pretrained=stopped), {}, tmp_path / "merged", torch.float32)
    assert not list(tmp_path.iterdir())


def test_a_wrong_flag_exits_with_2(runner, place):  # noqa: F811
    done = runner(place, "export.py", "--adaptr", "tuned")
    assert done.code == 2 and "--adapter" in done.err
