"""labs/starters/compare.py: alone in an empty folder, differences by hand, and systems of a tiny model side by side."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from helpers import decisions
from test_starter_tune import runner  # noqa: F401  (a fixture)

SCRIPT = Path(__file__).resolve().parent.parent / "labs/starters/compare.py"
PUBLIC = {"numpy", "peft", "sentence_transformers", "torch", "transformers", "rouge_score", "scipy"}
GOLD = ["red"] * 3 + ["blue"] * 3 + ["green"] * 3
FIRST = ["red", "blue", "x", "Blue.", "x", "x", "green", "x", "x"]  # 3 of 9 labels right
SECOND = ["Red", "red", "x", "blue", "blue", "blue", "x", "green", "green"]  # 7 of 9; better on 5 rows, worse on 1


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("starter_compare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """An empty folder with the script, rows to judge by, rows to learn from, and the answers of two systems."""
    shutil.copy(SCRIPT, tmp_path)
    jsonl(tmp_path / "test.jsonl", [{"id": f"r{n}", "prompt": f"Colour {n}?", "completion": gold} for n, gold in enumerate(GOLD)])
    jsonl(tmp_path / "train.jsonl", [{"prompt": f"Paint {n}?", "completion": gold} for n, gold in enumerate(GOLD)])
    for name, answers in (("first", FIRST), ("second", SECOND)):
        jsonl(tmp_path / f"{name}.jsonl", [{"id": f"r{n}", "prompt": [{"role": "user", "content": f"Colour {n}?"}], "gold": gold, "answer": answer}
                                           for n, (gold, answer) in reversed(list(enumerate(zip(GOLD, answers))))])
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-I", "compare.py", *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})


TWO = ("test.jsonl", "before=predictions:first.jsonl", "after=predictions:second.jsonl")


# ---------------------------------------------------------------- the file


def test_it_is_one_short_file_that_needs_public_libraries_only():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300 and max(map(len, text.splitlines())) <= 150
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    names = {(a.name if isinstance(n, ast.Import) else n.module).split(".")[0] for n in nodes for a in n.names}
    assert names - set(sys.stdlib_module_names) <= PUBLIC


def test_what_both_starters_share_is_the_same():
    """Each file stands alone, so they hold the same functions twice; a mend in one must reach the other."""
    shared = [path.read_text(encoding="utf-8").split("\ndef source_of")[1] for path in (SCRIPT, SCRIPT.with_name("rag.py"))]
    assert shared[0] == shared[1]


# ---------------------------------------------------------------- what a user gets wrong


@pytest.mark.parametrize("arguments, words", [
    (["--help"], ["few-shot:K", "predictions:FILE", "pip install"]),
    ([*TWO, "--no-such-flag"], ["--no-such-flag"]),
    (["test.jsonl", "base"], ["two or more systems"]),
    (["test.jsonl", "base", "base"], ["a name of its own"]),
    (["test.jsonl", "base", "few-shots:2"], ["few-shots:2", "few-shot:8", "Fix"]),
    (["test.jsonl", "base", "few-shot:zero"], ["few-shot:zero", "Fix"]),
    (["missing.jsonl", *TWO[1:]], ["missing.jsonl", "No such file"]),
    (["bad.jsonl", *TWO[1:]], ["bad.jsonl, line 2", "one JSON object", "Fix"]),
    (["empty.jsonl", *TWO[1:]], ["empty.jsonl", "at least one row", "Fix"]),
    (["test.jsonl", "base", "few-shot:2"], ["--train", "at least 2 rows", "Fix"]),
    ([*TWO, "--train", "leak.jsonl"], ["test.jsonl", "no row of leak.jsonl", "r3 (there 2)", "Fix"]),
    ([*TWO[:2], "after=predictions:other.jsonl"], ["other.jsonl", "'r0'", "Fix"]),
    (["test.jsonl", "base", "adapter:nothing"], ["adapter:nothing", "a PEFT adapter", "Fix"]),
    (["test.jsonl", "base", "few-shot:1", "--train", "train.jsonl", "--model", "./no/such"], ["--model", "no/such", "Fix"]),
    ([*TWO, "--out", "there"], ["--out there", "--force"]),
])
def test_a_mistake_is_named_at_once(folder, arguments, words):
    (folder / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    (folder / "empty.jsonl").write_text("")
    (folder / "there").mkdir()
    jsonl(folder / "leak.jsonl", [{"prompt": "Else?", "completion": "red"}, {"prompt": " colour  3?", "completion": "red"}])
    jsonl(folder / "other.jsonl", [{"id": f"r{n}", "prompt": [], "gold": "pink", "answer": "pink"} for n in range(6)])
    before = sorted(folder.rglob("*"))
    done = run(folder, *arguments)
    said = done.stdout + done.stderr
    assert all(word in said for word in words) and "Traceback" not in said, said
    assert done.returncode == (0 if "--help" in arguments else 2 if "usage" in said else 1)
    assert sorted(folder.rglob("*")) == before


def test_the_default_model_that_is_not_there_says_how_to_get_it(folder):
    done = run(folder, "test.jsonl", "base", "few-shot:1", "--train", "train.jsonl", COURSE_CACHE=str(folder / "cache"), COURSE_MODEL="")
    assert done.returncode == 1 and "course.py lab" in done.stderr and str(folder / "cache") in done.stderr, done.stderr


def test_a_model_that_nobody_has_is_named_without_a_traceback(folder):
    done = run(folder, "test.jsonl", "base", "few-shot:1", "--train", "train.jsonl", "--model", "no-such/model", HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "no-such/model" in done.stderr and "Fix" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (folder / "comparison").exists()


# ---------------------------------------------------------------- scores and differences by hand


def test_a_paired_difference_by_hand(compare):
    ours, first = np.array([1, 1, 1, 1, 0, 1.0]), np.array([1, 0, 0, 1, 0, 0.0])
    found = compare.difference(ours, first)
    assert found["mean"][0] == 0.5 and (found["better"], found["worse"]) == (3, 0) and found["verdict"] == "better"
    back = compare.difference(first, ours)
    assert back["mean"][0] == -0.5 and (back["better"], back["worse"]) == (0, 3) and back["verdict"] == "worse"
    assert compare.difference(ours, ours)["verdict"] == "cannot tell"
    one_each = compare.difference(np.array([1, 0, 0, 0.0]), np.array([0, 1, 0, 0.0]))
    assert one_each["mean"][0] == 0 and one_each["verdict"] == "cannot tell" and (one_each["better"], one_each["worse"]) == (1, 1)


def test_the_interval_of_a_difference_is_that_of_the_course(compare):
    from helpers import evaluation

    rng = np.random.default_rng(0)
    a, b = rng.random(80) < 0.7, rng.random(80) < 0.5
    ours, theirs = compare.difference(a.astype(float), b.astype(float))["mean"], evaluation.compare_paired(a, b)
    assert ours == pytest.approx([theirs.estimate, theirs.low, theirs.high], abs=0.03)


def test_each_kind_of_gold_answer_gets_its_own_metrics(compare):
    labels = compare.score(GOLD, FIRST)
    assert labels["exact match"].tolist() == [1, 0, 0, 0, 0, 0, 1, 0, 0] and labels["label accuracy"].tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0]
    texts = compare.score(["the cat sat", "a dog ran", "birds fly high"], ["the cat", "a dog ran", "no"])
    assert texts["ROUGE-L"].tolist() == pytest.approx([0.8, 1, 0]) and texts["exact match"].tolist() == [0, 1, 0]
    records = compare.score(['{"a": 1, "b": true}'] * 4, ['{"b": true, "a": 1}', '{"a": true, "b": true}', "no JSON", '[1]'])
    assert records["exact match"].tolist() == [1, 0, 0, 0] and records["valid JSON"].tolist() == [1, 1, 0, 0]
    assert records["field accuracy"].tolist() == [1, 0.5, 0, 0], "1 is not true"


def test_few_shot_shows_each_answer_as_often_as_the_others(compare):
    train = [{"id": str(n), "messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": g}]} for n, g in enumerate("aaaaaaaabc")]
    shown = compare.examples(Namespace(), {"few-shot": "6"}, [{}, {}], train)
    assert shown[0] == shown[1] and sorted(row["messages"][-1]["content"] for row in shown[0]) == ["a", "a", "a", "a", "b", "c"]
    assert [row["messages"][-1]["content"] for row in shown[0][:3]] != ["a", "a", "a"]


def turns(*roles):
    return [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)]


def test_examples_stand_between_the_instruction_and_the_question(compare):
    row, shot = {"id": "1", "messages": turns("system", "user", "assistant")}, {"messages": turns("system", "user", "assistant")}
    prompt = compare.asked(row, {"turns": {"1": row["messages"][:-1]}, "shown": {"1": [shot, shot]}})
    assert [turn["role"] for turn in prompt] == ["system", "user", "assistant", "user", "assistant", "user"]


def test_examples_that_do_not_fit_are_left_out_from_the_first_on(compare):
    """The last one of `nearest` is the most like, so it goes last. What stays too long without examples is stopped later, with numbers."""
    tokenizer = Namespace(apply_chat_template=lambda prompt, **_: [0] * 10 * len(prompt))
    shots = [{"messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "x"}]} for n in range(4)]
    row = {"id": "1", "messages": turns("system", "user", "assistant")}
    system = {"turns": {"1": row["messages"][:-1]}, "shown": {"1": shots}}
    assert compare.fitting(row, system, tokenizer, 1000)[1] == 0
    prompt, left_out = compare.fitting(row, system, tokenizer, 65)
    assert left_out == 2 and [turn["content"] for turn in prompt] == ["system 0", "2", "x", "3", "x", "user 1"]
    assert compare.fitting(row, system, tokenizer, 5) == (row["messages"][:-1], 4)


def test_a_system_is_read_from_its_name_and_parts(compare):
    assert compare.parse_system("base") == {"name": "base", "base": ""}
    assert compare.parse_system("a b=nearest:4+adapter:out/x-1") == {"name": "a b", "nearest": "4", "adapter": "out/x-1"}
    assert compare.parse_system("model:org/name")["model"] == "org/name"


# ---------------------------------------------------------------- alone in an empty folder


def test_two_prediction_files_without_any_model(folder):
    done = run(folder, *TWO, "--train", "train.jsonl")
    assert done.returncode == 0, done.stderr
    out = folder / "comparison"
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "predictions_after.jsonl", "predictions_before.jsonl", "report.md"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["scores"]["before"]["label accuracy"][0] == 0.3333 and metrics["scores"]["after"]["label accuracy"][0] == 0.7778
    lead = metrics["against"]["before"]["after"]["label accuracy"]
    assert lead["mean"][0] == 0.4444 and (lead["better"], lead["worse"]) == (5, 1)
    report = (out / "report.md").read_text()
    assert report.strip() == done.stdout.strip() and "| after | label accuracy | +0.444" in report and "too narrow" in report
    (out / "mine.txt").write_text("keep")
    assert run(folder, *TWO).returncode == 1, "nothing is overwritten"
    again = run(folder, TWO[0], *reversed(TWO[1:]), "--force")
    assert again.returncode == 0 and (out / "mine.txt").read_text() == "keep" and "Against after" in (out / "report.md").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_named_and_leaves_nothing(runner, folder):  # noqa: F811
    """A limit on the size of a file stands for the full disk: the scores do not fit, and the files before them go, too."""
    done = runner(folder, "compare.py", *TWO, largest_file=1000)
    assert done.code == 1 and "disk is full" in done.err and "Fix" in done.err and "Traceback" not in done.err, done.err
    assert not (folder / "comparison").exists() and not list(folder.glob("part-*"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from helpers import models

    folder, tokenizer = tmp_path_factory.mktemp("models"), models.load_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny")
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder / "tuned/adapter")
    return folder


def test_systems_of_a_tiny_model_side_by_side(folder, tiny):
    """The adapter's own base is taken when no model is named; examples cost tokens; ready answers are scored as they are."""
    systems = ["base", "few-shot:3", "nearest:1", f"tuned=adapter:{tiny / 'tuned'}", "ready=predictions:second.jsonl",
               f"both=prompts:first.jsonl+adapter:{tiny / 'tuned/adapter'}"]
    done = run(folder, "test.jsonl", *systems, "--train", "train.jsonl", "--max-new-tokens", "4", COURSE_MODEL="")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((folder / "comparison/metrics.json").read_text())
    tokens = {name: cost["prompt_tokens"] for name, cost in metrics["costs"].items()}
    assert tokens["few-shot:3"] > tokens["nearest:1"] > tokens["base"] == tokens["tuned"] == tokens["both"] and tokens["ready"] is None
    assert metrics["costs"]["ready"]["seconds"] is None and metrics["costs"]["base"]["seconds"] > 0
    assert metrics["scores"]["ready"]["label accuracy"][0] == 0.7778 and metrics["settings"]["model"] == str(tiny / "tiny")
    ids = {tuple(json.loads(line)["id"] for line in path.read_text().splitlines()) for path in (folder / "comparison").glob("predictions_*")}
    assert ids == {tuple(f"r{n}" for n in range(9))}, "the rows of all systems stand in one order, so that pairs are pairs"
    said = {name: (folder / f"comparison/predictions_{name}.jsonl").read_text() for name in ("base", "tuned", "both")}
    assert said["base"] != said["tuned"], "the adapter changes the answers"
    assert [json.loads(line)["answer"] for line in said["tuned"].splitlines()] == [json.loads(line)["answer"] for line in said["both"].splitlines()]


