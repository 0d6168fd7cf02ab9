"""The worksheet: refused answers, break-even, bills, the ten cases, and what every recommendation must keep, over random answers."""

from __future__ import annotations

import copy
import itertools
import math
import random
from dataclasses import replace

import pytest

from helpers import decisions, evaluation, plots, results
from helpers.costs import CostsError
from helpers.decisions import Answers, DecisionError, answers_from, evidence, recommend
from helpers.decisions.verdict import MEASURE, baseline

ROWS = evidence.stored_rows()
TUNED = Answers("Sort mail.", ("labels",), prompt=0.46, good_rows=448)


def random_answers(seed: int) -> Answers:
    """Answers drawn at random, extremes often among them."""
    r = random.Random(seed)
    share = lambda: r.choice([None, 0, 0.3, 0.5, 0.79, 0.8, 0.81, 0.95, 1, round(r.random(), 2)])
    return Answers(
        "x", tuple(name for name in decisions.MISSING if r.random() < 0.35), target=r.choice([0.5, 0.8, 0.95, 1.0]), prompt=share(), rag=share(),
        test_rows=r.choice([1, 20, 150, 3000]), fact_changes=r.choice([0, 0, 1, 12, 365]), show_sources=r.random() < 0.3,
        good_rows=r.choice([0, 1, 60, 199, 200, 5000]), owner=r.random() < 0.8, tunable=r.random() < 0.8, host=r.choice(["own", "provider"]),
        private=r.random() < 0.4, memory_gb=r.choice([0.5, 3.8, 8, 80]), requests=r.choice([0, 100, 10**5, 10**8]), price=r.choice([0, 0.5, 20]),
        prompt_tokens=r.choice([60, 1400]), wait_seconds=r.choice([None, 1, 5]), takes_seconds=r.choice([None, 2]), tasks=r.choice([1, 1, 4]),
        hosting=r.choice([0, 500]), training_hours=r.choice([None, 0, 40]),
    )


SEEDS = range(60)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("given, words", [
    ({"use_case": " "}, "use_case: expected a sentence"), ({"missing": ("form",)}, "missing: expected some of format"),
    ({"target": 0}, "target: expected a number above 0 to 1, got 0"), ({"target": math.nan}, "target"), ({"prompt": 1.2}, "prompt: .* or None, got 1.2"),
    ({"prompt": "0.5"}, "got '0.5'"), ({"good_rows": 2.5}, "good_rows: expected a whole number"), ({"good_rows": -1}, "from 0"),
    ({"good_rows": True}, "good_rows"), ({"owner": 1}, "owner: expected True or False"), ({"host": "cloud"}, "host: expected own or provider"),
    ({"device": "tpu"}, "device: expected cpu or gpu"), ({"config": 3}, "config: expected the dictionary"), ({"config": "{"}, "config: expected the JSON text"),
    ({"rows": 3}, "expected names among"), ({"memory_gb": 0}, "memory_gb: expected a number above 0"), ({"target": None}, "target"),
])
def test_an_answer_that_cannot_be_is_refused_with_its_fix(given, words):
    with pytest.raises(DecisionError, match=words) as error:
        answers_from({"use_case": "Sort mail.", **given})
    assert "Fix: " in str(error.value)


def test_a_config_without_sizes_is_refused_by_the_costs_room():
    with pytest.raises(CostsError, match="Fix: "):
        recommend(answers_from({"use_case": "x", "missing": "labels", "config": '{"model_type": "llama"}'}))
    with pytest.raises(DecisionError, match="expected decisions.Answers"):
        recommend({"use_case": "x"})


def test_every_answer_has_its_question_and_every_question_its_answer():
    assert [q.name for q in decisions.QUESTIONS].sort() == list(Answers.__dataclass_fields__).sort()
    assert {q.name for q in decisions.QUESTIONS} == set(Answers.__dataclass_fields__)


# ---------------------------------------------------------------- break-even


def test_break_even_is_where_both_ways_cost_the_same():
    once, before, after = 120.0, 0.002, 0.0005
    n = decisions.break_even(once, before, after)
    assert n == pytest.approx(80_000) and once + n * after == pytest.approx(n * before)
    assert decisions.break_even(0, 2, 1) == 0 and decisions.break_even(1, 1, 1) == math.inf == decisions.break_even(1, 1, 2)
    assert decisions.break_even_months(once, before, after, 10_000) == pytest.approx(8)
    assert decisions.break_even_months(once, before, after, 10_000, hosting=15) == math.inf
    assert decisions.request_price(1500, 2.0) == pytest.approx(0.003)
    for call in (lambda: decisions.break_even(-1, 1, 0), lambda: decisions.break_even_months(1, 1, 0, math.nan), lambda: decisions.request_price(1, -1)):
        with pytest.raises(DecisionError, match="0 or more.*Fix"):
            call()


