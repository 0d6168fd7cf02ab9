"""Full fine-tuning: what a step holds, accumulation, checkpointing, resuming; on a tiny model. And what the stored speeds must show."""

from __future__ import annotations

import copy
import statistics

import pytest
import torch
from datasets import Dataset
from test_training import tiny, tokenizer  # noqa: F401  (fixtures)
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

from helpers import models, results, training
from helpers.results import SPEED, speed

ROWS = [  # answers of very different length
    {"prompt": [{"role": "user", "content": f"Number {n}?"}], "completion": [{"role": "assistant", "content": "Yes." if n % 2 else f"It is {n}, " + "and so on " * n}]}
    for n in range(16)
]


def trainer_for(tiny, tokenizer, tmp_path, callbacks=None, rows=ROWS, **changes) -> SFTTrainer:
    settings = {"output_dir": str(tmp_path), "learning_rate": 1e-3, "max_steps": 8, "per_device_train_batch_size": 4, **training.quiet_settings(0), **changes}
    trainer = SFTTrainer(copy.deepcopy(tiny), args=SFTConfig(**settings), train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=callbacks)
    return training.answer_loss_only(trainer)


def gradient(trainer, batches, items=None) -> torch.Tensor:
    trainer.model.zero_grad()
    for batch in batches:
        (trainer.compute_loss(trainer.model, batch, num_items_in_batch=items) / (1 if items else len(batches))).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_all_weights_are_trained_and_one_step_holds_four_numbers_per_weight(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path, max_steps=1)
    weights = sum(p.numel() for p in trainer.model.parameters())
    assert training.trainable_parameters(trainer.model) == (weights, weights)
    trainer.train()
    state = trainer.optimizer.state.values()
    assert sum(s[name].numel() for s in state for name in ("exp_avg", "exp_avg_sq")) == 2 * weights
    assert gradient(trainer, [trainer.data_collator([trainer.train_dataset[0]])]).numel() == weights
    assert all(not torch.equal(p, q) for p, q in zip(trainer.model.parameters(), tiny.parameters())), "every tensor has moved"


def test_small_batches_add_up_to_the_large_one_when_divided_by_all_labels_and_not_by_their_own(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path)
    rows = [trainer.train_dataset[i] for i in (0, 2, 12, 14, 1, 3, 5, 7)]  # long answers stand together
    parts = [trainer.data_collator(rows[i : i + 2]) for i in range(0, 8, 2)]
    labels = sum(int((part["labels"][:, 1:] != -100).sum()) for part in parts)
    large = gradient(trainer, [trainer.data_collator(rows)])
    assert gap(gradient(trainer, parts, labels), large) < 1e-5
    assert gap(gradient(trainer, parts), large) > 0.1, "the mean of means is another gradient"


