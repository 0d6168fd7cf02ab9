"""The training runs of `helpers.results.tuning`: what a recipe's knobs do to rows and trainer, and what its row holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from test_training import tiny, tokenizer  # noqa: F401  (fixtures)

from helpers import data, models, prompting, training
from helpers.results import Tuning, tuning

TONE = [r for r in data.load_tone()["train"]]
BASE = Tuning("tone", rows=40)


def test_a_recipe_chooses_rows_by_its_seed(tokenizer):
    one, again, other = (tuning.training_rows(replace(BASE, seed=s), TONE, tokenizer) for s in (1, 1, 2))
    assert len(one) == 40 == len({r["id"] for r in one}) and one == again != other
    assert len(tuning.training_rows(replace(BASE, rows=None), TONE, tokenizer)) == len(TONE)


def test_long_rows_are_left_out(tokenizer):
    lengths = sorted(len(tokenizer.apply_chat_template(r["messages"])["input_ids"]) for r in TONE)
    assert len(tuning.training_rows(Tuning("tone", longest=lengths[9]), TONE, tokenizer)) == sum(n <= lengths[9] for n in lengths)


@pytest.mark.parametrize("noise, wrong", [(0.0, 0), (0.05, 2), (0.4, 16)])
def test_noise_makes_the_stated_share_of_labels_wrong_and_no_label_up(tokenizer, noise, wrong):
    noisy = tuning.training_rows(replace(BASE, noise=noise), TONE, tokenizer)
    true = {r["id"]: r["messages"][-1]["content"] for r in TONE}
    said = [(r["messages"][-1]["content"], true[r["id"]]) for r in noisy]
    assert sum(a != b for a, b in said) == wrong and {a for a, _ in said} <= set(prompting.TONES)
    clean = tuning.training_rows(BASE, TONE, tokenizer)
    assert [r["id"] for r in noisy] == [r["id"] for r in clean], "the same messages, so that runs can be compared"


def test_copies_repeat_every_row(tokenizer):
    counts = Counter(r["id"] for r in tuning.training_rows(replace(BASE, rows=5, copies=8), TONE, tokenizer))
    assert set(counts.values()) == {8} and len(counts) == 5


@pytest.mark.parametrize("changes, expected", [
    ({}, "all seven"), ({"targets": "q_proj,v_proj"}, "q_proj v_proj"), ({"method": "dora"}, "magnitude"), ({"method": "full"}, "everything"), ({"rank": 64, "rslora": True}, "scaled"),
])
def test_the_knobs_reach_the_trainer(tiny, tokenizer, changes, expected):
    import copy

    recipe = replace(BASE, rows=4, **changes)
    trainer = tuning.trainer_for(copy.deepcopy(tiny), tokenizer, TONE[:4], recipe)
    names = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    kinds = {n.split(".lora_")[0].split(".")[-1] for n in names}
    if expected == "everything":
        assert all(p.requires_grad for p in trainer.model.parameters())
    elif expected == "magnitude":
        assert any("lora_magnitude" in n for n in names)
    elif expected == "scaled":
        layer = next(m for m in trainer.model.modules() if hasattr(m, "lora_A"))
        assert layer.scaling["default"] == pytest.approx(16 / 64**0.5)
    else:
        assert kinds == ({"q_proj", "v_proj"} if "q_proj" in expected else {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
    assert trainer.args.learning_rate == recipe.learning_rate and trainer.args.seed == recipe.seed
    assert trainer.args.bf16 == models.has_fast_bf16()


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_the_loss_looks_at_what_the_recipe_says(tiny, tokenizer, loss_on):
    import copy

    trainer = tuning.trainer_for(copy.deepcopy(tiny), tokenizer, TONE[:4], replace(BASE, rows=4, loss_on=loss_on))
    batch = trainer.data_collator([trainer.train_dataset[0]])
    trained = (batch["labels"][0] != -100).float().mean()
    assert (trained == 1) if loss_on == "all" else (0 < trained < 0.2)


def test_each_run_stands_once_and_methods_differ_in_method_need_and_seed_only():
    assert len(set(tuning.RUNS)) == len(tuning.RUNS)
    trained = [r for r in tuning.METHODS if r.method != "none"]
    assert len(trained) == 3 * (4 + 3) and {r.split for r in trained} == {"test"}
    assert len({replace(r, method="lora", need="tone", seed=0, learning_rate=0.0, epochs=1) for r in trained}) == 1
    assert {r.split for r in (*tuning.RATES, *tuning.RANKS)} == {"validation"}, "knobs are chosen on validation rows"


def test_a_trained_model_is_scored_and_its_adapter_weighed(tiny, tokenizer):
    import copy

    trainer = tuning.trainer_for(copy.deepcopy(tiny), tokenizer, TONE[:4], replace(BASE, rows=4))
    trainer.train()
    found = tuning._scored(trainer.model.eval(), tokenizer, TONE[:6], "tone")
    assert len(found["hits"]) == 6 == found["score"][3] == found["loss"][3] and found["score"][0] == round(sum(found["hits"]) / 6, 3)
    trained, _ = training.trainable_parameters(trainer.model)
    assert tuning._saved_mb(trainer.model) == pytest.approx(trained * 4 / 1e6, abs=0.15)
