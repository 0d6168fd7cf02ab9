"""Labs 07 and 10: what their checks and their text say is what the libraries do."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, EarlyStoppingCallback, Trainer, TrainerControl, TrainerState, TrainingArguments

from helpers import training
from helpers.checks import lab07, lab10


@pytest.mark.parametrize("name", lab07.CONFIGS)
def test_the_bytes_of_a_step_are_those_of_the_real_model(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **lab07.CONFIGS[name]))
    assert lab07.exercise_1.right(lab07.CONFIGS[name], 0)["weights"] == 4 * sum(p.numel() for p in model.parameters())


def test_gradients_and_averages_are_those_of_a_real_step():
    model = lab07.tiny_llama()
    ids = lab07._positions(2, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)
    need = lab07.exercise_1.right({"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                                   "num_key_value_heads": 2, "vocab_size": 40, "tie_word_embeddings": True}, 0)
    assert need == {"weights": size(model.parameters()), "gradients": size(p.grad for p in model.parameters()),
                    "adamw": size(s[k] for s in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq"))}


def test_parts_accumulate_to_the_gradient_of_the_large_batch():
    model, rows = lab07.tiny_llama(), [(4, 9), (3, 7), (6, 1), (8, 1)]
    (large,) = lab07.parts_of([rows])
    model.zero_grad()
    model(**large).loss.backward()  # transformers' own loss
    whole = torch.cat([p.grad.flatten() for p in model.parameters()])
    for parts in ([rows[:2], rows[2:]], [[row] for row in rows]):
        assert torch.allclose(lab07.exercise_2.right(model, lab07.parts_of(parts)), whole, rtol=1e-3, atol=1e-6)


def test_the_rule_that_stops_is_that_of_transformers(tmp_path):
    rng, args = random.Random(0), TrainingArguments(output_dir=str(tmp_path), eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
                                                    metric_for_best_model="eval_loss", greater_is_better=False, report_to="none", use_cpu=True)
    for _ in range(60):
        losses, patience = [rng.choice([0.3, 0.4, 0.5, 0.6, 0.7]) for _ in range(8)], rng.choice([1, 2, 3])
        rule, state, control, kept = EarlyStoppingCallback(patience), TrainerState(), TrainerControl(), 0
        for epoch, loss in enumerate(losses, start=1):
            rule.on_evaluate(args, state, control, metrics={"eval_loss": loss})
            if state.best_metric is None or loss < state.best_metric:  # as the trainer does after its callbacks
                state.best_metric, kept = loss, epoch
            if control.should_training_stop:
                break
        assert lab07.exercise_5.right(losses, patience) == (epoch, kept), (losses, patience)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Losses of six steps, resumed at the third from a checkpoint that lacks one file."""
    folder = tmp_path_factory.mktemp("resume")
    config = AutoConfig.for_model("llama", vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                  num_key_value_heads=2, attention_dropout=0.2)
    rows = [{"input_ids": ids, "labels": ids} for ids in lab07._positions(24, 8)]

    def run(resume=None):
        settings = training.quiet_settings(0) | {"save_strategy": "steps", "save_steps": 3}
        args = TrainingArguments(output_dir=str(folder / "run"), max_steps=6, per_device_train_batch_size=4, learning_rate=1e-2, **settings)
        trainer = Trainer(AutoModelForCausalLM.from_config(config), args, train_dataset=rows)
        trainer.train(resume_from_checkpoint=resume)
        return training.loss_history(trainer)

    whole = run()

    def without(file):
        lacking = folder / "lacking"
        shutil.rmtree(lacking, ignore_errors=True)
        shutil.copytree(folder / "run" / "checkpoint-3", lacking)
        if file:
            (lacking / file).unlink()
        return run(str(lacking))

    return whole, without


def test_the_quiz_on_checkpoints_says_what_the_trainer_does(resumed):
    whole, without = resumed
    assert without(None) == whole
    lost = without("optimizer.pt")
    assert lost[3] == whole[3] and lost[4] != whole[4] and lost[5] != whole[5]
    assert without("rng_state.pth")[3] != whole[3]
    for file in ("model.safetensors", "trainer_state.json"):
        with pytest.raises((ValueError, OSError)):
            without(file)


def test_the_six_patients_have_what_their_letters_hide():
    from helpers import models

    found = {letter: lab10.exercise_1.right(models.load_tokenizer(), run) for letter, run in lab10.patients().items()}
    assert found == {"A": ["prompt in the loss"], "B": ["no template"], "C": ["leak"], "D": ["end masked"], "E": [], "F": ["no template", "end masked"]}


def test_so_many_trials_hold_a_good_setting():
    assert lab10.exercise_5.right(0.05, 0.95) == 59
    rng, share, sure = random.Random(0), 0.1, 0.9
    searches = [any(rng.random() < share for _ in range(lab10.exercise_5.right(share, sure))) for _ in range(20_000)]
    assert sure - 0.01 < sum(searches) / len(searches) < sure + 0.02