def test_the_picture_marks_the_same_place_as_the_formula():
    figure = plots.cost_lines({"prompt": (0, 0.002), "tuned": (120, 0.0005)}, 200_000, "Tuning pays after 80,000 requests")
    assert "cheaper from 80000 requests" in figure.numbers and "80,000" in [t.get_text() for t in figure.axes[0].texts]
    for bad in (({}, 10), ({"a": (0, 1)}, 0), ({"a": (-1, 1)}, 10)):
        with pytest.raises(ValueError, match="cost_lines.*Fix"):
            plots.cost_lines(*bad, "x")


# ---------------------------------------------------------------- evidence and bills


def test_the_evidence_is_what_the_rows_say():
    row = evidence.pick(ROWS, "prompts", need="extract", split="test")[0]
    few = evidence.measured("extract", ROWS)["few-shot"]
    assert [few.score.estimate, few.score.low, few.score.high, few.rows] == row["score"] and few.prompt_tokens == row["prompt_tokens"]
    curve = evidence.learning_curve(ROWS)
    assert list(curve) == sorted(curve) and all(one.seeds == 3 for one in curve.values())
    seeds = [r["score"][0] for r in evidence.pick(ROWS, "tuning", rows=200, noise=0.0, copies=1)]
    assert curve[200].score.estimate == pytest.approx(sum(seeds) / 3, abs=1e-3) and curve[200].score.low < curve[200].score.estimate < curve[200].score.high


def test_enough_rows_is_the_first_number_whose_lead_over_the_prompt_excludes_zero():
    enough, prompt = evidence.enough_rows(ROWS), evidence.best_prompt("tone", ROWS)
    leads = {n: evidence.lead(one, prompt) for n, one in evidence.learning_curve(ROWS).items()}
    assert enough in leads and leads[enough].low > 0 and all(lead.low <= 0 for n, lead in leads.items() if n < enough)
    assert evidence.enough_rows({**ROWS, "tuning": [r for r in ROWS["tuning"] if (r["recipe"]["rows"] or 0) < enough]}) is None


def test_a_technique_without_rows_is_left_out_and_said_to_be_missing():
    bare = {**ROWS, "tuning": [], "difficulty": []}
    assert "condition" not in str(recommend(TUNED, bare)).lower(), "nothing is tuned, so nothing must hold for it"
    assert set(evidence.measured("tone", bare)) == {"few-shot"}
    found = recommend(TUNED, bare)
    assert found.verdict == MEASURE and "not measured yet" in str(found)
    assert recommend(TUNED, {}).verdict == MEASURE, "no rows at all: still an answer"


def test_the_bill_adds_people_and_machine_and_knows_what_fits():
    one = decisions.bill(replace(TUNED, good_rows=0, training_hours=10, per_hour=2, effort_hours=4, wage=50, row_minutes=6, price=1), "lora", ROWS)
    enough = evidence.enough_rows(ROWS)
    assert one.rows_to_make == enough and one.once == pytest.approx(10 * 2 + (4 + enough * 0.1) * 50)
    assert one.requests == pytest.approx(one.once / ((one.tokens_before - one.tokens_after) / 1e6)) and one.months == pytest.approx(one.requests / 1000)
    assert one.fits and not decisions.bill(replace(TUNED, memory_gb=0.5), "lora", ROWS).fits
    assert decisions.bill(replace(TUNED, device="gpu"), "lora", ROWS).hours is None
    assert decisions.bill(TUNED, "lora", ROWS).hours > 0 and "never paid" in str(decisions.bill(TUNED, "lora", ROWS))


def test_little_memory_takes_the_method_that_fits():
    big = replace(decisions.CASES[4].answers, memory_gb=24.0)
    assert recommend(big).verdict == "LoRA" and recommend(replace(big, memory_gb=12.0)).verdict == "QLoRA"
    assert recommend(replace(big, memory_gb=4.0)).verdict == "don't"


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize("case", decisions.CASES, ids=lambda c: c.name)
def test_the_verdict_of_a_worked_case(case):
    assert recommend(case.answers).verdict == case.verdict


def test_the_cases_show_most_verdicts():
    assert len(decisions.CASES) == 10 and len({c.verdict for c in decisions.CASES}) >= 6
    assert {c.verdict for c in decisions.CASES} <= set(decisions.VERDICTS)


