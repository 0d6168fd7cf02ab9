"""Lab 11 with a learner's own file: all cells of the solution run, whatever the data, on a tiny model with random weights."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import models
from test_data_own import row, write

SOLUTION = Path(__file__).resolve().parent.parent / "labs" / "solutions" / "11_bring_your_own_data.ipynb"
FILE, INSTRUCTION = 'MY_FILE = "library"', "MY_INSTRUCTION = None"


def run(file: str, instruction: str | None) -> dict:
    """The names that the lab's code cells leave behind, with these two settings."""
    space: dict = {}
    for cell in nbformat.read(SOLUTION, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source.replace(FILE, f"MY_FILE = {file!r}").replace(INSTRUCTION, f"MY_INSTRUCTION = {instruction!r}"), space)
    return space


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> None:
    """COURSE_MODEL is a model of two small layers, and the lab writes to a folder of the test."""
    tokenizer = models.load_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path / "tiny"))
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    monkeypatch.chdir(tmp_path)


def test_the_two_settings_stand_in_the_notebook_once():
    text = SOLUTION.read_text(encoding="utf-8").replace('\\"', '"')
    assert text.count(FILE) == text.count(INSTRUCTION) == 1


@pytest.mark.trains  # takes a quarter of a minute or more
@pytest.mark.parametrize("kind", ["own file without splits and system turns", "bicycles"])
def test_every_cell_runs_with_other_data(tiny, tmp_path, capsys, kind):
    rows = [row(n) | {"messages": row(n)["messages"][1:]} for n in range(90)]
    lab = run("bicycles", None) if kind == "bicycles" else run(str(write(tmp_path, rows)), "Name the drawer. One word.")
    out = capsys.readouterr().out
    assert out.count(": right. ") == 5 and "TRL masks as you do, the last line break aside: True" in out and ", and 0 never show" not in out
    assert lab["words"] == ["good", "not JSON", "good", "no messages", "in test", "good", "no answer", "good", "good", "in test"]
    assert len(lab["pool"]) == len(lab["train"]) - 2 and lab["leaks"] == [] and lab["back"] == [2, 7]
    assert lab["card"].hash == lab["evaluation"].rules_hash(lab["RULES"]) and [line.verdict for line in lab["card"].lines][3] == "met"
    assert {len(each) for each in lab["scores"].values()} == {len(lab["test"])} and len(lab["scores"]) == 4
