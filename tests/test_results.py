"""Measured rows: stored whole, found only for today's data, and today's stored rows keep what data card and lessons claim."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from helpers import data, results, retrieval
from helpers.results import DIFFICULTY, PROMPTS, PromptRecipe, ReadingRecipe, Recipe, ScaleRecipe
from helpers.results.prompts import BASELINES, LOADERS, best_on_validation

NAMES = [f"{r.need}, {r.epochs} epochs" for r in DIFFICULTY.runs]


def a_row(recipe: Recipe, exact: float, need: str = "tone") -> dict:
    return {"recipe": asdict(recipe), "exact": [exact], "provenance": {"data": results.data_hash(need), "model": results.rows.models.model_name()}}


def test_a_row_takes_the_place_of_the_one_with_its_recipe(tmp_path):
    path = tmp_path / "results" / "rows.jsonl"
    first, second = Recipe("tone", 1), Recipe("tone", 2)
    for row in (a_row(first, 0.1), a_row(second, 0.2), a_row(first, 0.3)):
        results.store(row, path)
    rows = results.read(path)
    assert [r["exact"] for r in rows] == [[0.2], [0.3]]
    assert DIFFICULTY.find(first, rows)["exact"] == [0.3] and DIFFICULTY.find(Recipe("tone", 3), rows) is None
    assert [f.name for f in path.parent.iterdir()] == ["rows.jsonl"]
    results.store(a_row(Recipe("extract", 1), 0.4, "extract"), path)
    newer = a_row(Recipe("tone", 9), 0.5)
    newer["provenance"]["data"] = "newer"
    results.store(newer, path)
    assert [r["exact"] for r in results.read(path)] == [[0.4], [0.5]], "rows of the need's former data go, other needs stay"


def test_a_row_that_was_measured_on_other_data_does_not_count(tmp_path):
    recipe = Recipe("tone", 1)
    assert DIFFICULTY.find(recipe, [a_row(recipe, 0.5)]) and not DIFFICULTY.find(recipe, [a_row(recipe, 0.5, need="extract")])


def test_a_row_that_is_missing_is_asked_for_by_its_command():
    with pytest.raises(LookupError, match="found none. Fix: python -m helpers.results --family difficulty --need tone"):
        DIFFICULTY.stored(Recipe("tone", 99))


def test_only_what_is_missing_or_out_of_date_is_due():
    rows = [{**a_row(recipe, 0.5, recipe.need)} for recipe in DIFFICULTY.runs]
    assert DIFFICULTY.due(rows) == [] and DIFFICULTY.due(rows, force=True) == [0, 1, 2, 3]
    rows[1]["provenance"]["data"] = "another"
    rows[2]["provenance"]["model"] = "another"
    assert DIFFICULTY.due(rows) == [1, 2] and DIFFICULTY.due(rows, "tone") == [2] and DIFFICULTY.due(rows, "tone", force=True) == [2, 3]


@pytest.mark.parametrize("family", results.FAMILIES.values(), ids=results.FAMILIES)
def test_every_run_has_its_row_and_no_row_of_former_data_or_recipes_is_left(family):
    rows = results.read(family.path)
    assert family.due(rows) == [], f"Fix: python -m helpers.results --family {family.name} ({family.minutes})"
    known = [asdict(recipe) for recipe in family.runs]
    assert all(row["recipe"] in known for row in rows) and len(rows) == len(family.runs)
    for row in rows:
        assert row["provenance"]["commit"] and not row["provenance"]["commit"].endswith("-dirty"), row["recipe"]
        assert row["provenance"]["cpu"] and not json.dumps(row).count("/home/")


@pytest.fixture(scope="module")
def stored() -> dict[str, dict]:
    return {name: DIFFICULTY.stored(recipe) for name, recipe in zip(NAMES, DIFFICULTY.runs)}


@pytest.mark.parametrize("name", NAMES)
def test_difficulty_was_measured_on_the_whole_test_part(stored, name):
    row = stored[name]
    assert row["rows"] == len(LOADERS[row["recipe"]["need"]]()["test"])


def test_the_data_is_neither_too_easy_nor_impossible(stored):
    assert stored["extract, 0 epochs"]["exact"][0] < 0.10
    assert 0.50 <= stored["extract, 3 epochs"]["exact"][0] <= 0.95
    assert 0.70 <= stored["tone, 2 epochs"]["exact"][0] <= 0.97
    assert stored["extract, 3 epochs"]["easy"][0] - stored["extract, 3 epochs"]["hard"][0] >= 0.1


@pytest.mark.parametrize("need", BASELINES)
def test_the_prompt_baseline_was_chosen_on_validation_and_scored_on_test(need):
    assert best_on_validation(need) == BASELINES[need]
    row = PROMPTS.stored(replace(BASELINES[need], split="test"))
    assert row["rows"] == len(row["each"]) == len(LOADERS[need]()["test"])
    assert abs(sum(row["each"]) / len(row["each"]) - row["score"][0]) < 0.001


@pytest.mark.parametrize("need", LOADERS)
def test_gold_answers_score_full_marks_and_silence_none(need):
    rows = list(LOADERS[need]()["validation"])
    each, more = results.prompts.scores(need, [r["messages"][-1]["content"] for r in rows], rows)
    assert (each == 1).all() and len(each) == len(rows)
    nothing, _ = results.prompts.scores(need, [""] * len(rows), rows)
    assert nothing.mean() < 0.5, "a reply of no words breaks some rules of style only"
    assert all(len(value) == 4 for value in more.values() if isinstance(value, list))


def test_examples_come_from_training_rows_and_tickets_from_the_short_ones():
    desk = data.load_extract()
    rows, pool = list(desk["validation"])[:3], list(desk["train"])
    for recipe in (PromptRecipe("extract", k=4), PromptRecipe("extract", k=4, choice="random", instructions="short")):
        prompts = results.prompts.prompts_of(recipe, rows, pool)
        shown = [turn["content"] for turn in prompts[0][1:-1] if turn["role"] == "user"]
        texts = {r["messages"][1]["content"] for r in pool}
        assert len(shown) == 4 and set(shown) <= texts and max(len(text.split()) for text in shown) <= 30
        assert [p[-1]["content"] for p in prompts] == [r["messages"][1]["content"] for r in rows]
        assert (prompts[0][0]["content"] == data.EXTRACT_INSTRUCTION) == (recipe.instructions == "short")


def test_reading_scores_tell_sources_kinds_and_abstention_apart():
    rows = list(data.load_answer(1)["test"])
    chunks = retrieval.by_section(data.load_articles(1))
    read = [retrieval.gold_sections(row, chunks) or chunks[:1] for row in rows]
    gold = results.reading.scores([r["messages"][-1]["content"] for r in rows], rows, read)
    assert gold["right"][0] == gold["two_articles"][0] == gold["abstains"]["unanswerable"][0] == 1 and gold["abstains"]["answerable"][0] == 0
    assert 0.5 < gold["grounded"][0] <= 1 and gold["fact"][3] + gold["two_articles"][3] + gold["unanswerable"][3] == gold["right"][3] == len(rows)
    silent = results.reading.scores([data.NOT_IN_DOCUMENTS] * len(rows), rows, read)
    assert silent["right"][0] == round(silent["unanswerable"][3] / len(rows), 3) and silent["grounded"] is None and silent["attributed"][0] == 0


@pytest.mark.parametrize("edition", ("1", "2"))
def test_the_stored_reading_keeps_what_lesson_03_says(edition):
    row = results.READING.stored(ReadingRecipe())[edition]
    assert row["search"]["hybrid"]["recall@5"][0] > 0.95 and row["closed book"]["right"][0] < 0.05
    assert row["closed book"]["right"][2] < row["retrieved"]["right"][0] <= row["gold"]["right"][0] + 0.05
    assert edition == "1" or row["stale"]["changed"][0] == 0


def test_the_stored_growth_states_numpy_beside_the_index_in_one_run():
    sizes = results.SCALE.stored(ScaleRecipe())["sizes"]
    assert [s["chunks"] for s in sizes][-1] == 100_000 and all("numpy" in s["latency"] and s["latency"]["exact"]["recall"] > 0.999 for s in sizes)
    assert all(len(s["recall"][mode]) == 3 for s in sizes for mode in ("vector", "text", "hybrid"))
