"""Measured rows: stored whole, found only for today's data, and today's stored rows keep what the data card claims."""

from __future__ import annotations

import json

import pytest

from helpers import data, results
from helpers.results import Recipe

NAMES = [f"{r.need}, {r.epochs} epochs" for r in results.RUNS]


def a_row(recipe: Recipe, exact: float, need: str = "tone") -> dict:
    return {"recipe": results.asdict(recipe), "exact": [exact], "provenance": {"data": results.data_hash(need), "model": results.models.model_name()}}


def test_a_row_takes_the_place_of_the_one_with_its_recipe(tmp_path):
    path = tmp_path / "results" / "rows.jsonl"
    first, second = Recipe("tone", 1), Recipe("tone", 2)
    for row in (a_row(first, 0.1), a_row(second, 0.2), a_row(first, 0.3)):
        results.store(row, path)
    rows = results.read(path)
    assert [r["exact"] for r in rows] == [[0.2], [0.3]]
    assert results.find(first, rows)["exact"] == [0.3] and results.find(Recipe("tone", 3), rows) is None
    assert [f.name for f in path.parent.iterdir()] == ["rows.jsonl"]
    results.store(a_row(Recipe("extract", 1), 0.4, "extract"), path)
    newer = a_row(Recipe("tone", 9), 0.5)
    newer["provenance"]["data"] = "newer"
    results.store(newer, path)
    assert [r["exact"] for r in results.read(path)] == [[0.4], [0.5]], "rows of the need's former data go, other needs stay"


def test_a_row_that_was_measured_on_other_data_does_not_count(tmp_path):
    recipe = Recipe("tone", 1)
    assert results.find(recipe, [a_row(recipe, 0.5)]) and not results.find(recipe, [a_row(recipe, 0.5, need="extract")])


def test_a_row_that_is_missing_is_asked_for_by_its_command():
    with pytest.raises(LookupError, match="found none. Fix: python -m helpers.results --need tone"):
        results.stored(Recipe("tone", 99))


def test_only_what_is_missing_or_out_of_date_is_due():
    rows = [{**a_row(recipe, 0.5, recipe.need)} for recipe in results.RUNS]
    assert results.due(rows) == [] and results.due(rows, force=True) == [0, 1, 2, 3]
    rows[1]["provenance"]["data"] = "another"
    rows[2]["provenance"]["model"] = "another"
    assert results.due(rows) == [1, 2] and results.due(rows, "tone") == [2] and results.due(rows, "tone", force=True) == [2, 3]
    assert results.due(results.read()) == [], "Fix: python -m helpers.results (about twenty minutes)"


def test_no_row_of_former_data_or_recipes_is_left():
    rows = results.read()
    assert rows == [results.find(Recipe(**row["recipe"]), rows) for row in rows] and len(rows) == len(results.RUNS)


@pytest.fixture(scope="module")
def stored() -> dict[str, dict]:
    return {name: results.stored(recipe) for name, recipe in zip(NAMES, results.RUNS)}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_was_measured_on_the_data_that_stands_here(stored, name):
    row = stored[name]
    assert row["rows"] == len({"extract": data.load_extract, "tone": data.load_tone}[row["recipe"]["need"]]()["test"])
    assert row["provenance"]["commit"] and row["provenance"]["cpu"] and not json.dumps(row).count("/home/")


def test_the_data_is_neither_too_easy_nor_impossible(stored):
    assert stored["extract, 0 epochs"]["exact"][0] < 0.10
    assert 0.50 <= stored["extract, 3 epochs"]["exact"][0] <= 0.95
    assert 0.70 <= stored["tone, 2 epochs"]["exact"][0] <= 0.97
    assert stored["extract, 3 epochs"]["easy"][0] - stored["extract, 3 epochs"]["hard"][0] >= 0.1