def test_the_trainer_divides_each_part_by_the_labels_of_all_parts(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    seen, own = [], trainer.compute_loss

    def spy(model, inputs, **given):
        seen.append((int((inputs["labels"][:, 1:] != -100).sum()), int(given["num_items_in_batch"])))
        return own(model, inputs, **given)

    trainer.compute_loss = spy
    trainer.train()
    assert len(seen) == 3 and {items for _, items in seen} == {sum(labels for labels, _ in seen)}


def test_checkpointing_keeps_less_and_gives_the_same_gradients(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, tmp_path)
    batch, found = trainer.data_collator([trainer.train_dataset[i] for i in range(8)]), {}
    trainer.model.train()
    for on in (False, True):
        (trainer.model.gradient_checkpointing_enable if on else trainer.model.gradient_checkpointing_disable)()
        with training.kept_for_backward(trainer.model) as kept:
            trainer.compute_loss(trainer.model, batch)
        found[on] = sum(kept.values()), gradient(trainer, [batch])
    assert gap(found[True][1], found[False][1]) < 1e-5
    assert found[True][0] < found[False][0]


def test_with_checkpointing_each_layer_keeps_its_input_and_nothing_else(tokenizer):
    kept_by = {}
    for layers in (2, 5):
        config = AutoConfig.for_model("llama", vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
                                      num_key_value_heads=2, pad_token_id=2, eos_token_id=2)
        model = AutoModelForCausalLM.from_config(config).train()
        ids = torch.randint(3, 99, (4, 17))
        for on in (False, True):
            (model.gradient_checkpointing_enable if on else model.gradient_checkpointing_disable)()
            with training.kept_for_backward(model) as kept:
                model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            kept_by[layers, on] = sum(kept.values())
    tensor = 4 * 32 * 4 * 17  # bytes of float32: hidden size x positions
    assert kept_by[5, True] - kept_by[2, True] == 3 * tensor
    assert kept_by[5, False] - kept_by[2, False] > 3 * 10 * tensor


def test_kept_for_backward_counts_what_a_product_keeps_and_no_weights():
    model = torch.nn.Sequential(torch.nn.Linear(10, 20, bias=False), torch.nn.Tanh(), torch.nn.Linear(20, 5, bias=False))
    with training.kept_for_backward(model) as kept:
        model(torch.ones(7, 10)).sum()
    assert sum(kept.values()) == 4 * (7 * 10 + 7 * 20), "the input of each layer; tanh keeps its output, which is the next input"


def test_peak_memory_is_that_of_the_block():
    torch.ones(150_000_000).sum()  # 600 MB, gone before the block
    with training.peak_memory() as small:
        pass
    with training.peak_memory() as large:
        torch.ones(150_000_000).sum()
    if small[0] is not None:
        assert 0.4 < large[0] - small[0] < 0.8


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
def test_stopped_and_resumed_ends_with_the_losses_and_weights_of_an_uninterrupted_run(tiny, tokenizer, tmp_path, sampling):
    settings = {"save_strategy": "steps", "save_steps": 3, "train_sampling_strategy": sampling}
    whole = trainer_for(tiny, tokenizer, tmp_path / "whole", **settings)
    whole.train()
    trainer_for(tiny, tokenizer, tmp_path / "cut", callbacks=[StopAt(5)], **settings).train()
    again = trainer_for(tiny, tokenizer, tmp_path / "cut", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert training.loss_history(again)[-5:] == training.loss_history(whole)[-5:]
    assert all(torch.equal(p, q) for p, q in zip(again.model.parameters(), whole.model.parameters()))


def test_grouping_rows_of_like_length_leaves_less_padding(tiny, tokenizer, tmp_path):
    random, grouped = (
        trainer_for(tiny, tokenizer, tmp_path, rows=ROWS * 4, train_sampling_strategy=way) for way in ("random", "group_by_length")
    )
    state = torch.get_rng_state()
    shares = speed.padding_share(random), speed.padding_share(grouped)
    assert 0 < shares[1] < shares[0] / 2, shares
    assert torch.equal(state, torch.get_rng_state()), "looking draws nothing from the training's own numbers"


@pytest.mark.trains  # takes a quarter of a minute or more
def test_speed_is_measured_on_a_tiny_model_as_on_the_real_one(tiny, tokenizer, monkeypatch):
    monkeypatch.setattr(models, "load_model", lambda: copy.deepcopy(tiny))
    monkeypatch.setattr(models, "has_fast_bf16", lambda: False)
    found = speed.measure_recipe(speed.SpeedRecipe(rows=8, batch=4, repeats=2), tokenizer)
    assert set(found["ways"]) == {"plain", "answer only", "recipe"} and found["tokens"] > 8 * 60
    assert len(found["ways"]["plain"]["tokens_per_second"]) == 2 == len(found["ratios"]["recipe"]) and len(found["ways"]["plain"]["losses"]) == 2
    found = speed.measure_checkpointing(speed.SpeedRecipe(what="checkpointing", rows=2, batch=2, repeats=1), tokenizer)
    assert all(one["kept_mb"][1] < one["kept_mb"][0] and len(one["seconds"][1]) == 1 for one in found["methods"].values())


# ---------------------------------------------------------------- the stored rows


@pytest.fixture(scope="module")
def stored() -> dict[str, dict]:
    return {recipe.what: SPEED.stored(recipe) for recipe in SPEED.runs}


def test_the_recipe_trains_at_least_one_and_a_half_times_as_fast_and_twice_with_bfloat16(stored):
    row = stored["recipe"]
    assert len(row["ratios"]["recipe"]) == 3 and statistics.median(row["ratios"]["recipe"]) >= 1.5
    if row["fast_bf16"]:
        assert statistics.median(row["ratios"]["recipe bf16"]) >= 2.0


def test_the_recipe_learns_the_same(stored):
    ways = stored["recipe"]["ways"]
    assert ways["answer only"]["losses"] == pytest.approx(ways["plain"]["losses"], abs=2e-3), "the same rows in the same order: step by step"
    assert ways["recipe"]["held_out"] == pytest.approx(ways["plain"]["held_out"], abs=0.1), "another order of rows: where it ends"
    assert ways["recipe"]["padding"] < ways["plain"]["padding"]
    if "recipe bf16" in ways:
        assert ways["recipe bf16"]["losses"] == pytest.approx(ways["recipe"]["losses"], abs=0.2), "rounder numbers, nearly the same curve"
        assert ways["recipe bf16"]["held_out"] == pytest.approx(ways["recipe"]["held_out"], abs=0.1)


def test_checkpointing_saves_memory_and_costs_a_forward_pass(stored):
    for method, low, high in (("full", 1.1, 1.7), ("lora", 1.2, 1.9)):
        one = stored["checkpointing"]["methods"][method]
        assert low < one["ratio"] < high and one["kept_mb"][1] < one["kept_mb"][0] / 3
    assert results.FAMILIES["speed"] is SPEED
