"""labs/starters/tune.py as a stranger runs it: the script alone in an empty folder, a tiny model, and all that can go wrong.

Importing the libraries takes most of a run. So one process imports them once and forks for every run; one test starts plain Python.
"""

from __future__ import annotations

import ast
import atexit
import csv
import functools
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM
from test_api_drift import look
from trl import SFTConfig, SFTTrainer

from helpers import costs, models, training

STARTERS = Path(__file__).resolve().parent.parent / "labs" / "starters"
SERVER = textwrap.dedent("""
    import json, os, runpy, sys, traceback, warnings
    import accelerate.utils, bitsandbytes, datasets, numpy, peft, psutil, rouge_score.rouge_scorer, torch, transformers, trl
    from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback, LlamaForCausalLM, Trainer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer, TrlParser

    def child(job, environment):
        os.chdir(job["folder"])
        os.environ.update(environment)
        for number, name in ((1, "out"), (2, "err")):
            handle = os.open(f"{job['name']}{environment.get('RANK', '')}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        if job["largest_file"]:
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
        torch.set_num_threads(1)
        sys.argv = job["command"]
        code = 1
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for environment in job["environments"]:
            if not (pid := os.fork()):
                child(job, environment)
            children.append(pid)
        print(json.dumps({"pids": children}), flush=True)
        print(json.dumps({"codes": [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]}), flush=True)
""")


class Done(NamedTuple):
    """How a run ended: exit code, what it printed, and what it complained of."""

    code: int
    out: str
    err: str


