"""Nothing of a training is lost: killed, resumed, out of disk, a loss that is no number, rows that cannot be trained on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_training import ROWS, run, tiny, tokenizer, trainer_for  # noqa: F401  (fixtures)

from helpers import training
from helpers.training import checkpoints

STEPS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


def guarded(tiny, tokenizer, folder, **changes):
    return training.guard(training.answer_loss_only(trainer_for(tiny, tokenizer, folder, **{**STEPS, **changes})))


@pytest.mark.parametrize("lora", [True, False], ids=["LoRA", "full"])
def test_a_resumed_training_ends_as_the_uninterrupted_one(tiny, tokenizer, tmp_path, lora):
    whole = guarded(tiny, tokenizer, tmp_path / "whole", lora=lora)
    losses = run(whole)
    assert training.last_checkpoint(tmp_path / "whole").endswith("checkpoint-6")
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    again = guarded(tiny, tokenizer, tmp_path / "cut", lora=lora)
    again.train(resume_from_checkpoint=training.last_checkpoint(tmp_path / "cut"))
    assert training.loss_history(again) == losses, "the log of the first two steps stands in the checkpoint"
    weights, others = (dict(t.model.named_parameters()) for t in (whole, again))
    assert all((weights[name] == others[name]).all() for name in weights)


KILLS = textwrap.dedent("""
    import json, os, signal, sys, time
    from pathlib import Path
    import torch
    from test_training import ROWS, trainer_for
    from test_checkpoints import STEPS
    from transformers import AutoConfig, AutoModelForCausalLM
    from helpers import models, training

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    tokenizer = models.load_tokenizer()

    def train(where, resume=None):
        training.quiet()
        torch.manual_seed(0)
        config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                      num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2)
        trainer = training.guard(trainer_for(AutoModelForCausalLM.from_config(config), tokenizer, where, lora=False, **{**STEPS, "save_steps": 1}))
        trainer.train(resume_from_checkpoint=resume)
        (where / "losses.json").write_text(json.dumps(training.loss_history(trainer)))

    def forked(where, resume=None, seconds=None):
        if not (child := os.fork()):
            code = 1
            try:
                train(where, resume)
                code = 0
            finally:
                os._exit(code)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]

    start = time.monotonic()
    assert forked(folder / "whole") == 0
    took = time.monotonic() - start
    expected = json.loads((folder / "whole" / "losses.json").read_text())
    found = []
    for n in range(10):
        where = folder / str(n)
        ended = forked(where, seconds=took * (0.3 + 0.065 * n)) == 0
        left = sorted(path.name for path in where.glob("checkpoint-*"))
        whole = training.last_checkpoint(where)
        assert forked(where, resume=whole) == 0
        losses = json.loads((where / "losses.json").read_text())
        found.append({"ended": ended, "left": left, "whole": whole and Path(whole).name, "same": losses == expected})
    print(json.dumps(found))
""")


@pytest.mark.trains  # takes a quarter of a minute or more
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_killed_at_any_moment_the_last_whole_checkpoint_goes_on_to_the_same_end(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLS, str(tmp_path)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert all(kill["same"] for kill in found), found
    assert sum(not kill["ended"] for kill in found) >= 5 and any(kill["whole"] for kill in found if not kill["ended"]), f"the kills came at no useful moment: {found}"


def test_a_checkpoint_with_a_file_missing_or_cut_short_is_passed_over(tiny, tokenizer, tmp_path):
    run(guarded(tiny, tokenizer, tmp_path))
    assert training.last_checkpoint(tmp_path).endswith("-6")
    (tmp_path / "checkpoint-6" / "optimizer.pt").unlink()
    assert training.last_checkpoint(tmp_path).endswith("-4")
    weights = tmp_path / "checkpoint-4" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert training.last_checkpoint(tmp_path).endswith("-2")
    (tmp_path / "checkpoint-2" / "whole.json").write_text("{")
    assert training.last_checkpoint(tmp_path) is None and training.last_checkpoint(tmp_path / "never") is None


def test_a_new_training_in_the_same_folder_does_not_take_the_old_ones_checkpoints_for_its_own(tiny, tokenizer, tmp_path):
    run(guarded(tiny, tokenizer, tmp_path))
    run(guarded(tiny, tokenizer, tmp_path, max_steps=2))
    assert training.last_checkpoint(tmp_path).endswith("checkpoint-2")


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoilt(tiny, tokenizer, tmp_path):
    trainer = guarded(tiny, tokenizer, tmp_path, learning_rate=1e30, lora=False)
    with pytest.raises(training.TrainingError, match=r"Step \d: expected finite gradients, got a value that is no number .*Fix: lower the learning rate"):
        trainer.train()
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_a_full_disk_is_seen_before_a_checkpoint_is_begun(tiny, tokenizer, tmp_path, monkeypatch):
    real, free = shutil.disk_usage(tmp_path), [10**9, 10**9, 10**9, 10**6]  # enough at the start and for two checkpoints, not for the third
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: real._replace(free=free.pop(0) if len(free) > 1 else free[0]))
    trainer = guarded(tiny, tokenizer, tmp_path, lora=False, save_steps=1)
    with pytest.raises(training.TrainingError, match=r"expected \d+ MB free for a checkpoint, got 1 MB\. .*checkpoint-2\. Fix"):
        trainer.train()
    assert [p.name for p in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-1", "checkpoint-2"]
    assert training.last_checkpoint(tmp_path).endswith("checkpoint-2")


def as_chat(number: int, answer: str = "Four.") -> dict:
    return {"id": f"r-{number}", "messages": [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize("rows, said", [
    ([], "expected at least 2, got 0"), ([as_chat(1)], "expected at least 2, got 1"),
    ([as_chat(1), as_chat(2, "x " * 300)], "row r-2: expected at most 256 tokens, got "), ([as_chat(1), as_chat(2, " ")], "row r-2: expected an answer to learn, got an empty one"),
    ([as_chat(1), {"id": "r-2", "messages": as_chat(2)["messages"][:1]}], "row r-2: expected the last message to be the assistant's answer, got user"),
    ([as_chat(1), {"messages": []}], "row 1: expected the last message to be the assistant's answer, got no message"),
])
def test_rows_that_cannot_be_trained_on_are_refused_by_name(tokenizer, rows, said):
    with pytest.raises(training.TrainingError, match=said) as error:
        training.check_rows(rows, tokenizer, longest=256)
    assert "Fix: " in str(error.value)


def test_rows_that_can_be_trained_on_are_counted(tokenizer):
    rows = [as_chat(n) for n in range(3)]
    assert training.check_rows(rows, tokenizer) == 3 * len(tokenizer.apply_chat_template(rows[0]["messages"])["input_ids"])
