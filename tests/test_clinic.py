"""What lesson 10 says of the libraries, on a tiny model: each cause makes its symptom, and its one-line test tells the broken run from the mended one."""

from __future__ import annotations

import copy

import optuna
import pytest
import torch
import yaml
from datasets import Dataset
from peft import LoraConfig, PeftModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoConfig, AutoModelForCausalLM, DataCollatorForLanguageModeling, EarlyStoppingCallback
from trl import SFTConfig, SFTTrainer

from helpers import data, models, plots, results, training


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="module")
def rows():
    return list(data.load_tone()["train"])[:12]


@pytest.fixture(scope="module")
def tiny(tokenizer):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2))


def pairs(rows) -> Dataset:
    return Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in rows])


def trainer_of(model, tokenizer, dataset, folder, lora=True, evaluation=None, callbacks=None, **knobs) -> SFTTrainer:
    settings = {"output_dir": str(folder), "learning_rate": 5e-3, "max_steps": 2, "per_device_train_batch_size": 4, **training.quiet_settings(0), **knobs}
    return SFTTrainer(copy.deepcopy(model), args=SFTConfig(**settings), train_dataset=dataset, eval_dataset=evaluation, processing_class=tokenizer, callbacks=callbacks,
                      peft_config=LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None)


def labels_of(trainer) -> torch.Tensor:
    return trainer.data_collator([trainer.train_dataset[0]])["labels"][0]


@pytest.mark.parametrize("knobs, sees_prompt", [({}, True), ({"completion_only_loss": True}, True), (None, False)])
def test_messages_put_the_prompt_into_the_loss_and_pairs_do_not(tiny, tokenizer, rows, tmp_path, knobs, sees_prompt):
    dataset = pairs(rows) if knobs is None else Dataset.from_list([{"messages": r["messages"]} for r in rows])
    labels = labels_of(trainer_of(tiny, tokenizer, dataset, tmp_path, **(knobs or {})))
    assert (data.TONE_INSTRUCTION in tokenizer.decode(labels[labels != -100])) is sees_prompt


def test_masking_padding_by_its_id_masks_the_end_of_turn_token(tiny, tokenizer, tmp_path):
    text = Dataset.from_list([{"prompt": "Message: It leaks.\nTone:", "completion": " worried"}] * 4)
    trainer = trainer_of(tiny, tokenizer, text, tmp_path)
    labels = labels_of(trainer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id and labels[-1] == tokenizer.eos_token_id, "TRL ends a plain completion with it"
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm=False)([{"input_ids": trainer.train_dataset[0]["input_ids"]}])
    assert tokenizer.eos_token_id not in theirs["labels"]


def test_a_row_whose_answer_is_cut_off_is_dropped_without_a_word_and_one_cut_in_the_answer_stays(tiny, tokenizer, rows, tmp_path):
    long = {"messages": [rows[0]["messages"][0], {"role": "user", "content": "It still leaks. " * 500}, rows[0]["messages"][2]]}
    assert SFTConfig(**training.quiet_settings()).max_length == 1024
    assert len(trainer_of(tiny, tokenizer, pairs([*rows[:3], long]), tmp_path).train_dataset) == 3
    assert len(trainer_of(tiny, tokenizer, pairs([*rows[:3], long]), tmp_path, max_length=None).train_dataset) == 4
    whole = len(trainer_of(tiny, tokenizer, pairs(rows[:4]), tmp_path).train_dataset[0]["input_ids"])
    labels = labels_of(trainer_of(tiny, tokenizer, pairs(rows[:4]), tmp_path, max_length=whole - 2))
    assert bool((labels != -100).any()) and tokenizer.eos_token_id not in labels, "half an answer, no end"


def test_a_loaded_adapter_is_frozen_unless_it_is_said_to_be_trainable(tiny, tokenizer, rows, tmp_path):
    trainer_of(tiny, tokenizer, pairs(rows), tmp_path).model.save_pretrained(tmp_path / "adapter")
    frozen = PeftModel.from_pretrained(copy.deepcopy(tiny), tmp_path / "adapter")
    assert training.trainable_parameters(frozen)[0] == 0
    with pytest.raises(RuntimeError, match="does not require grad"):
        training.answer_loss_only(trainer_of(frozen, tokenizer, pairs(rows), tmp_path, lora=False)).train()
    silent = trainer_of(frozen, tokenizer, pairs(rows), tmp_path, lora=False, gradient_checkpointing=True)
    silent.train()
    assert len(training.loss_history(silent)) == 2 and training.trainable_parameters(silent.model)[0] == 0, "TRL's default: no error, nothing learned"
    assert training.trainable_parameters(PeftModel.from_pretrained(copy.deepcopy(tiny), tmp_path / "adapter", is_trainable=True))[0] > 0