@pytest.mark.parametrize("case", decisions.CASES, ids=lambda c: c.name)
def test_every_reason_rests_on_a_stored_row(case):
    found = recommend(case.answers)
    assert found.reasons and found.experiment and found.rows
    for reason in found.reasons:
        assert reason.cites and reason.side in ("for", "against", "note")
        for cite in reason.cites:
            assert any(cite.recipe.items() <= row["recipe"].items() for row in results.read(results.FAMILIES[cite.family].path)), cite


def test_every_recommendation_is_whole():
    for seed in SEEDS:
        a = random_answers(seed)
        found = recommend(a, ROWS)
        assert found.verdict in decisions.VERDICTS and found.sentence and found.experiment and str(found).count("\n") >= 3
        assert not (found.tunes and not (a.tunable and a.owner)), "nothing is tuned that cannot be, or that nobody looks after"
        if found.tunes:
            assert found.bill.fits and a.good_rows >= evidence.enough_rows(ROWS)
        if found.retrieves:
            assert "facts" in a.missing or a.show_sources or a.rag is not None


def test_an_unknown_baseline_always_gives_measure_first():
    for seed in SEEDS:
        a = random_answers(seed)
        if not a.missing and not a.show_sources:
            continue
        assert recommend(replace(a, prompt=None), ROWS).verdict == MEASURE
        if "facts" in a.missing or a.show_sources:
            assert recommend(replace(a, rag=None), ROWS).verdict == MEASURE


def against(found) -> set[str]:
    return {reason.text.split(";")[-1] for reason in found.reasons if (reason.about, reason.side) == ("tuning", "against")}


def test_more_good_rows_never_argue_against_tuning():
    for seed in SEEDS:
        a = random_answers(seed)
        steps = [recommend(replace(a, good_rows=n), ROWS) for n in (0, 100, 199, 200, 1000, 10**6)]
        for less, more in zip(steps, steps[1:]):
            assert more.tunes >= less.tunes and more.retrieves >= less.retrieves
            assert against(more) <= against(less)


def test_faster_changing_facts_never_argue_for_tuning_them_in():
    for rows, seed in itertools.product((ROWS, facts_can_be_tuned_in()), SEEDS):
        a = replace(random_answers(seed), missing=("facts",))
        steps = [recommend(replace(a, fact_changes=n), rows) for n in (0, 1, 12, 365)]
        tuned_in = [found.tunes and not found.retrieves for found in steps]
        assert all(more <= less for less, more in zip(tuned_in, tuned_in[1:]))
        for_tuning = [sum(r.about == "tuning" and r.side == "for" for r in found.reasons) for found in steps]
        assert all(more <= less for less, more in zip(for_tuning, for_tuning[1:]))
        assert sum(r.about == "RAG" and r.side == "for" for r in steps[1].reasons) >= sum(r.about == "RAG" and r.side == "for" for r in steps[0].reasons)


def test_having_to_show_sources_never_moves_away_from_retrieval():
    for seed in SEEDS:
        a = random_answers(seed)
        without, shown = (recommend(replace(a, show_sources=on), ROWS) for on in (False, True))
        assert shown.retrieves or not without.retrieves
        assert shown.verdict not in ("prompt", "LoRA", "QLoRA", "full"), "weights have no source to show"


def test_more_requests_never_argue_against_what_saves_tokens():
    for seed in SEEDS:
        a = random_answers(seed)
        steps = [recommend(replace(a, requests=n), ROWS) for n in (0, 10**3, 10**5, 10**7, 10**9)]
        for less, more in zip(steps, steps[1:]):
            assert more.tunes >= less.tunes and against(more) <= against(less)
            assert more.bill.months is None or less.bill.months is None or more.bill.months <= less.bill.months


def test_a_better_prompt_never_argues_for_tuning_unless_it_pays():
    for seed in SEEDS:
        a = replace(random_answers(seed), price=0.0, wait_seconds=None)
        steps = [recommend(replace(a, prompt=share), ROWS) for share in (0.0, 0.3, 0.6, 0.9, 1.0)]
        tuned = [found.tunes for found in steps]
        assert all(more <= less for less, more in zip(tuned, tuned[1:]))


def test_more_memory_and_an_owner_never_take_tuning_away():
    for seed in SEEDS:
        a = random_answers(seed)
        for small, large in ((replace(a, memory_gb=1.0), replace(a, memory_gb=64.0)), (replace(a, owner=False), replace(a, owner=True)),
                             (replace(a, tunable=False), replace(a, tunable=True))):
            assert recommend(large, ROWS).tunes >= recommend(small, ROWS).tunes


