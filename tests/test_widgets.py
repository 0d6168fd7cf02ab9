"""Explorers without a browser: set a control, read the result. Defaults, extremes, bad input, labels, and the form for where no kernel runs."""

from __future__ import annotations

import json
import math
import re
import sysconfig
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import pytest

from helpers import costs, data, decisions, models, retrieval, widgets
from helpers.decisions import evidence
from helpers.evaluation import Interval
from helpers.widgets import look, plan
from helpers.widgets.view import Shown, View, number
from words_embedder import WordsEmbedder

ROOT = Path(__file__).resolve().parent.parent
LLAMA_8B = decisions.CASES[0].answers.config


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="module")
def weight():
    return np.random.default_rng(0).normal(size=(96, 64))


SENTENCES = {"English": "My washing machine is leaking water onto the floor.", "Marathi": "माझ्या वॉशिंग मशीनमधून जमिनीवर पाणी गळत आहे."}
MAKERS = {
    "worksheet": lambda tokenizer, weight: widgets.worksheet(), "planner": lambda tokenizer, weight: widgets.planner(),
    "mask viewer": lambda tokenizer, weight: widgets.mask_viewer(tokenizer), "fertility": lambda tokenizer, weight: widgets.fertility(tokenizer, SENTENCES),
    "ranks": lambda tokenizer, weight: widgets.rank_explorer(weight), "NF4": lambda tokenizer, weight: widgets.nf4_explorer(weight),
    "rates": lambda tokenizer, weight: widgets.rate_explorer(), "stopping": lambda tokenizer, weight: widgets.stopping_explorer(),
    "answers": lambda tokenizer, weight: widgets.side_by_side(["Why?"], {"base": ["no"], "tuned": ["yes"]}, ["yes"]),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    found = retrieval.Index(tmp_path_factory.mktemp("index") / "i", WordsEmbedder())
    for edition in (1, 2):
        found.update(retrieval.by_section(data.load_articles(edition))[:40], edition)
    return found


@pytest.fixture(params=MAKERS)
def view(request, tokenizer, weight):
    return MAKERS[request.param](tokenizer, weight)


def all_widgets(widget) -> list:
    found = [widget]
    for child in getattr(widget, "children", ()):
        found += all_widgets(child)
    return found


# ---------------------------------------------------------------- what every view keeps


def test_every_view_has_a_task_labels_a_text_result_and_a_static_form(view):
    assert view.task.endswith("?") or view.task.endswith(".")
    fields = [w for w in all_widgets(view.widget) if isinstance(w, (ipywidgets.ValueWidget, ipywidgets.Button)) and not isinstance(w, ipywidgets.HTML)]
    assert fields and all(w.description.strip() and w.tooltip for w in fields), "a screen reader says the label"
    assert not any(isinstance(w, (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.SelectMultiple)) for w in fields), "fields that have a label and work by keyboard"
    assert 'role="status" aria-live="polite"' in view.result.value and view.text and re.search(r"\d", view.text)
    static = view.static()
    assert static["text/plain"] == view.text and static["text/html"].startswith("<details>")
    if view.shown.figure is not None:
        assert view.shown.figure.axes[0].get_title(loc="left") and view.shown.figure.numbers
        assert "The picture in words" in view.details.value and view.shown.figure.numbers.split(",")[0] in view.details.value


def test_a_view_shows_itself_with_text_and_one_picture(view, monkeypatch):
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(("update", bundle))

    def display(bundle, raw, display_id=False):
        shown.append(("display", bundle))
        return Handle() if display_id else None

    monkeypatch.setattr("helpers.widgets.view.display", display)
    view._ipython_display_()
    kinds = [set(bundle) for _, bundle in shown]
    assert "application/vnd.jupyter.widget-view+json" in kinds[0] and "running kernel" in shown[0][1]["text/plain"]
    assert [("image/png" in kind) for kind in kinds].count(True) == (view.shown.figure is not None)
    view.update()
    assert len([kind for kind, _ in shown if kind == "update"]) == (view.shown.figure is not None), "the same picture follows the controls"


def test_what_cannot_be_computed_is_said_and_other_errors_are_not_swallowed():
    def compute(size):
        if size < 0:
            raise ValueError("size: expected 0 or more, got <b>less</b>. Fix: type 3.")
        return Shown(f"size {1 / size}")

    view = View("Try.", {"size": number("Size", 1.0)}, compute)
    assert view.set(size=-1).text.startswith("size: expected") and "&lt;b&gt;less" in view.result.value and "<b>less" not in view.result.value
    with pytest.raises(ZeroDivisionError):
        view.set(size=0)
    assert view.set(size=2).text == "size 0.5"


# ---------------------------------------------------------------- the worksheet


@pytest.mark.parametrize("case", decisions.CASES, ids=lambda c: c.name)
def test_the_form_says_what_the_function_says(case):
    view = widgets.worksheet(case.answers)
    assert view.answers() == case.answers and f"Recommendation: {case.verdict}." in view.text
    assert all(reason.side in ("for", "against", "note") for reason in decisions.recommend(view.answers()).reasons)


def test_a_measured_interval_stays_as_it_was_measured():
    """A mean of rules is no share of rows: the form must not put an interval of its own around it."""
    answers = replace(decisions.CASES[0].answers, prompt=Interval(0.59, 0.557, 0.619), rag=None)
    view = widgets.worksheet(answers)
    assert view.controls["prompt"].value == "0.59 [0.557, 0.619]" and view.answers() == answers
    view.controls["prompt"].value = "0.59 [0.557]"
    assert "prompt: expected a number" in view.text


def test_a_worked_case_fills_the_form_and_single_answers_change_it():
    view = widgets.worksheet()
    view.start.value = "sorting mail by tone"
    assert "Recommendation: prompt." in view.text
    view.controls["prompt"].value = ""
    assert "Recommendation: measure first." in view.text and "lesson 02" in view.text
    view.controls["prompt"].value = "0,5"
    assert "Recommendation: LoRA." in view.text, "a decimal comma is understood"
    view.controls["lacks_facts"].value = True
    assert "Recommendation: measure first." in view.text, "retrieval is not measured"


@pytest.mark.parametrize("name, value, words", [
    ("prompt", "many", "prompt: expected a number"), ("prompt", "7", "prompt: expected"), ("use_case", " ", "use_case: expected a sentence"),
    ("config", "{", "config: expected the JSON"), ("config", "{}", "config: expected hidden_size"), ("good_rows", -1, "good_rows: expected"),
    ("memory_gb", 0.0, "memory_gb: expected"), ("target", math.nan, "target: expected"), ("requests", -5, "requests: expected"),
])
def test_a_bad_answer_is_said_in_the_form_and_nothing_is_saved(name, value, words, tmp_path):
    view = widgets.worksheet(path=tmp_path / "decision.md")
    assert view.set(**{name: value}).text.startswith(words) and "Fix: " in view.text
    view.save.click()
    assert "Not saved." in view.saved.value and list(tmp_path.iterdir()) == []


def test_the_button_writes_the_record(tmp_path):
    view = widgets.worksheet(path=tmp_path / "out" / "decision.md")
    view.save.click()
    assert "Saved to decision.md: LoRA." in view.saved.value and view.path.read_text(encoding="utf-8") == decisions.record(view.answers())
    view.path = tmp_path
    view.save.click()
    assert "Not saved:" in view.saved.value and "Fix: " in view.saved.value


def test_what_a_person_types_is_text_and_never_markup():
    view = widgets.worksheet(replace(decisions.CASES[0].answers, use_case="<script>alert(1)</script>"))
    assert "<script>" not in view.result.value + view.details.value + view.static()["text/html"]


# ---------------------------------------------------------------- plans


def test_the_planner_takes_any_config_and_names_the_knob():
    view = widgets.planner()
    assert "Predicted peak" in view.text and "fits into 8 GB" in view.text
    assert "does not fit into 8 GB" in view.set(config=json.dumps(LLAMA_8B)).text
    assert "fits into 24 GB" in view.set(method="qlora", precision="bfloat16", batch=1, memory_gb=24.0).text
    assert view.shown.figure.numbers.startswith("now:") and "The knob that saves most" in view.text


@pytest.mark.parametrize("knobs", [
    {}, {"method": "full"}, {"method": "full", "optimizer": "sgd", "checkpointing": True}, {"method": "qlora", "batch": 1, "length": 64},
    {"config": json.dumps(LLAMA_8B), "method": "full", "precision": "bfloat16"}, {"config": json.dumps(LLAMA_8B), "method": "lora", "precision": "autocast"},
    {"method": "lora", "batch": 1, "length": 1, "rank": 1, "checkpointing": True, "optimizer": "sgd", "precision": "autocast"},
], ids=str)
def test_no_turn_of_a_single_knob_saves_more_than_the_one_that_the_planner_names(knobs):
    view = widgets.planner()
    now = {name: control.value for name, control in view.controls.items()} | knobs
    peak = lambda **turned: float(re.search(r"Predicted peak ([\d.]+) GB", plan.plan(**(now | turned)).text)[1])
    text = view.set(**knobs).text
    named = re.search(r"turned alone: .*: ([\d.]+) GB less, ([\d.]+) GB, ", text)
    lowest = float(named[2]) if named else peak()
    assert named is None or lowest < peak() + 0.05
    turns = [("method", name) for name in ("full", "lora", "qlora", "dora")] + [("optimizer", name) for name in costs.setup.OPTIMIZERS]
    turns += [("checkpointing", on) for on in (True, False)] + [(name, max(now[name] // 2, 1)) for name in ("batch", "length", "rank")]
    turns += [("precision", name) for name in ("float32", "autocast")] if now["precision"] != "bfloat16" else []
    assert all(peak(**{name: value}) >= lowest for name, value in turns)


def test_the_planner_starts_with_the_knobs_that_it_is_given():
    view = widgets.planner(LLAMA_8B, method="full", precision="bfloat16", memory_gb=24.0, checkpointing=True)
    assert view.controls["method"].value == "full" and "does not fit into 24 GB" in view.text
    with pytest.raises(ValueError, match="planner: expected knobs among .* got 'memory'. Fix"):
        widgets.planner(memory=24)


@pytest.mark.parametrize("knobs, words", [
    ({"config": "not json"}, "config: expected the JSON"), ({"config": '{"model_type": "bert"}'}, "model_type"), ({"batch": 0}, "batch: expected"),
    ({"length": -3}, "length: expected"), ({"memory_gb": 0.0}, "memory: expected"), ({"rank": 0}, "rank: expected"), ({"config": "[1]"}, "config: expected"),
])
def test_a_plan_that_cannot_be_is_said(knobs, words):
    assert words in widgets.planner().set(**knobs).text


def test_extreme_plans_still_answer():
    view = widgets.planner()
    assert "GB" in view.set(batch=1, length=1, checkpointing=True, optimizer="sgd", rank=1).text
    assert "does not fit" in view.set(batch=10_000, length=100_000).text


def test_the_mask_viewer_trains_the_answer_and_its_end(tokenizer):
    view = widgets.mask_viewer(tokenizer)
    assert "3 of them trained" in view.text and "masked" in view.text and "learns to stop" in view.text
    assert "trained too" in view.set(form="whole text").text
    assert "does not learn to stop" in view.set(form="completion without its end mark").text
    row = data.load_tone()["train"][0]
    assert widgets.mask_viewer(tokenizer, row["messages"]).text.startswith(str(len(tokenizer.apply_chat_template(row["messages"])["input_ids"])))


@pytest.mark.parametrize("values", [{"user": " "}, {"assistant": ""}])
def test_an_empty_turn_is_said(tokenizer, values):
    assert widgets.mask_viewer(tokenizer).set(**values).text.startswith("turns: expected")


def test_markup_and_other_scripts_in_a_turn_stay_text(tokenizer):
    view = widgets.mask_viewer(tokenizer)
    view.set(user="<script>alert(1)</script> पाणी", system="")
    assert "<script>" not in view.details.value and "&lt;" in view.details.value


def test_tokens_of_languages(tokenizer):
    view = widgets.fertility(tokenizer, SENTENCES)
    assert "English: 9 words, 10 tokens" in view.text and "5.4 times the first text" in view.text
    assert view.set(Marathi="").text.startswith("Marathi: expected a text") and "Marathi: 1 word, 6 tokens" in view.set(Marathi="पाणी").text


# ---------------------------------------------------------------- weights


def test_the_rank_explorer_keeps_what_the_best_approximation_keeps(weight):
    view = widgets.rank_explorer(weight)
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    for rank in (1, 8, 64):
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        share = 1 - np.linalg.norm(weight - best) ** 2 / np.linalg.norm(weight) ** 2
        assert f"{share:.3f} of the matrix" in view.set(rank=rank).text
    several = widgets.rank_explorer({"a weight": weight, "an update": np.outer(weight[:, 0], weight[0])})
    assert "1.000 of an update" in several.set(matrix="an update", rank=1).text and "1.000" not in several.set(matrix="a weight").text
    low = np.outer(np.arange(1, 50), np.arange(1, 40))
    assert "1.000 of the matrix" in widgets.rank_explorer(low).set(rank=1).text
    assert "0.000 of the matrix" in widgets.rank_explorer(np.zeros((4, 4))).text, "a matrix of zeros has no spectrum, and no error"
    for bad in (np.zeros(5), np.zeros((1, 5))):
        with pytest.raises(ValueError, match="rank_explorer.*Fix"):
            widgets.rank_explorer(bad)
    with pytest.raises(ValueError, match="rank: expected 1 to 64, got 65"):
        look.spectrum_shown(s, weight.shape, 65)


def test_rounding_to_levels_is_the_library_s():
    import torch
    from bitsandbytes import functional

    values = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    for block in (64, 256):
        codes, state = functional.quantize_4bit(values, blocksize=block, quant_type="nf4")
        theirs = functional.dequantize_4bit(codes, state).numpy()
        assert np.abs(look.rounded(values.numpy(), look.levels("NF4"), block)[1] - theirs).max() < 1e-5


def test_outliers_hurt_large_blocks_more(weight):
    view = widgets.nf4_explorer(weight)
    error = lambda **knobs: float(re.search(r"error ([\d.]+)", view.set(**knobs).text)[1])
    assert error(scheme="NF4") < error(scheme="evenly spaced")
    small, large = (error(scheme="NF4", block=block, outlier=10.0) - error(scheme="NF4", block=block, outlier=1.0) for block in (32, 1024))
    assert 0 < small < large
    assert view.set(outlier=0.5).text.startswith("outlier: expected") and view.set(outlier=math.nan).text.startswith("outlier: expected")
    with pytest.raises(ValueError, match="nf4_explorer.*Fix"):
        widgets.nf4_explorer(np.zeros(10))
    with pytest.raises(ValueError, match="nf4_explorer"):
        widgets.nf4_explorer(np.full(100, math.inf))
    assert "error 0.000" in widgets.nf4_explorer(np.zeros(100)).text


# ---------------------------------------------------------------- stored curves and answers


def test_the_rates_of_both_methods_are_the_stored_ones_and_can_be_compared():
    view = widgets.rate_explorer()
    text = view.set(lora=0.002, full=0.0001).text
    assert "LoRA at 0.002: 0.781 [0.666, 0.865] right, the best of its runs." in text and "20 times" in text
    assert "All weights at 0.0001: 0.797" in text and "the best of its runs" in view.set(full=0.0003).text.splitlines()[1], "two rates share the best score"
    assert "not the best of its 5 runs" in view.set(lora=1e-05, full=1e-05).text and "Both rates are the same." in view.text
    assert all(name in view.shown.figure.numbers for name in ("LoRA:", "all weights:"))
    with pytest.raises(ValueError, match="rate_explorer: expected stored runs of LoRA, found none. Fix: python -m helpers.results"):
        widgets.rate_explorer({})


@pytest.mark.parametrize("losses, patience, expected", [
    ([3, 2, 1], 1, (2, 2)), ([1, 2, 3], 1, (1, 0)), ([1, 2, 0.5, 3], 1, (1, 0)), ([1, 2, 0.5, 3], 2, (3, 2)), ([1, 1, 1], 2, (2, 0)), ([1], 3, (0, 0)),
])
def test_stopping_waits_for_its_patience_and_keeps_the_best_so_far(losses, patience, expected):
    assert look.stop_at(losses, patience) == expected


def test_the_stopping_explorer_shows_every_stored_run():
    view = widgets.stopping_explorer()
    assert len(view.controls["run"].options) == len(evidence.stored_rows()["overfit"])
    for run in view.controls["run"].options:
        assert run in view.set(run=run, patience=1).text and "stops after step" in view.text
    assert "not the best moment" in view.set(run="20 rows, rank 16", patience=1).text and "the best moment of" in view.set(patience=2).text
    for bad in (([], 1), ([1.0], 0)):
        with pytest.raises(ValueError, match="stop_at"):
            look.stop_at(*bad)
    with pytest.raises(ValueError, match="stopping_explorer"):
        widgets.stopping_explorer({})


def test_answers_side_by_side_are_text_and_rows_are_checked():
    view = widgets.side_by_side(["a", "b"], {"base": ["x", "<b>y</b>"], "tuned": ["x", "z"]}, ["x", "z"])
    assert "right by base, tuned" in view.text and "right by tuned" in view.set(row=2).text and "<b>y" not in view.details.value
    for row in (0, 3, -1):
        assert view.set(row=row).text.startswith("row: expected 1 to 2")
    for bad in (([], {"a": []}, []), (["a"], {"x": []}, ["a"]), (["a"], {}, ["a"])):
        with pytest.raises(ValueError, match="side_by_side.*Fix"):
            widgets.side_by_side(*bad)
    assert plan.FORMS[0] == "prompt and completion"


def test_who_grades_says_what_is_right():
    """An answer in other words may be right: then the caller says so, row by row."""
    marks = {"base": [True, False], "tuned": [False, True]}
    view = widgets.side_by_side(["a", "b"], {"base": ["3 hours", "x"], "tuned": ["y", "z"]}, ["after 3 hours", "z"], right=marks)
    assert view.text.endswith("right by base.") and view.set(row=2).text.endswith("right by tuned.")
    assert view.details.value.count(">yes<") == 1 and view.details.value.count(">no<") == 1
    for bad in ({"base": [True, True]}, {"base": [True], "tuned": [True, False]}, {}):
        with pytest.raises(ValueError, match="side_by_side: expected `right` for base, tuned with 2 rows each.*Fix"):
            widgets.side_by_side(["a", "b"], {"base": ["x", "x"], "tuned": ["y", "z"]}, ["x", "z"], right=bad)


def test_the_search_view_asks_the_index(index, tmp_path):
    questions = list(data.load_answer()["test"])
    view = widgets.search_explorer(index, questions)
    asked = questions[0]["messages"][1]["content"]
    for mode in retrieval.MODES:
        hits = index.search(asked, 3, mode, 2)
        said = "full-text search" if mode == "text" else f"{mode} search"
        assert view.set(k=3, mode=mode, edition=2).text.startswith(f"{len(hits)} hits in edition 2, {said}.") and hits[0].article in view.details.value
    assert view.set(mode="hybrid", weight=1.0).text and view.set(own="<b>own</b> question").text.endswith("search.") and "<b>own" not in view.result.value
    assert "right article" in view.set(own=" ").text, "an empty field asks the chosen question"
    assert "Fix: " in view.set(k=0).text
    with pytest.raises(ValueError, match="search_explorer.*Fix"):
        widgets.search_explorer(index, [])
    with pytest.raises(ValueError, match="search_explorer: expected an index with chunks.*Fix"):
        widgets.search_explorer(retrieval.Index(tmp_path / "empty", WordsEmbedder()), questions)


def test_keys_in_a_list_belong_to_the_list_and_not_to_jupyterlab():
    """JupyterLab takes arrows and letters while a list or radio buttons have the focus, and moves or cuts cells. The course's settings leave
    them to the field; they name JupyterLab's own shortcuts, so a new version of it must be looked at."""
    schemas = Path(sysconfig.get_path("data")) / "share" / "jupyter" / "lab" / "schemas" / "@jupyterlab" / "notebook-extension"
    theirs = json.loads((schemas / "tracker.json").read_text(encoding="utf-8"))["jupyter.lab.shortcuts"]
    settings = json.loads((ROOT / "helpers/jupyter/labconfig/default_setting_overrides.json").read_text(encoding="utf-8"))
    ours = settings["@jupyterlab/shortcuts-extension:shortcuts"]["shortcuts"]
    selector = ".jp-Notebook.jp-mod-commandMode:not(.jp-mod-readWrite) :focus"
    taken = [(one["command"], one["keys"]) for one in theirs
             if one["selector"] == selector and one["keys"] and all(len(key) == 1 or key.startswith("Arrow") for key in one["keys"])]
    off = [(one["command"], one["keys"]) for one in ours if one.get("disabled") and one["selector"] == selector]
    narrower = [(one["command"], one["keys"]) for one in ours if not one.get("disabled") and one["selector"] == f"{selector}:not(select):not(input)"]
    assert taken and off == narrower == taken