class Runner:
    """Runs scripts in forks of one process that has the libraries imported. `start` and `end` let a test act in between."""

    def __init__(self) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, env=environment)
        self._answer()

    def _answer(self) -> dict[str, Any]:
        return json.loads(self.process.stdout.readline())

    def start(self, folder: Path, *command: str, processes: int = 1, largest_file: int = 0) -> list[int]:
        self.job = {"folder": str(folder), "command": list(command), "name": "run", "largest_file": largest_file, "environments": [{}]}
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            self.job["environments"] = [
                {"RANK": str(n), "LOCAL_RANK": str(n), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"} for n in range(processes)]
        print(json.dumps(self.job), file=self.process.stdin, flush=True)
        return self._answer()["pids"]

    def end(self) -> Done:
        code = max(map(abs, self._answer()["codes"]))
        rank = "0" if len(self.job["environments"]) > 1 else ""
        out, err = ((Path(self.job["folder"]) / f"run{rank}.{kind}").read_text(encoding="utf-8") for kind in ("out", "err"))
        return Done(code, out, err)

    def __call__(self, folder: Path, *command: str, **knobs: Any) -> Done:
        self.start(folder, *command, **knobs)
        return self.end()


@functools.cache
def the_runner() -> Runner:
    """One for all tests of the starters, whichever file they stand in."""
    runner = Runner()
    atexit.register(runner.process.stdin.close)  # at the end of its input it ends itself
    return runner


@pytest.fixture(scope="session")
def runner() -> Runner:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    return the_runner()


# ------------------------------------------------------------------ a folder with the script, a model and rows in it


def chat(n: int, **more: Any) -> dict[str, Any]:
    return {"id": f"r{n}", "messages": [{"role": "user", "content": f"Is number {n} odd or even, and what is {n} times three?"},
                                        {"role": "assistant", "content": ["even", "odd"][n % 2]}], **more}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@functools.cache
def tiny_model(folder: Path) -> Path:
    tokenizer = models.load_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A random Llama of two layers with the course's tokenizer."""
    return tiny_model(tmp_path_factory.getbasetemp() / "tiny")


@pytest.fixture
def place(tmp_path) -> Path:
    """An empty folder with only the script, and rows to learn and to judge by."""
    (tmp_path / "tune.py").write_bytes((STARTERS / "tune.py").read_bytes())
    write_rows(tmp_path / "train.jsonl", [chat(n) for n in range(8)])
    write_rows(tmp_path / "test.jsonl", [chat(n) for n in range(100, 104)])
    return tmp_path


def flags(tiny: Path, **more: Any) -> list[str]:
    named = {"model": tiny, "precision": "float32", "epochs": 1, **more}
    return ["tune.py", *(part for name, value in named.items() for part in (f"--{name}", str(value)))]


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tune() -> Any:
    """The script as a module, for what needs no run."""
    spec = importlib.util.spec_from_file_location("tune", STARTERS / "tune.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tune"] = module
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------ the script as text


def test_it_is_one_short_file_of_public_libraries():
    text = (STARTERS / "tune.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300 and max(map(len, text.splitlines())) <= 150
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    roots = {(a.name if isinstance(n, ast.Import) else n.module).split(".")[0] for n in nodes for a in n.names} - set(sys.stdlib_module_names)
    assert roots == {"numpy", "psutil", "torch", "accelerate", "datasets", "jinja2", "peft", "rouge_score", "tqdm", "transformers", "trl"}


def test_its_sections_stand_in_the_order_in_which_one_thinks():
    titles = re.findall(r"^# -+ (.+)$", (STARTERS / "tune.py").read_text(encoding="utf-8"), re.M)
    assert [word for title in titles for word in re.findall(r"\d\. (\w+)", title)] == ["data", "model", "method", "run", "judge", "save"]


def test_the_drift_gate_follows_every_trainer_and_configuration():
    found = look((STARTERS / "tune.py").read_text(encoding="utf-8"), "tune.py")
    held = {line.split()[-1] for line in found.checked}
    assert {"SFTConfig", "SFTTrainer", "DPOConfig", "DPOTrainer", "LoraConfig", "BitsAndBytesConfig"} <= held, held
    assert not [line for line in found.unchecked if "**" in line] and not found.mistakes


def test_help_in_plain_python_from_an_empty_folder(place):
    """The one run without the fork: nothing of the course is on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "tune.py", "--help"], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    for word in ("--train", "--eval", "--method", "lora, qlora, dora, full or dpo", "--resume", "--force", "--config", "(default: 2.0)"):
        assert word in done.stdout, word


# ------------------------------------------------------------------ what can be wrong before anything is loaded


@pytest.mark.parametrize("change, words", [
    (["--methd", "lora"], ["--methd"]),
    (["--epochs", "two"], ["--epochs", "two"]),
    (["--config", "none.yaml"], ["none.yaml"]),
])
def test_wrong_flags_are_named_and_exit_with_2(runner, place, tiny, change, words):
    done = runner(place, *flags(tiny), *change)
    assert done.code == 2 and all(word in done.err for word in words) and "Traceback" not in done.err


def refused(runner, place: Path, tiny: Path, *words: str, **more: Any) -> None:
    """The run ends with exit code 1, these words and a fix, no traceback, and no folder."""
    done = runner(place, *flags(tiny, **more))
    assert done.code == 1 and all(word in done.err for word in words), done
    assert "Fix:" in done.err and "Traceback" not in done.err and not list(place.glob("tuned*")), done.err


@pytest.mark.parametrize("more, words", [
    ({"train": "none.jsonl"}, ["none.jsonl", "found none"]),
    ({"model": "no/such-model"}, ["--model no/such-model", "hub"]),
    ({"method": "lorra"}, ["lorra"]),
    ({"batch_size": 0}, ["batch_size=0"]),
])
def test_what_is_not_there_is_named(runner, place, tiny, more, words):
    refused(runner, place, tiny, *words, **more)


@pytest.mark.parametrize("line, words", [
    ('{"messages": [', ["Expecting"]),
    ("[1, 2]", ["[1, 2]"]),
    ('{"question": "a", "answer": "b"}', ["question"]),
    ('{"messages": [{"role": "user", "content": "a"}]}', ["assistant's answer"]),
    ('{"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}', ["human"]),
    ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}', ["text as content"]),
    ('{"messages": "a"}', ["{'messages': 'a'} without"]),
    ('{"prompt": "a", "completion": null}', ["assistant's answer"]),
    ('{"prompt": "a", "completion": "caf\udce9"}', ["UTF-8"]),
])
def test_a_malformed_line_is_named_by_file_and_number(runner, place, tiny, line, words):
    rows = (place / "train.jsonl").read_text(encoding="utf-8").splitlines()
    (place / "train.jsonl").write_text("\n".join([rows[0], "", line, *rows[1:]]), encoding="utf-8", errors="surrogateescape")
    done = runner(place, *flags(tiny))
    assert done.code == 1 and "train.jsonl, line 3: " in done.err and any(word in done.err for word in words), done.err
    assert "Traceback" not in done.err and not list(place.glob("tuned*"))


def test_an_empty_evaluation_is_refused(runner, place, tiny):
    (place / "test.jsonl").write_text("\n", encoding="utf-8")
    refused(runner, place, tiny, "test.jsonl", "found none")


def test_evaluation_rows_that_were_learnt_are_refused_by_line(runner, place, tiny):
    copy = chat(3)
    copy["messages"][0]["content"] = copy["messages"][0]["content"].upper().replace(" ", "  ")
    write_rows(place / "test.jsonl", [chat(100), copy])
    refused(runner, place, tiny, "test.jsonl", "lines 2=4")


def test_a_column_that_a_csv_file_lacks_is_named(runner, place, tiny):
    (place / "train.csv").write_text("text,tone\nhello,calm\n", encoding="utf-8")
    refused(runner, place, tiny, "train.csv, line 1", "text,label", "['text', 'tone']", train="train.csv", columns="text,label")


def test_a_model_that_does_not_fit_is_refused_with_numbers(runner, place, tiny, tmp_path_factory):
    large = tmp_path_factory.mktemp("large")
    config = AutoConfig.for_model("llama", vocab_size=49152, hidden_size=16384, intermediate_size=65536, num_hidden_layers=200)
    config.save_pretrained(large)
    models.load_tokenizer().save_pretrained(large)
    refused(runner, place, large, "memory: expected a need below", "GB", "one row of")


def test_rows_that_ask_in_signs_only_are_told_apart(tune, tiny):
    """Without a word to compare, the text itself is compared: else all of them would be one."""
    fours = [tune.row_of({"prompt": text, "completion": "x"}, 1, models.load_tokenizer(tiny), False)["fours"] for text in ("?!", "!?", "?!")]
    assert fours[0] != fours[1] and fours[0] == fours[2]


def test_the_label_mask_is_that_of_trls_completion_only_loss(tune, tiny, tmp_path):
    tokenizer, rows = models.load_tokenizer(tiny), [chat(n) for n in range(3)]
    pairs = Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in rows])
    trainer = SFTTrainer(AutoModelForCausalLM.from_pretrained(tiny), train_dataset=pairs, processing_class=tokenizer,
                         args=SFTConfig(output_dir=str(tmp_path), **training.quiet_settings(0)))
    for row, theirs in zip(rows, trainer.train_dataset):
        ours = tune.row_of(row, 1, tokenizer, False)["learn"]
        assert ours["input_ids"] == theirs["input_ids"] and ours["labels"] == theirs["labels"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "qlora", "dora", "full"])
def test_the_predicted_memory_is_near_the_courses_longer_formula(monkeypatch, tune, method, precision):
    config = AutoConfig.for_model("llama", hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                                  num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True)
    state = SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    monkeypatch.setattr(tune.psutil, "virtual_memory", lambda: SimpleNamespace(available=1e12))
    for length in (128, 256, 512):
        batch, need, total = tune.fit(tune.Settings(method=method, precision=precision), config, length, length // 4, state)
        knobs = {"precision": "autocast" if precision == "bfloat16" else precision, "batch": 4, "length": length, "answer": length // 4}
        expected = costs.predict(config, method=method, **knobs)
        assert batch == 4 and total == expected.parameters
        assert need == pytest.approx(expected.memory.peak, rel=0.25), (length, need / 1e9, expected.peak_gb)
    monkeypatch.setattr(tune.psutil, "virtual_memory", lambda: SimpleNamespace(available=need / 0.95))
    smaller = tune.fit(tune.Settings(method=method, precision=precision), config, 512, 128, state)
    assert smaller[0] == 2 and smaller[1] < need, "half the rows at once, where not all fit"


# ------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def whole(runner, tiny, tmp_path_factory) -> tuple[Path, Done]:
    """One run of 10 steps with checkpoints at 5 and 10, rows in a CSV file with a quoted line break."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tune.py").write_bytes((STARTERS / "tune.py").read_bytes())
    for name, numbers in (("train", range(20)), ("test", range(100, 106))):
        with open(folder / f"{name}.csv", "w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            writer.writerows([f"Is number {n} odd or even,\nand what is {n} times three?", ["even", "odd"][n % 2]] for n in numbers)
    settings = {"model": str(tiny), "precision": "float32", "train": "train.csv", "eval": "test.csv", "columns": "text,label"}
    (folder / "tune.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()), encoding="utf-8")
    return folder, runner(folder, "tune.py", "--config", "tune.yaml")


def test_a_run_leaves_all_that_a_stranger_needs(whole):
    folder, done = whole
    out = folder / "tuned"
    assert done.code == 0, done.err
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tune.yaml", "metrics.json", "predictions_before.jsonl",
            "predictions_after.jsonl", "README.md", "sample.py", "logs", "checkpoints"} <= {path.name for path in out.iterdir()}
    assert not list(out.glob("*.bin")) and not (folder / "tuned.part").exists() and list((out / "logs").glob("events*"))
    assert yaml.safe_load((out / "tune.yaml").read_text())["learning_rate"] == 2e-3


def test_what_is_printed_first_is_what_the_model_will_see(whole):
    out = whole[1].out
    assert "20 rows to learn" in out and "6 rows to judge by" in out and "Predicted: " in out and "min of training" in out
    masked, learnt = re.search(r"--- masked\n(.+?)\n--- learnt\n(.+?)\n---", out, re.S).groups()
    assert masked.endswith("<|im_start|>assistant\n") and "and what is 0 times three?" in masked and learnt == "even<|im_end|>\n"


def test_the_predictions_have_the_shared_form(whole):
    for name in ("before", "after"):
        lines = [json.loads(line) for line in (whole[0] / "tuned" / f"predictions_{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [set(line) for line in lines] == [{"id", "prompt", "gold", "answer"}] * 6
        assert [line["gold"] for line in lines] == ["even", "odd"] * 3 and lines[0]["prompt"][-1]["role"] == "user"


def test_the_numbers_hold_together(whole):
    m = facts(whole[0] / "tuned")
    assert {"exact_match", "rouge_l", "log_perplexity", "label_accuracy"} == set(m["scores"])
    nats = m["scores"]["log_perplexity"]
    assert nats["difference"][0] == pytest.approx(nats["after"][0] - nats["before"][0], abs=2e-4) and nats["difference"][2] < 0
    assert nats["before"][1] <= nats["before"][0] <= nats["before"][2]
    assert len(m["losses"]) == 10 and m["losses"][-1] < m["losses"][0] and m["peak_gb"] > 0.1
    assert re.fullmatch(r"[0-9a-f]{64}", m["data"]["train"]["sha256"]) and m["data"]["eval"]["rows"] == 6


def test_the_card_has_the_hubs_form(whole):
    from huggingface_hub import ModelCard

    text = (whole[0] / "tuned" / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data
    assert data.library_name == "peft" and data.pipeline_tag == "text-generation" and "lora" in data.tags
    assert facts(whole[0] / "tuned")["data"]["train"]["sha256"] in text and "| log_perplexity | " in text


def test_sample_py_asks_the_tuned_model(runner, whole):
    assert runner(whole[0] / "tuned", "sample.py").code == 0


def test_nothing_is_overwritten_without_force(runner, whole):
    before = (whole[0] / "tuned" / "metrics.json").read_bytes()
    done = runner(whole[0], "tune.py", "--config", "tune.yaml")
    assert done.code == 1 and "--force" in done.err and (whole[0] / "tuned" / "metrics.json").read_bytes() == before


@pytest.mark.trains
def test_killed_half_way_and_resumed_it_ends_as_the_uninterrupted_run(runner, whole):
    folder, _ = whole
    child = runner.start(folder, "tune.py", "--config", "tune.yaml", "--output", "cut")[0]
    state, deadline = folder / "cut.part" / "checkpoints" / "checkpoint-5" / "trainer_state.json", time.monotonic() + 300
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    assert runner.end().code == signal.SIGKILL and not (folder / "cut").exists()
    half = folder / "cut.part" / "checkpoints" / "checkpoint-99"  # looks like a checkpoint, but was never finished
    half.mkdir()
    (half / "trainer_state.json").write_text('{\n  "epoch": 1', encoding="utf-8")
    done = runner(folder, "tune.py", "--config", "tune.yaml", "--output", "cut", "--resume")
    assert done.code == 0, done.err
    assert facts(folder / "cut")["losses"] == pytest.approx(facts(folder / "tuned")["losses"], abs=1e-4)
    assert facts(folder / "cut")["scores"] == facts(folder / "tuned")["scores"]


@pytest.mark.trains
def test_two_processes_give_the_loss_of_one(runner, whole):
    folder, _ = whole
    done = runner(folder, "tune.py", "--config", "tuned/tune.yaml", "--output", "two", processes=2)  # a result holds the file that made it
    assert done.code == 0, done.err
    two, one = facts(folder / "two"), facts(folder / "tuned")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert two["scores"]["log_perplexity"]["after"] == pytest.approx(one["scores"]["log_perplexity"]["after"], abs=1e-3)


@pytest.mark.trains
def test_trls_own_command_loses_the_same_on_the_same_rows(runner, whole, tune, tiny):
    """`trl sft` starts this script of TRL with these flags; rows in the order that tune.py gives them."""
    folder, _ = whole
    s = tune.Settings(**yaml.safe_load((folder / "tuned" / "tune.yaml").read_text(encoding="utf-8")))
    rows = tune.in_order(tune.read(str(folder / "train.csv"), s.columns, models.load_tokenizer(tiny)), s)
    (folder / "ordered").mkdir()
    write_rows(folder / "ordered" / "train.jsonl", [{"prompt": r["prompt"], "completion": [{"role": "assistant", "content": r["gold"]}]} for r in rows])
    named = {"dataset_name": folder / "ordered", "model_name_or_path": tiny, "output_dir": folder / "trl", "dtype": "float32", "bf16": False,
             "use_cpu": True, "num_train_epochs": 1, "train_sampling_strategy": "sequential", "per_device_train_batch_size": s.batch_size,
             "gradient_checkpointing": False, "learning_rate": s.learning_rate, "lr_scheduler_type": "linear", "warmup_steps": 0.1, "seed": s.seed,
             "logging_steps": 1, "save_steps": 10, "use_peft": True, "lora_r": s.rank, "lora_alpha": s.rank, "lora_dropout": 0,
             "lora_target_modules": "all-linear"}
    script = importlib.util.find_spec("trl.scripts.sft").origin
    done = runner(folder, script, *(part for name, value in named.items() for part in (f"--{name}", str(value))))
    assert done.code == 0, done.err
    history = json.loads((folder / "trl" / "checkpoint-10" / "trainer_state.json").read_text())["log_history"]
    assert [step["loss"] for step in history] == pytest.approx(facts(folder / "tuned")["losses"], abs=1e-4)


@pytest.mark.trains
def test_the_vocabulary_is_scored_at_learnt_tokens_only(monkeypatch, tune, tiny, tmp_path):
    """An answer of a few tokens behind a long prompt: TRL's kernel gets the answer's positions, not all."""
    import trl.trainer.utils

    seen, kernel = [], trl.trainer.utils._ChunkedLogProbFunction
    spy = SimpleNamespace(apply=lambda hidden, *rest: seen.append(len(hidden)) or kernel.apply(hidden, *rest))
    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", spy)
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", trl.trainer.utils._use_triton)  # put back afterwards
    tokenizer, s = models.load_tokenizer(tiny), tune.Settings(epochs=1, learning_rate=1e-3, precision="float32")
    rows = [tune.row_of(chat(n), n, tokenizer, False) for n in range(4)]
    state = SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    tune.train(AutoModelForCausalLM.from_pretrained(tiny), tokenizer, rows, s, tmp_path, 4, state)
    assert seen == [sum(len(row["ids"]) - row["start"] for row in rows)]


@pytest.mark.trains
def test_a_loss_that_is_no_number_stops_the_run_and_says_why(runner, place, tiny):
    done = runner(place, *flags(tiny, method="full", learning_rate="1e30", epochs=3))
    assert done.code == 1 and "step " in done.err and "NaN" in done.err and "--learning_rate 1e+29 --force" in done.err, done.err
    assert "Traceback" not in done.err and not (place / "tuned").exists()


def test_ctrl_c_says_how_to_go_on(runner, place, tiny):
    child = runner.start(place, *flags(tiny, epochs=50))[0]
    deadline = time.monotonic() + 300
    while not list(place.glob("tuned.part/logs/events*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGINT)
    done = runner.end()
    again = re.search(r"Go on with: python (tune\.py .+ --resume)$", done.err, re.M)
    assert done.code == 130 and again and "--epochs 50" in again[1] and "Traceback" not in done.err and not (place / "tuned").exists(), done.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_named_and_leaves_no_result(runner, place, tiny):
    """A limit on the size of a file stands for the full disk: the adapter, 70 kB, no longer fits."""
    done = runner(place, *flags(tiny), largest_file=50_000)
    assert done.code == 1 and "disk is full" in done.err and "--resume" in done.err and "Traceback" not in done.err, done.err
    assert not (place / "tuned").exists()


@pytest.mark.trains
@pytest.mark.parametrize("method", ["qlora", "dora", "full"])
def test_other_methods_train_and_are_judged_as_saved(runner, place, tiny, method):
    done = runner(place, *flags(tiny, method=method, learning_rate=5e-3))
    assert done.code == 0, done.err
    m = facts(place / "tuned")
    assert m["scores"]["log_perplexity"]["difference"][0] < 0
    config = json.loads((place / "tuned" / "adapter_config.json").read_text()) if method != "full" else {}
    assert config.get("use_dora", False) == (method == "dora") and (place / "tuned" / "model.safetensors").exists() == (method == "full")


@pytest.mark.trains
def test_dpo_learns_from_pairs_with_and_without_a_prompt_of_their_own(runner, place, tiny):
    talk = [chat(n)["messages"] for n in range(8)]
    write_rows(place / "train.jsonl", [
        *({"prompt": t[:1], "chosen": t[1:], "rejected": [{"role": "assistant", "content": "neither"}]} for t in talk[:3]),
        *({"chosen": t, "rejected": [t[0], {"role": "assistant", "content": "neither"}]} for t in talk[3:6]),
        *({"messages": t, "rejected": "neither"} for t in talk[6:])])
    done = runner(place, *flags(tiny, method="dpo"))
    assert done.code == 0, done.err
    assert facts(place / "tuned")["losses"][0] == pytest.approx(0.6931, abs=1e-3), "before it has learnt, both answers weigh the same"
    write_rows(place / "train.jsonl", [chat(1), chat(2)])
    done = runner(place, *flags(tiny, method="dpo", output="other"))
    assert done.code == 1 and "train.jsonl, line 1" in done.err and "rejected" in done.err


@pytest.mark.trains
def test_early_stopping_keeps_the_best_of_rows_that_are_not_the_evaluation(runner, place, tiny):
    write_rows(place / "train.jsonl", [chat(n) for n in range(20)])
    done = runner(place, *flags(tiny, method="full", learning_rate=1.0, patience=1, epochs=8))
    m = facts(place / "tuned")
    assert done.code == 0 and len(m["losses"]) < 36, "18 rows, 8 epochs, 4 a step: 36 steps unless it stops"


@pytest.mark.trains
def test_json_is_scored_where_gold_is_json(runner, place, tiny):
    rows = [chat(n) for n in range(100, 104)]
    for row in rows[:2]:
        row["messages"][1]["content"] = '{"kind": "odd"}'
    write_rows(place / "test.jsonl", rows)
    assert runner(place, *flags(tiny)).code == 0
    assert facts(place / "tuned")["scores"]["json_valid"]["after"] == [0.0, 0.0, 0.0]