def matrix_row(need: str, technique: str, right: float, **knobs) -> dict:
    """A made row of the decision matrix in which a share of the first rows is right. For these tests only."""
    count = {"answer": 86, "reply": 63}[need]
    each = [float(n < right * count) for n in range(count)]
    recipe = {"need": need, "technique": technique, "seed": 0, "edition": 1, "split": "test", "chunks": 0, **knobs}
    return {"recipe": recipe, "score": [right, max(right - 0.1, 0), min(right + 0.1, 1), count], "each": each, "prompt_tokens": 300.0}


def facts_can_be_tuned_in() -> dict:
    """Made rows in which a model with the facts tuned in is always right."""
    return {**ROWS, "matrix": [matrix_row("answer", "lora", 1.0)]}


def test_rows_of_the_matrix_stand_in_the_place_of_others():
    rag = [matrix_row("answer", "rag", right, chunks=chunks, split=split) for split, (one, three) in (("validation", (0.2, 0.5)), ("test", (0.9, 0.4)))
           for right, chunks in ((one, 1), (three, 3))]
    seeds = [matrix_row("answer", "rag+lora", right, seed=seed) for seed, right in enumerate((0.6, 0.8, 1.0))]
    rows = {**ROWS, "matrix": [*rag, *seeds, matrix_row("answer", "rag+lora", 0.0, edition=2), matrix_row("reply", "few-shot", 0.5)]}
    found = evidence.measured("answer", rows)
    assert found["RAG"].score.estimate == 0.4, "the number of sections is chosen on validation rows"
    assert found["RAG + LoRA"].seeds == 3 and found["RAG + LoRA"].score.estimate == pytest.approx(0.8, abs=0.01)
    assert evidence.gain("answer", rows)[0] == "for" and evidence.measured("reply", rows)["few-shot"].score.estimate == 0.5
    assert evidence.GIVEN in evidence.measured("reply", rows), "another prompt, another name"
    assert recommend(decisions.CASES[2].answers, rows).verdict == "RAG"
    worse = {**ROWS, "matrix": [*rag, matrix_row("answer", "rag+lora", 0.1)]}
    assert evidence.gain("answer", worse)[0] == "against"
    assert recommend(replace(decisions.CASES[6].answers, missing=("facts",)), worse).verdict == "RAG", "tuning that was measured to lose"
    assert recommend(replace(decisions.CASES[6].answers, missing=("facts",)), rows).verdict == "RAG + LoRA"


def test_stable_facts_are_tuned_in_only_where_that_was_measured_to_win():
    a = Answers("Say the facts.", ("facts",), prompt=0.1, rag=0.3, good_rows=1000)
    assert recommend(a, facts_can_be_tuned_in()).verdict == "LoRA"
    for changed in (replace(a, fact_changes=1), replace(a, show_sources=True), replace(a, missing=("facts", "format"))):
        assert recommend(changed, facts_can_be_tuned_in()).retrieves


def test_tuning_that_was_measured_to_lose_is_not_recommended():
    rows = copy.deepcopy(dict(ROWS))
    rows["tuning"] = [{**r, "hits": [0] * len(r["hits"]), "score": [0, 0, 0.01, len(r["hits"])]} for r in rows["tuning"]]
    rows["difficulty"] = [{**r, "exact": [0, 0, 0.01, r["rows"]]} for r in rows["difficulty"]]
    found = recommend(TUNED, rows)
    assert not found.tunes and any(r.about == "tuning" and r.side == "against" for r in found.reasons)


def test_a_score_that_cannot_be_told_from_the_target_asks_for_more_rows():
    found = recommend(replace(TUNED, prompt=0.78, test_rows=60))
    assert found.verdict == MEASURE and "held-out rows instead of 60" in found.experiment
    for right, count in ((5, 10), (10, 10), (0, 7), (46, 128)):
        theirs, ours = evaluation.proportion([1] * right + [0] * (count - right)), baseline(right / count, count)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_data_that_must_stay_is_a_condition():
    said = recommend(replace(TUNED, private=True, host="provider")).conditions
    assert any("nothing here may be sent" in one for one in said)


def test_a_score_over_seeds_is_the_mean_of_theirs():
    for need in decisions.NEEDS:
        for name, one in evidence.measured(need, ROWS).items():
            assert len(one.by_seed) == (one.seeds if one.seeds > 1 else 0), (need, name)
            assert one.seeds == 1 or sum(one.by_seed) / one.seeds == pytest.approx(one.score.estimate, abs=0.001), (need, name)
    stored = {row["recipe"]["seed"]: row["score"][0] for row in ROWS["matrix"] if (row["recipe"]["need"], row["recipe"]["technique"]) == ("reply", "qlora")}
    assert evidence.measured("reply", ROWS)["QLoRA"].by_seed == tuple(stored[seed] for seed in (0, 1, 2)), "in the order of the seeds, not of the file"
    assert {evidence.measured(need, ROWS)["LoRA"].seeds for need in decisions.NEEDS} == {3}


