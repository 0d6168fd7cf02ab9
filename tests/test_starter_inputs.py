"""labs/starters: files as people really have them, and runs that are stopped. Each message says what to do next."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_starter_tune import chat, facts, flags, place, runner, tiny, tune, write_rows  # noqa: F401  (fixtures)
from transformers import AutoConfig

from helpers import models

HEAD = "text,label\n"


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer()


# ------------------------------------------------------------------ tune.py: files as they come out of other programs


@pytest.mark.parametrize("data", [
    b"\xef\xbb\xbf" + b"text,label\nhello,calm\n",
    "text,label\nhello,calm\n".encode("utf-16"),
    b"text;label\nhello;calm\n",
    b"text\tlabel\nhello\tcalm\n",
    b"text, label\r\nhello, calm\r\n\r\n",
], ids=["BOM", "UTF-16", "semicolons", "tabs", "spaces, empty lines"])
def test_a_csv_file_of_any_spreadsheet_is_read(tune, tokenizer, tmp_path, data):  # noqa: F811
    (tmp_path / "rows.csv").write_bytes(data)
    rows = tune.read(str(tmp_path / "rows.csv"), "text,label", tokenizer)
    assert [(row["prompt"][-1]["content"], row["gold"]) for row in rows] == [("hello", "calm")]


def test_a_json_file_with_a_mark_and_empty_lines_is_read(tune, tokenizer, tmp_path):  # noqa: F811
    line = json.dumps(chat(1))
    (tmp_path / "rows.jsonl").write_text(f"\ufeff\n{line}\n\n  \n{line}", encoding="utf-8")
    assert [row["line"] for row in tune.read(str(tmp_path / "rows.jsonl"), "", tokenizer)] == [2, 5]


@pytest.mark.parametrize("name, text, words", [
    ("rows.csv", "question,reply\na,b\n", ["rows.csv, line 1", "['question', 'reply']", '--columns "question,reply"']),
    ("rows.csv", HEAD + "good, but late,angry\n", ["line 2", "between double quotes"]),
    ("rows.csv", HEAD + "hello,calm\nhello,\n", ["line 3", "'content': ''"]),
    ("rows.csv", HEAD + "hello\n", ["line 2", "found"]),
    ("rows.csv", HEAD, ["found none"]),
    ("rows.jsonl", "[\n" + json.dumps(chat(1)) + "]", ["a JSON array", "jq -c '.[]'", "> rows.jsonl"]),
    ("rows.jsonl", '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null}]}', ["line 1", "'content': None"]),
    ("rows.jsonl", '{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}', ["last turn, the assistant's answer"]),
    ("rows.jsonl", "{'prompt': 'a', 'completion': 'b'}", ["line 1", "double quotes"]),
    ("rows.jsonl", '{"prompt": 3, "completion": "b"}', ["line 1", "'content': 3"]),
])
def test_what_cannot_be_read_is_named_with_the_next_step(tune, tokenizer, tmp_path, name, text, words):  # noqa: F811
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        tune.read(str(tmp_path / name), "text,label", tokenizer)
    said = str(stopped.value)
    assert all(word in said for word in [": expected ", ", found ", ". Fix: ", *words]), said


def test_a_row_that_the_chat_template_refuses_is_named(tune, tmp_path):  # noqa: F811
    tokenizer = models.load_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    write_rows(tmp_path / "rows.jsonl", [chat(1)])
    with pytest.raises(SystemExit, match=r"rows\.jsonl, line 1: .+ found System role not supported\. Fix"):
        tune.read(str(tmp_path / "rows.jsonl"), "", tokenizer)


def test_the_file_to_learn_from_is_not_the_file_to_judge_by(runner, place, tiny):  # noqa: F811
    done = runner(place, *flags(tiny, eval="./train.jsonl"))
    assert done.code == 1 and "found the same file" in done.err and "every fifth row" in done.err, done.err


def test_a_row_to_judge_by_that_is_too_long_is_named(tune, tokenizer):  # noqa: F811
    rows, held = ([tune.row_of(chat(n), 7, tokenizer, False)] for n in (1, 2))
    held[0]["longest"] = 10_000
    with pytest.raises(SystemExit, match=r"at most 2048 tokens .+ test\.jsonl, line 7"):
        tune.look(tune.Settings(), rows, held, tokenizer, 2048)


def test_the_rejected_answer_counts(tune, tokenizer):  # noqa: F811
    """It is the longer one here: in tokens, in the longest row, and so in the memory."""
    given = {**chat(1), "rejected": "no " * 50}
    pair, alone = (tune.row_of(given, 1, tokenizer, pairs) for pairs in (True, False))
    assert alone["tokens"] == alone["longest"] == len(alone["ids"])
    assert pair["longest"] > len(pair["ids"]) + 40 and pair["tokens"] == len(pair["ids"]) + pair["longest"]
    held, room = [tune.row_of(chat(50), 1, tokenizer, False)], pair["longest"]
    assert f"{pair['tokens']} tokens, {room} in the longest" in tune.look(tune.Settings(), [pair], held, tokenizer, room)
    with pytest.raises(SystemExit, match=f"at most {room - 1} tokens"):
        tune.look(tune.Settings(), [pair], held, tokenizer, room - 1)


@pytest.mark.parametrize("device, method, precision, knobs", [
    ("cpu", "full", "float32", ["close programs", "--precision bfloat16", "--method lora", "longest rows", "a smaller --model"]),
    ("cpu", "lora", "bfloat16", ["close programs", "longest rows", "a smaller --model"]),
    ("cuda", "lora", "bfloat16", ["close programs", "--method qlora", "longest rows", "a smaller --model"]),
    ("cpu", "dpo", "bfloat16", ["close programs", "longest rows", "a smaller --model"]),
])
def test_a_model_that_does_not_fit_names_the_knobs_by_their_loss(monkeypatch, tune, device, method, precision, knobs):  # noqa: F811
    """Packed weights save nothing on a CPU, so there it must not be advised."""
    config = AutoConfig.for_model("llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, vocab_size=500)
    monkeypatch.setattr(tune.psutil, "virtual_memory", lambda: SimpleNamespace(available=1e6))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1e6, 1e6))
    with pytest.raises(SystemExit) as stopped:
        tune.fit(tune.Settings(method=method, precision=precision), config, 64, 16, SimpleNamespace(device=torch.device(device), num_processes=1))
    said = str(stopped.value).split("Fix: ")[1]
    assert [said.find(knob) for knob in knobs] == sorted(said.find(knob) for knob in knobs) and -1 not in map(said.find, knobs), said
    assert said.count("--method") == sum("--method" in knob for knob in knobs), said


# ------------------------------------------------------------------ tune.py: stopped, gone on, given back


def stop_when(runner, folder: Path, command: list[str], there) -> None:  # noqa: F811
    """Start a run, and kill it as soon as `there()` is true."""
    child, deadline = runner.start(folder, *command)[0], time.monotonic() + 900
    while not there() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    runner.end()


def test_resume_refuses_other_settings_and_other_rows(runner, place, tiny):  # noqa: F811
    command = flags(tiny, epochs=50)
    done = runner(place, *command, "--resume")
    assert done.code == 1 and "a stopped run" in done.err and "without --resume" in done.err and not list(place.glob("tuned*")), done.err
    stop_when(runner, place, command, (place / "tuned.part/tune.yaml").is_file)
    done = runner(place, *command)
    assert done.code == 1 and "--resume, --force" in done.err, done.err
    done = runner(place, *flags(tiny, epochs=2), "--resume")
    assert done.code == 1 and "found epochs: 2.0. Fix: give the same flags" in done.err, done.err
    write_rows(place / "train.jsonl", [chat(n) for n in range(9)])
    done = runner(place, *command, "--resume")
    assert done.code == 1 and "found # train: sha256" in done.err and "# eval" not in done.err, done.err


def run_out_of_patience(runner, place: Path, tiny: Path, patience: int):  # noqa: F811
    """Such large steps make it worse from the start, so the first check is the best. The flags, and what the run left."""
    write_rows(place / "train.jsonl", [chat(n) for n in range(20)])
    command = flags(tiny, method="full", learning_rate=1.0, patience=patience, epochs=8)
    assert runner(place, *command).code == 0
    return command, facts(place / "tuned")


@pytest.mark.trains
def test_patience_counts_on_after_a_kill(runner, place, tiny):  # noqa: F811
    """Two later checks use the patience up, one before the kill and one after it."""
    command, whole = run_out_of_patience(runner, place, tiny, patience=2)
    states = place / "cut.part/checkpoints"
    stop_when(runner, place, [*command, "--output", "cut"],
              lambda: any('patience_counter": 1\n' in f.read_text() for f in states.glob("*/trainer_state.json")))
    assert not (place / "cut").exists()
    done = runner(place, *command, "--output", "cut", "--resume")
    cut = facts(place / "cut")
    assert done.code == 0 and cut["minutes_from"] != "the start"
    assert cut["losses"] == pytest.approx(whole["losses"], rel=1e-4) and cut["scores"] == whole["scores"]


@pytest.mark.trains
def test_patience_that_was_used_up_before_a_kill_ends_the_same(runner, place, tiny):  # noqa: F811
    """Killed between its last checkpoint and its end, a run must not learn longer than it would have."""
    command, whole = run_out_of_patience(runner, place, tiny, patience=1)
    (place / "tuned").rename(place / "tuned.part")
    done = runner(place, *command, "--resume")
    assert done.code == 0 and facts(place / "tuned")["losses"] == pytest.approx(whole["losses"], rel=1e-4), done.err


def run_here(tune, monkeypatch, folder: Path, tiny: Path, **more) -> None:  # noqa: F811
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    tune.main(tune.Settings(model=str(tiny), precision="float32", epochs=1, **more))


@pytest.mark.trains
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_trained_model_is_given_back_before_the_last_judging(monkeypatch, tune, place, tiny, method):  # noqa: F811
    """Else two models and the optimizer are in memory at once, which the prediction does not count."""
    first, alive, load = [], [], tune.load

    def watched(*given):
        alive.extend(model() is not None for model in first)
        first.append(weakref.ref(model := load(*given)))
        return model

    monkeypatch.setattr(tune, "load", watched)
    run_here(tune, monkeypatch, place, tiny, method=method)
    assert len(first) == 2 and alive == [False]


def test_the_settings_are_there_whole_or_not_at_all(monkeypatch, tune, place, tiny):  # noqa: F811
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_here(tune, monkeypatch, place, tiny)
    assert not (place / "tuned.part/tune.yaml").exists()


@pytest.mark.parametrize("output, words", [("train.jsonl/tuned", ["Not a directory"]), ("tuned", ["found ['tuned']", "--force"])])
def test_a_folder_that_cannot_be_used_is_named(runner, place, tiny, output, words):  # noqa: F811
    if output == "tuned":
        (place / "tuned").mkdir()
    done = runner(place, *flags(tiny, output=output))
    assert done.code == 1 and all(word in done.err for word in [*words, "Fix: "]) and "--resume" not in done.err, done.err


# ------------------------------------------------------------------ the measured table of the README


def test_the_script_of_the_measured_table_makes_its_files_and_lines(tmp_path, tune, tokenizer):  # noqa: F811
    import starters_table as made

    made.write_files(tmp_path)
    for name, columns in (("tone", ""), ("library", ""), ("bicycles", "text,label")):
        rows, held = (tune.read(str(tmp_path / f"{name}-{part}.{made.SUFFIX[name]}"), columns, tokenizer) for part in ("train", "test"))
        tune.look(tune.Settings(), rows, held, tokenizer, 2048)
        assert len(rows) > 3 * len(held) > 60
    assert made.command("bicycles", tmp_path)[2:] == ["--method", "lora", "--train", "bicycles-train.csv", "--eval", "bicycles-test.csv",
                                                      "--output", "tuned-bicycles", "--columns", "text,label"]
    (tmp_path / "tuned-tone.part").mkdir()
    assert made.command("tone", tmp_path)[-1] == "--force"
    (tmp_path / "tuned-tone.part/tune.yaml").touch()
    assert made.command("tone", tmp_path)[-1] == "--resume" and "--force" not in made.command("tone", tmp_path)
    (tmp_path / "tuned-tone").mkdir()
    sides = {"before": [0.1, 0.05, 0.2], "after": [0.9, 0.8, 0.95], "difference": [0.8, 0.7, 0.9]}
    metrics = {"scores": {"exact_match": sides, "label_accuracy": sides}, "minutes": 4.0, "minutes_from": "the start", "peak_gb": 2.1,
               "data": {"train": {"rows": 448}, "eval": {"rows": 128}}}
    (tmp_path / "tuned-tone/metrics.json").write_text(json.dumps(metrics))
    lines = made.table(tmp_path).splitlines()
    assert "| 448 / 128 | label_accuracy | 0.100 [0.050, 0.200] | 0.900 [0.800, 0.950] | 0.800 [0.700, 0.900] | 4.0 | 2.1 |" in lines[2]
    assert "not measured" in lines[3] and len({line.count("|") for line in lines}) == 1