def test_a_comparison_says_whose_examples_did_not_fit(folder, tiny):
    config = json.loads((tiny / "tiny" / "config.json").read_text())
    short = shutil.copytree(tiny / "tiny", folder / "short")
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 80}))
    done = run(folder, "test.jsonl", "base", "few-shot:6", "--train", "train.jsonl", "--model", "short", "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert "few-shot:6: 9 rows see up to" in (folder / "comparison/report.md").read_text() and "to fit 80 tokens" in done.stdout


def test_ctrl_c_leaves_nothing_half_written(folder, tiny):
    command = [sys.executable, "-I", "compare.py", "test.jsonl", "few-shot:1", "base", "--train", "train.jsonl", "--model", str(tiny / "tiny"),
               "--max-new-tokens", "1500", "--batch-size", "1"]
    before = sorted(folder.rglob("*"))
    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert "few-shot:1" in child.stderr.readline()
    child.send_signal(signal.SIGINT)
    assert child.wait(300) == 130 and "Stopped" in child.stderr.read()
    assert sorted(folder.rglob("*")) == before


# ---------------------------------------------------------------- the README beside the scripts


def stored(family: str, **recipe) -> list[dict]:
    lines = (SCRIPT.parents[2] / f"lessons/results/{family}.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if all(row["recipe"][key] == value for key, value in recipe.items())]


def test_the_readme_tells_what_the_stored_rows_say():
    readme = (SCRIPT.parent / "README.md").read_text(encoding="utf-8")
    reading, prompts = stored("reading")[0], {need: stored("prompts", need=need, split="test")[0] for need in ("extract", "tone", "reply")}
    tuned = {need: stored("difficulty", need=need, epochs=epochs)[0] for need, epochs in (("extract", 3), ("tone", 2))}
    runs = {(need, method): stored("tuning", need=need, method=method, split="test", probe=True) for need in ("tone", "extract") for method in ("lora", "full")}
    shots = {"need": "tone", "split": "validation", "k": 8, "decode": "written"}
    near, fixed = stored("prompts", choice="nearest", **shots)[0], stored("prompts", choice="balanced", **shots)[0]
    scores = [reading["1"][kind]["right"] for kind in ("closed book", "retrieved", "gold")] + [reading["2"][kind]["changed"] for kind in ("stale", "retrieved")]
    scores += [row["score"] for row in (*prompts.values(), near, fixed)] + [row["exact"] for row in tuned.values()]
    for score in scores:
        assert "{:.3f} [{:.3f}, {:.3f}]".format(*score[:3]) in readme, score
    for few in (25, 200):
        rows = stored("tuning", need="tone", split="test", epochs=2, rows=few, start="pretrained", method="lora", copies=1, noise=0.0)
        right = [row["score"][0] for row in rows if row["recipe"]["seed"] in (0, 1, 2)]
        assert len(right) == 3 and f"{few} rows {min(right):.2f} to {max(right):.2f}" in readme, right
    for need in ("answer", "reply"):
        score = decisions.measured(need, decisions.stored_rows())["RAG + LoRA"].score
        assert f"{score}, mean of three seeds" in readme, score
    step = {"model": "135M", "batch": 4, "length": 128, "answer": 32, "checkpointing": False, "optimizer": "adamw", "rank": 16, "targets": "all-linear"}
    steps = {method: stored("costs", method=method, loss="answer", **step)[0] for method in ("lora", "qlora", "dora", "full")}
    assert "LoRA {:.2f} GB, QLoRA {:.2f}, DoRA {:.2f}, all weights {:.2f}.".format(*(row["peak_gb"] for row in steps.values())) in readme
    every = stored("costs", method="lora", loss="tiles", **step)[0]
    assert f"a step of {steps['lora']['seconds']:.2f} s instead of {every['seconds']:.2f}" in readme
    assert f"a peak of {steps['lora']['peak_gb']:.2f} GB instead of {every['peak_gb']:.2f}" in readme
    for need in tuned:
        assert f"{tuned[need]['train_rows']} rows" in readme and f"in {tuned[need]['minutes']} minutes" in readme
    assert f"{prompts['extract']['prompt_tokens']} prompt tokens" in readme
    for need in ("tone", "extract"):
        lora, full = (sum(row["score"][0] for row in runs[need, method]) / 3 for method in ("lora", "full"))
        assert f"LoRA {lora:.3f} and all weights {full:.3f}" in readme, need
    assert f"An adapter has {runs['tone', 'lora'][0]['adapter_mb']:.0f} MB, all weights {runs['tone', 'full'][0]['adapter_mb']:.0f} MB" in readme