def test_a_mean_of_rules_keeps_its_measured_interval_and_one_score_is_named_once():
    score = evidence.measured("reply", ROWS)[evidence.GIVEN].score
    a = Answers("Write a reply.", ("facts", "style"), target=0.7, prompt=score, rag=score, test_rows=63, good_rows=400)
    found = recommend(a)
    assert found.retrieves and found.sentence.count(str(score)) == 1 and "documents given" in found.sentence
    assert recommend(replace(a, prompt=score.estimate, rag=score.estimate)).verdict == MEASURE, "63 answers that are right or wrong tell less"
    near = recommend(replace(a, target=0.6))
    assert near.verdict == MEASURE and "instead of 63" not in near.experiment, "0.05 to the target: the interval is narrow enough for that"
    assert recommend(replace(a, target=0.5)).verdict == "RAG" and decisions.record(a).count(str(score)) > 1
    with pytest.raises(DecisionError, match="prompt: .* got 1.2"):
        replace(a, prompt=evaluation.Interval(0.9, 0.8, 1.2))


def test_the_reason_cites_the_method_that_is_recommended():
    for a in (TUNED, replace(TUNED, memory_gb=2.5), replace(TUNED, missing=("format",)), replace(TUNED, missing=("format",), tasks=3)):
        found = recommend(a)
        first = next(reason for reason in found.reasons if " beats " in reason.text and reason.side == "for")
        assert f", {found.verdict} beats few-shot" in first.text and first.cites[0].recipe["method"] == found.verdict.lower()
        assert found.bill.cites[1].recipe["method"] == found.verdict.lower()


def test_all_weights_are_recommended_where_they_lead_and_nothing_forbids_them():
    a = replace(TUNED, missing=("format",))
    found = recommend(a)
    assert found.verdict == "full" and any("train both as long" in one for one in found.conditions)
    assert recommend(TUNED).verdict == "LoRA" and "full) is not told apart from LoRA" in str(recommend(TUNED))
    for changed, words in ((replace(a, memory_gb=2.5), "the machine has 2.5 GB"), (replace(a, tasks=2), "2 tasks share the base"), (replace(a, host="provider"), "a provider hosts")):
        assert recommend(changed).verdict == "LoRA" and words in next(r.text for r in recommend(changed).reasons if "full beats LoRA" in r.text)
    longer = copy.deepcopy(dict(ROWS))
    full = evidence.pick(ROWS, "tuning", need="extract", method="full", split="test")
    longer["tuning"] = [*longer["tuning"], *({**row, "recipe": {**row["recipe"], "epochs": 3}} for row in full)]
    assert recommend(a, longer).verdict == "LoRA", "three epochs of one are not compared with one of the other"


def test_a_predicted_peak_and_a_shorter_prompt_say_what_they_belong_to():
    said = str(recommend(decisions.CASES[1].answers))
    assert "predicted peaks for rows of 200 tokens: LoRA 3.7 GB (batch 4)" in said and "measured peak 2.6 GB, batch 4, rows of 128 tokens" in said
    assert "on `answer`, a tuned prompt was about" in said
    assert "on `extract`, a tuned prompt was about" in str(recommend(replace(TUNED, missing=("format",))))


def test_a_skill_is_not_said_to_be_like_a_need_of_the_desk():
    assert "the one most like yours" not in str(recommend(decisions.CASES[4].answers)) and "without being like it" in str(recommend(decisions.CASES[4].answers))


# ---------------------------------------------------------------- the record


def test_the_record_is_one_page_with_all_answers_and_written_whole(tmp_path, monkeypatch):
    a = replace(TUNED, use_case="Sort | mail\n# now")
    path = tmp_path / "new" / "decision.md"
    assert decisions.write_record(a, path).verdict == "LoRA"
    text = path.read_text(encoding="utf-8")
    assert text == decisions.record(a) and text.startswith("# Decision: Sort \\| mail # now\n") and len(text.splitlines()) < 90
    assert all(q.text in text for q in decisions.QUESTIONS if q.name != "use_case") and text.count("\n# ") == 0
    assert [f.name for f in path.parent.iterdir()] == ["decision.md"]

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError):
        decisions.write_record(replace(a, use_case="other"), path)
    assert path.read_text(encoding="utf-8") == text and [f.name for f in path.parent.iterdir()] == ["decision.md"]
