"""The training plumbing, and what must be true of any LoRA training, on a tiny model."""

from __future__ import annotations

import copy
import inspect
import math
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from helpers import models, training

ROWS = [
    {"prompt": [{"role": "user", "content": f"Number {n}?"}], "completion": [{"role": "assistant", "content": f"It is {n * n}, no doubt."}]}
    for n in range(12)
]


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="module")
def tiny(tokenizer):
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2)
    return AutoModelForCausalLM.from_config(config)


def trainer_for(tiny, tokenizer, tmp_path, lora=True, seed=0, **changes) -> SFTTrainer:
    settings = {"output_dir": str(tmp_path), "learning_rate": 5e-3, "max_steps": 6, "per_device_train_batch_size": 4,
                **training.quiet_settings(seed), **changes}
    return SFTTrainer(copy.deepcopy(tiny), args=SFTConfig(**settings), train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer,
                      peft_config=LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None)


def run(trainer: SFTTrainer) -> list[float]:
    trainer.train()
    return training.loss_history(trainer)


def test_quiet_settings_train_without_a_word(tiny, tokenizer, tmp_path, capfd):
    trainer = trainer_for(tiny, tokenizer, tmp_path)
    training.add_live_loss(trainer)
    losses = run(trainer)
    out, err = capfd.readouterr()
    assert len(losses) == 6 and "%|" not in out + err and "Warning" not in err and "{'loss'" not in out
    assert not list(tmp_path.iterdir()), "nothing is saved unless asked for"


def test_the_first_loss_of_an_untrained_model_is_near_ln_vocabulary(tiny, tokenizer, tmp_path):
    assert run(trainer_for(tiny, tokenizer, tmp_path))[0] == pytest.approx(math.log(tokenizer.vocab_size), rel=0.02)


def test_answer_loss_equals_trls_own_loss_step_by_step(tiny, tokenizer, tmp_path):
    own = run(trainer_for(tiny, tokenizer, tmp_path))
    ours = run(training.answer_loss_only(trainer_for(tiny, tokenizer, tmp_path)))
    assert ours == pytest.approx(own, abs=2e-4)


def test_the_loss_falls(tiny, tokenizer, tmp_path):
    losses = run(training.answer_loss_only(trainer_for(tiny, tokenizer, tmp_path, lora=False, max_steps=15)))
    assert losses[-1] < losses[0] - 0.5


def test_answer_loss_with_gradient_accumulation_equals_the_large_batch(tiny, tokenizer, tmp_path):
    large = run(training.answer_loss_only(trainer_for(tiny, tokenizer, tmp_path)))
    parts = run(training.answer_loss_only(trainer_for(tiny, tokenizer, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2)))
    assert parts == pytest.approx(large, abs=2e-3)


def test_answer_loss_refuses_models_that_bend_their_scores(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path)
    trainer.model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        training.answer_loss_only(trainer)


def test_the_same_seed_gives_the_same_losses_and_another_does_not(tiny, tokenizer, tmp_path):
    one, again, other = (run(trainer_for(tiny, tokenizer, tmp_path, seed=s)) for s in (1, 1, 2))
    assert one == again != other


def test_lora_leaves_the_frozen_weights_untouched_and_off_is_the_base(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path)
    run(trainer)
    frozen = {n.replace(".base_layer", "").removeprefix("base_model.model."): p for n, p in trainer.model.named_parameters() if "lora_" not in n}
    for name, value in tiny.named_parameters():
        assert torch.equal(frozen[name], value), name
    ids = torch.arange(10)[None]
    with torch.no_grad():
        base, on = tiny.eval()(ids).logits, trainer.model.eval()(ids).logits
        with trainer.model.disable_adapter():
            assert torch.equal(trainer.model(ids).logits, base)
        assert (on - base).abs().max() > 1e-3, "training changed something"
        merged = trainer.model.merge_and_unload()(ids).logits
    assert (merged - on).abs().max() < 1e-4


def test_trainable_parameters_are_those_of_the_low_rank_update(tiny, tokenizer, tmp_path):
    model = trainer_for(tiny, tokenizer, tmp_path).model
    expected = sum(4 * (m.in_features + m.out_features) for n, m in tiny.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n)
    trained, total = training.trainable_parameters(model)
    assert trained == expected and total == expected + sum(p.numel() for p in tiny.parameters())


def test_only_the_completion_is_trained_and_it_ends_with_the_end_of_turn(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[3]])
    kept = batch["labels"][0][batch["labels"][0] != -100]
    assert tokenizer.decode(kept).startswith("It is 9, no doubt.<|im_end|>")


def test_peak_memory_is_that_of_this_process_and_not_of_its_parent():
    before = training.peak_memory_gb()
    block = torch.ones(500_000_000)  # 2 GB
    assert 2.0 < training.peak_memory_gb() < before + 3.0
    del block
    source = inspect.getsource(training.peak_memory_gb)
    code = f"import re, sys\nfrom pathlib import Path\n{source}\nprint(peak_memory_gb())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 0.1


def test_answer_loss_refuses_another_loss(tiny, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="dft"):
        training.answer_loss_only(trainer_for(tiny, tokenizer, tmp_path, loss_type="dft"))


def test_a_model_that_was_trained_in_bfloat16_answers(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path, lora=False, bf16=True, max_steps=2)
    run(trainer)
    asked = [[{"role": "user", "content": f"Number {n}?"}] for n in (3, 400)]
    said = models.generate(trainer.model.eval(), tokenizer, asked, max_new_tokens=4)
    plain = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    assert len(said) == 2 and len(models.generate(plain, tokenizer, asked, max_new_tokens=4)) == 2
    assert plain(input_ids=torch.arange(5)[None]).logits.dtype == torch.float32 and not hasattr(plain, "_original_forward")