def test_an_adapter_loads_on_any_base_of_the_same_shape(tiny, tokenizer, rows, tmp_path):
    trainer_of(tiny, tokenizer, pairs(rows), tmp_path).model.save_pretrained(tmp_path / "adapter")
    torch.manual_seed(1)  # the seed of the settings would draw the same weights again
    other = AutoModelForCausalLM.from_config(tiny.config)
    PeftModel.from_pretrained(other, tmp_path / "adapter")
    assert not torch.equal(other.get_input_embeddings().weight, tiny.get_input_embeddings().weight)


def test_a_cut_by_characters_takes_the_answer_and_one_by_tokens_keeps_it(tokenizer, rows):
    prompt = models.render(tokenizer, rows[0]["messages"][:-1])
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    out = [*ids, *tokenizer(rows[0]["messages"][2]["content"])["input_ids"], tokenizer.eos_token_id]
    assert tokenizer.decode(out, skip_special_tokens=True)[len(prompt):] == ""
    assert tokenizer.decode(out[len(ids):], skip_special_tokens=True) == rows[0]["messages"][2]["content"]


def test_copies_with_a_greeting_in_small_letters_are_found_as_leaks():
    tone = data.load_tone()
    few = list(tone["train"])[:20]
    copies = [{**r, "id": f"copy-{n}", "messages": [r["messages"][0], {"role": "user", "content": "Hello. " + r["messages"][1]["content"].lower()},
                                                    r["messages"][2]]} for n, r in enumerate(few[:12])]
    found = data.leaks({"train": few, "test": copies + list(tone["test"])[:12]})
    assert sorted(pair.second for pair in found) == sorted(c["id"] for c in copies)


@pytest.mark.trains  # takes a quarter of a minute or more
def test_early_stopping_stops_and_the_event_files_hold_what_was_logged(tiny, tokenizer, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = trainer_of(tiny, tokenizer, pairs(rows[:4]), tmp_path, evaluation=pairs(rows[8:]), learning_rate=1.0, max_steps=20, eval_strategy="steps",
                         eval_steps=1, save_steps=1, save_strategy="steps", save_only_model=True, report_to="tensorboard", load_best_model_at_end=True,
                         metric_for_best_model="eval_loss", callbacks=[EarlyStoppingCallback(early_stopping_patience=1)])
    trainer.train()
    seen = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
    assert trainer.state.global_step < 20 and trainer.evaluate()["eval_loss"] == pytest.approx(min(seen), rel=1e-4)
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [p.value for p in board.Scalars("eval/loss")][: len(seen)] == pytest.approx(seen, rel=1e-5)


def test_a_search_goes_on_from_its_file_and_an_old_seed_repeats_itself(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def study(seed):
        return optuna.create_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db", load_if_exists=True, sampler=optuna.samplers.RandomSampler(seed=seed))

    for seed in (0, 0, 2):
        study(seed).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    drawn = [t.params["x"] for t in study(0).trials]
    assert len(drawn) == 3 and drawn[0] == drawn[1] != drawn[2]


def test_yaml_takes_a_number_without_a_point_for_a_word():
    assert yaml.safe_load("1e-6") == "1e-6" and yaml.safe_load("1.0e-6") == 1e-6


def test_loss_curves_say_their_points_and_refuse_what_cannot_be_drawn():
    chart = plots.loss_curves({"a": ([1, 2], [3.0, 2.5]), "b": ([1], [1.0])}, "a falls")
    assert repr(chart) == "[figure] a falls (a: 1 3.000, 2 2.500; b: 1 1.000)" and chart.axes[0].get_xlabel() == "optimizer step"
    lines = chart.axes[0].get_lines()
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 2, "not by colour alone"
    assert plots.loss_curves({"a": ([1e-4], [1.0])}, "t", log=True).axes[0].get_xscale() == "log"
    for wrong in ({}, {"a": ([1], [1.0, 2.0])}, {str(n): ([1], [1.0]) for n in range(7)}):
        with pytest.raises(ValueError, match="loss_curves: expected"):
            plots.loss_curves(wrong, "t")


def test_each_overfitting_run_turns_one_knob():
    usual = results.Overfit()
    for run in results.OVERFIT.runs[1:]:
        turned = [name for name, value in vars(run).items() if value != vars(usual)[name]]
        assert turned in (["rank", "alpha"], ["dropout"], ["weight_decay"], ["rows"]), run
