"""The claims ledger: every verdict follows from rows or stored outputs that are there, and turns with them."""

from __future__ import annotations

import copy
import re
import shutil

import pytest

from helpers import data, decisions, results
from helpers.evaluation import Interval
from helpers.decisions import claims, evidence, table
from helpers.decisions.evidence import Cite
from helpers.decisions.claims import HOLDS, NOT, OPEN, PENDING, UNTESTED, WHEN, LessonCite

ROWS = evidence.stored_rows()
ENTRIES = {entry.claim.id: entry for entry in decisions.ledger()}
EXPECTED = {  # whoever changes one of these re-reads the claim and its numbers
    HOLDS: "F2 F3a F3b F4 F5a F8a F8b P1 P5 P13 P14 E2 E5 E8 E12 E16 E17 E18 R3 R11 S4",
    WHEN: "F5b P2 P3 P4 P6 P7 P9 P11 P12 E3 E7 E9 E10 E11 E13 E21 R1 R4 R5 R10 S5",
    NOT: "F6 F7 P8 P10 E1 E6 E14 E15 E19 E23 E24 R2 R6 R7 R9 S1 S2 S3 S6",
    OPEN: "E4 E20 R8",
    UNTESTED: "F9 P15 E22 E26 E27 E28 E29 R12 S7 S8 S9 S10",
}


def found(id: str, rows) -> str:
    return claims.judge(ENTRIES[id].claim, rows).verdict


def changed(family: str, change, rows=ROWS) -> dict:
    """The stored rows with one family changed; for these tests only."""
    return {**rows, family: [change(copy.deepcopy(row)) for row in rows[family]]}


def test_the_ledger_is_long_and_each_claim_stands_once():
    ids = [one.id for one in decisions.all_claims()]
    assert len(ids) == len(set(ids)) == len(ENTRIES) and sum(one.check is not None for one in decisions.all_claims()) >= 50
    for one in decisions.all_claims():
        assert one.document in decisions.DOCUMENTS and one.says and bool(one.check) != bool(one.why) and bool(one.check) == bool(one.where), one.id
        assert re.match(r"\d\d", one.where) or not one.check, one.id
    assert {one.document for one in decisions.all_claims()} == set(decisions.DOCUMENTS)


def test_every_verdict_still_follows():
    expected = {id: verdict for verdict, ids in EXPECTED.items() for id in ids.split()}
    assert set(expected) == set(ENTRIES)
    assert {id: ENTRIES[id].finding.verdict for id in expected} == expected


@pytest.mark.parametrize("id", ["P2", "P3", "E2", "E4", "E24", "R2", "R10", "R11"])
def test_a_claim_whose_rows_are_not_there_names_the_command(id):
    finding = claims.judge(ENTRIES[id].claim, {**ROWS, "tuning": [], "matrix": []})
    assert finding.verdict == PENDING and finding.seen.startswith("python -m helpers.results --family ")


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_finding_says_what_was_seen_and_its_sources_are_there(entry):
    finding = entry.finding
    assert finding.verdict in claims.VERDICTS and finding.seen and (finding.verdict != WHEN or finding.when) and str(entry)
    if finding.verdict not in (UNTESTED, PENDING):
        assert finding.sources
    for source in finding.sources:
        if isinstance(source, Cite):
            assert any(source.recipe.items() <= row["recipe"].items() for row in results.read(results.FAMILIES[source.family].path)), source
        else:
            assert isinstance(source, LessonCite) and source.value and next(results.rows.FOLDER.parent.glob(f"{source.lesson}_*.ipynb"))


def test_without_rows_nothing_is_claimed():
    """What rests on rows alone is not measured yet; what rests on lessons stays."""
    for id, entry in ENTRIES.items():
        if any(isinstance(source, Cite) for source in entry.finding.sources):
            assert found(id, {}) == PENDING, id


def test_a_lost_output_is_an_error_and_not_a_verdict(tmp_path, monkeypatch):
    folder = tmp_path / "lessons" / "results"
    shutil.copytree(results.rows.FOLDER.parent, folder.parent, ignore=shutil.ignore_patterns("out"))
    lesson = folder.parent / "08_evaluation.ipynb"
    lesson.write_text(lesson.read_text(encoding="utf-8").replace("lost:  ", "gone:  "), encoding="utf-8")
    monkeypatch.setattr(results.rows, "FOLDER", folder)
    with pytest.raises(LookupError, match="08_evaluation.ipynb.*found none. Fix"):
        found("E1", ROWS)


def test_the_ledger_as_a_table_has_every_claim_with_its_condition():
    shown = decisions.ledger_table(ENTRIES.values())
    assert list(shown.index) == list(ENTRIES) and shown.loc["P7", "verdict"].startswith("holds when a step has") and "slowdown.jsonl" in shown.loc["P7", "sources"]
    assert not shown.isna().any(axis=None) and (shown["seen"] != "").all()


# ---------------------------------------------------------------- verdicts turn with their rows


def swap_reading(row):
    row["1"]["closed book"], row["1"]["retrieved"] = row["1"]["retrieved"], row["1"]["closed book"]
    row["2"]["stale"], row["2"]["retrieved"] = row["2"]["retrieved"], row["2"]["stale"]
    return row


def test_retrieval_claims_turn():
    rows = changed("reading", swap_reading)
    assert found("R1", rows) == NOT and found("R3", rows) == NOT and found("R9", rows) == HOLDS


