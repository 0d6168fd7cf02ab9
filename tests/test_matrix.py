"""The decision matrix: what each technique is asked and trained on, how facts and style are scored apart, and its stored rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import data, models, plots, results, retrieval
from helpers.evaluation import Interval
from helpers.plots.matrix import front
from helpers.results import matrix
from helpers.results.matrix import Cell, Desk, trained
from words_embedder import WordsEmbedder


@pytest.fixture(autouse=True)
def small_embedder(monkeypatch):
    class Words(WordsEmbedder):
        def encode(self, texts, **_):
            vectors = super().encode(list(texts))
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    monkeypatch.setattr(models, "load_embedder", Words)


def asked(cell: Cell, folder, rows: int = 3):
    desk = Desk(cell, str(folder))
    some = desk.rows(cell.split, cell.edition)[:rows]
    read = desk.found(some, cell.edition) if cell.chunks else None
    return desk, some, read, matrix.prompts_of(cell, desk, some, read)


@pytest.mark.parametrize("need", matrix.EPOCHS)
@pytest.mark.parametrize("technique", ("zero-shot", "lora", "qlora", "full"))
def test_without_a_search_the_prompt_is_the_row_as_it_is(tmp_path, need, technique):
    _, rows, _, prompts = asked(Cell(need, technique), tmp_path)
    assert prompts == [row["messages"][:-1] for row in rows] and not any("Documents:" in row["messages"][1]["content"] for row in rows)


@pytest.mark.parametrize("need", matrix.EPOCHS)
@pytest.mark.parametrize("technique", ("rag", "rag+lora"))
def test_with_a_search_what_was_found_stands_in_the_prompt(tmp_path, need, technique):
    _, rows, read, prompts = asked(Cell(need, technique, chunks=1), tmp_path)
    for row, chunks, prompt in zip(rows, read, prompts):
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        assert len(chunks) == 1 and chunks[0].content in text and row["messages"][1]["content"] in text
        assert row["messages"][-1]["content"] not in text or row["messages"][-1]["content"] in chunks[0].content, "the gold answer stands in the prompt"


def test_found_documents_are_laid_out_as_the_gold_ones_that_training_showed():
    row = list(data.load_reply(documents=True)["train"])[0]
    plain = next(r for r in data.load_reply(documents=False)["train"] if r["id"] == row["id"])
    chunks = {(c.article, c.heading): c for c in retrieval.by_section(data.load_articles(1))}
    gold = [chunks[source["article"], source["section"]] for source in row["sources"]]
    assert matrix.with_documents(plain, gold)["messages"] == row["messages"]


@pytest.mark.parametrize("need", matrix.EPOCHS)
def test_training_with_a_search_reads_the_gold_section_where_there_is_one(tmp_path, need):
    rows = Desk(trained(need, "rag+lora", 0), str(tmp_path)).training_rows()
    plain = Desk(trained(need, "lora", 0), str(tmp_path)).training_rows()
    assert [r["id"] for r in rows] == [r["id"] for r in plain] and [r["messages"][-1] for r in rows] == [r["messages"][-1] for r in plain]
    longer = [len(a["messages"][1]["content"]) > len(b["messages"][1]["content"]) for a, b in zip(rows, plain)]
    assert all(longer)
    if need == "answer":
        chunks = retrieval.by_section(data.load_articles(1))
        assert all(chunk.content in read["messages"][1]["content"] for read, row in zip(rows, plain) for chunk in retrieval.gold_sections(row, chunks))


def test_the_new_edition_is_asked_with_its_own_documents(tmp_path):
    desk = Desk(trained("answer", "rag+lora", 0), str(tmp_path))
    assert all(chunk.edition == edition for edition in (1, 2) for hits in desk.found(desk.rows("test", edition)[:3], edition) for chunk in hits)


def test_retraining_learns_from_the_new_edition(tmp_path):
    old, new = (Desk(trained("answer", "lora", 0, edition), str(tmp_path)).training_rows() for edition in (1, 2))
    assert [r["id"] for r in old] == [r["id"] for r in new] and sum(a["messages"][-1] != b["messages"][-1] for a, b in zip(old, new)) > 20


def test_style_and_facts_are_scored_apart():
    rows = list(data.load_reply(documents=False)["test"])
    gold = [r["messages"][-1]["content"] for r in rows]
    best = matrix.reply_scores(gold, rows)
    assert best["score"][0] == best["told"][0] == best["figures"][0] == best["chrf"][0] == 1 and best["score"][3] == len(rows) > best["told"][3] > 20
    without = matrix.reply_scores(["".join("" if c.isdigit() else c for c in text) for text in gold], rows)
    assert without["score"][0] > 0.9 and without["told"][0] == 0, "a reply in perfect style that tells nothing"
    wrong = matrix.reply_scores([text + "\n987654" for text in gold], rows)
    assert wrong["figures"][0] == 0 and wrong["told"][0] == 1


def test_a_gold_reply_without_figures_of_the_documents_is_not_counted():
    row = {"known": "It is 5 years old.\n\nDocuments:\nPress 7 times.", "messages": [{}, {}, {"content": "It is 5 years old."}]}
    assert matrix.share_told("7", row) is None
    row["messages"][-1]["content"] = "1. Press it.\nIt is 5 years old: 7 times, 3 minutes."
    assert matrix.share_told("Press 7 times.", row) == 0.5 and matrix.share_told("", row) == 0.0


def test_gold_answers_score_full_marks():
    rows = list(data.load_answer(1)["test"])
    found = matrix.answer_scores([r["messages"][-1]["content"] for r in rows], rows, None)
    assert found["score"] == found["score"][:3] + [len(rows)] and found["score"][0] == 1 and found["abstains"]["unanswerable"][0] == 1


# ---------------------------------------------------------------- the stored rows

ROWS = [results.MATRIX.stored(cell) for cell in matrix.RUNS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(str(row["recipe"][key]) for key in ("need", "technique", "seed", "edition")))
def test_a_stored_row_has_what_the_lesson_reads(row):
    recipe, rows = row["recipe"], len(row["each"])
    assert abs(float(np.mean(row["each"])) - row["score"][0]) < 0.001 and row["score"][3] == rows and len(row["said"]) == matrix.SAID
    assert row["prompt_tokens"] > 0 and row["seconds"] > 0
    trains = recipe["technique"] in matrix.METHODS
    assert trains == ("minutes" in row) == ("probe" in row) == ("adapter_mb" in row)
    assert (recipe["need"] == "answer" and recipe["edition"] == 1) == ("next_edition" in row)
    if trains:
        assert row["trainable"] > 0 and row["losses"][-1] < row["losses"][0] and row["memory_gb"] > 1


def test_every_technique_has_its_row_on_both_needs_and_what_trains_the_same_seeds():
    trained_with = {(c.need, c.technique): {d.seed for d in matrix.RUNS if replace(d, seed=0) == replace(c, seed=0)} for c in matrix.RUNS if c.edition == 1}
    for need in matrix.EPOCHS:
        assert {technique for one, technique in trained_with if one == need} == {"zero-shot", "few-shot", "rag", *matrix.METHODS}
        assert all(trained_with[need, technique] == {0, 1, 2} for technique in matrix.METHODS), "three seeds for all that trains"
    assert len(json.dumps(ROWS)) < 1_000_000


# ---------------------------------------------------------------- its figures


def test_the_front_is_what_nothing_else_beats():
    score = lambda value: Interval(value, value, value)
    ways = {"dear": (9, score(0.5)), "good": (5, score(0.9)), "cheap": (1, score(0.1)), "worse": (2, score(0.05)), "same": (5, score(0.8))}
    assert front(ways) == ["cheap", "good"] and "front: cheap, good" in repr(plots.price_points(ways, "x"))
    with pytest.raises(ValueError, match="expected one to ten ways"):
        plots.price_points({}, "x")


def test_the_panels_show_every_score_and_leave_gaps():
    scores = {"a": {"x": Interval(0.5, 0.4, 0.6), "y": Interval(0.1, 0.0, 0.2)}, "b": {"y": Interval(0.7, 0.6, 0.8)}, "c": {"x": Interval(0.2, 0.1, 0.3)}}
    figure = plots.matrix_panels(scores, "The finding", tuned=("y",))
    assert repr(figure).startswith("[figure] The finding (a: x 0.500") and "b: y 0.700 [0.600, 0.800] |" in repr(figure) and figure._repr_png_()
    assert [len(axes.patches) for axes in figure.axes] == [2, 1, 1, 0] and not figure.axes[3].get_visible()
    with pytest.raises(ValueError, match="expected one to six needs, got 0"):
        plots.matrix_panels({}, "x")
