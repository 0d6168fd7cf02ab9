"""Measured rows: stored whole, found only for today's data, and today's stored rows keep what data card and lessons claim."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from helpers import data, results
from helpers.results import DIFFICULTY, PROMPTS, Recipe
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