def test_tuned_in_facts_turn_and_a_refusal_is_no_knowledge():
    def knows(right):
        def change(row):
            if row["recipe"]["technique"] == "lora" and row["recipe"]["need"] == "answer":
                kinds = data.load_answer()["test"]["kind"]
                row["each"] = [float(right if kind != "unanswerable" else 1) for kind in kinds]
            return row

        return changed("matrix", change)

    assert found("R2", knows(1)) == HOLDS and found("R2", knows(0)) == NOT


def same_ratio(row):
    for step in row.get("steps", ()):
        step["qlora"]["cpu"] = 1.3 * step["lora"]["cpu"]
    return row


def lighter(row):
    return {**row, "peak_gb": 1.0} if row["recipe"]["method"] == "qlora" else row


def test_qlora_claims_turn():
    assert found("P7", changed("slowdown", same_ratio)) == HOLDS
    assert found("P7", changed("slowdown", lambda row: {**row, "steps": [{"tokens": 8, "lora": {"cpu": 1}, "qlora": {"cpu": 3}}]})) == NOT
    assert found("P6", changed("slowdown", lighter)) == HOLDS


def test_overfitting_knobs_turn():
    assert found("E14", changed("overfit", lambda row: {**row, "validation": [0.3]} if row["recipe"]["dropout"] else row)) == HOLDS
    assert found("E16", changed("overfit", lambda row: {**row, "validation": [0.9]})) == NOT


def scored(**hit):
    """`hit`: method -> what it got right on the test rows of both needs."""
    def change(row):
        d = row["recipe"]
        if d["method"] in hit and d["split"] == "test" and d["rows"] is None:
            right = hit[d["method"]]
            row["hits"], row["score"] = [right] * len(row["hits"]), [right, 0.9 * right, 0.1 + 0.9 * right, len(row["hits"])]
        return row

    def in_matrix(row):
        if (right := hit.get(row["recipe"]["technique"])) is not None:
            row["each"], row["score"] = [right] * len(row["each"]), [right, 0.9 * right, 0.1 + 0.9 * right, len(row["each"])]
        return row

    return changed("matrix", in_matrix, changed("tuning", change))


def test_full_and_lora_turn():
    full, lora, same = scored(full=1.0, lora=0.0), scored(full=0.0, lora=1.0), scored(full=1.0, lora=1.0)
    assert [(found("P3", rows), found("P2", rows)) for rows in (full, lora, same)] == [(HOLDS, NOT), (NOT, HOLDS), (OPEN, HOLDS)]


def test_a_lead_that_holds_0_is_not_told_apart():
    leads = [Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.1, -0.1, 0.3)]
    assert [claims.by_lead(lead, "").verdict for lead in leads] == [HOLDS, NOT, OPEN]
    with pytest.raises(claims.Pending):
        claims.by_lead(None, "")
    assert [claims.by_scores(*pair, "").verdict for pair in ((leads[0], leads[1]), (leads[1], leads[0]), (leads[0], leads[2]))] == [HOLDS, NOT, OPEN]


def best_rate(rate):
    def change(row):
        if row["recipe"]["split"] == "validation":
            row["score"] = [1.0 if row["recipe"]["learning_rate"] == rate else 0.0, 0, 1, 64]
        return row

    return change


def test_the_learning_rate_claim_turns():
    assert found("E9", changed("tuning", best_rate(1e-5))) == HOLDS and found("E9", changed("tuning", best_rate(1e-2))) in (NOT, WHEN)


def test_costs_turn():
    def cheap_dora(row):
        return {**row, "seconds": 0.1} if row["recipe"]["method"] == "dora" else row

    assert found("S4", changed("costs", cheap_dora)) == NOT
    assert found("P13", changed("costs", lambda row: {**row, "peak_gb": 9.0} if row["recipe"]["method"] == "lora" else row)) == NOT


# ---------------------------------------------------------------- the table


def test_the_table_stands_beside_the_original_and_comes_from_rows():
    original, ours = decisions.original_table(), decisions.measured_table()
    assert list(ours.index) == list(original.index) and list(ours.columns) == list(original.columns) == list(table.COLUMNS)
    assert set(original.to_numpy().ravel()) == {"yes", "no"}
    assert set(ours.to_numpy().ravel()) <= {"yes", "no", table.UNTESTED, table.PENDING}
    assert (ours.loc["reduce memory", ["LoRA", "QLoRA", "PEFT"]] == "yes").all() and ours.loc["fewer trained parameters", "LoRA"] == "yes"
    assert ours.loc["reduce compute and money", "DoRA"] == "no" and set(ours.loc[["adapt a model to a task or field", "answering questions"], "DoRA"]) == {table.PENDING}  # measured on `tone` only
    assert (ours[["DeepSpeed", "ZeRO"]] == table.UNTESTED).all(axis=None)


def test_the_table_turns_with_the_rows_and_says_what_is_missing():
    heavy = changed("costs", lambda row: {**row, "peak_gb": 99.0} if row["recipe"]["method"] != "full" else row)
    assert (decisions.measured_table(heavy).loc["reduce memory", ["LoRA", "QLoRA", "PEFT", "DoRA"]] == "no").all()
    empty = decisions.measured_table({})
    assert set(empty.to_numpy().ravel()) == {table.UNTESTED, table.PENDING}
