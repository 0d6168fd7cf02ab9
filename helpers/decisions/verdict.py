"""From answers and measured rows to a recommendation with its reasons, and the cheapest experiment that would change it. Lesson 01.

The rules in their order: nothing missing: don't. A baseline not measured: measure first. The cheapest baseline reaches the target: keep it,
unless shorter prompts pay a training. The baselines are not told apart from the target: measure more rows. All fall short: documents for
facts, tuning for form, both for both; with too few rows, measure the curve first; where tuning is not possible, don't.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from helpers import evaluation
from helpers.evaluation import Interval

from . import evidence, reasons
from .answers import Answers
from .bills import Bill
from .errors import DecisionError
from .evidence import Cite, Rows
from .reasons import HORIZON, Case, Reason

MEASURE, DONT, PROMPT, RAG = "measure first", "don't", "prompt", "RAG"
VERDICTS = (MEASURE, DONT, PROMPT, RAG, "LoRA", "QLoRA", "full", "RAG + LoRA", "RAG + QLoRA", "RAG + full")
BOTH = "prompt with documents"
CALLED = {PROMPT: "the best prompt", RAG: "retrieval", BOTH: "the best prompt with its documents given"}
SMALLEST_STEP = 0.05  # differences to the target below this are not worth a test of their own


@dataclass(frozen=True)
class Recommendation:
    """What to do. `verdict`: one of VERDICTS; `sentence` says it in words; `experiment`: the cheapest test that would change it.

    `conditions` must hold besides; `bill`: the costs of the tuning that is recommended or stands next.
    """

    verdict: str
    sentence: str
    reasons: tuple[Reason, ...]
    conditions: tuple[str, ...]
    experiment: str
    bill: Bill

    @property
    def tunes(self) -> bool:
        """Whether it recommends to tune."""
        return self.verdict not in (MEASURE, DONT, PROMPT, RAG)

    @property
    def retrieves(self) -> bool:
        """Whether it recommends retrieval."""
        return self.verdict.startswith(RAG)

    @property
    def rows(self) -> tuple[Cite, ...]:
        """The stored rows that the reasons rest on, each once; reasons are numbered by their place here."""
        return tuple({(cite.family, str(cite)): cite for reason in self.reasons for cite in reason.cites}.values())

    def lines(self) -> list[str]:
        """The reasons, each with the numbers of its rows."""
        number = {str(cite): place for place, cite in enumerate(self.rows, 1)}
        return [f"{reason.said} [{', '.join(str(number[str(c)]) for c in reason.cites)}]" for reason in self.reasons]

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.sentence}", *(f"- {line}" for line in self.lines()), *(f"- Condition: {one}" for one in self.conditions)]
        lines += [f"Cheapest experiment: {self.experiment}", "Rows:", *(f"  [{n}] {cite}" for n, cite in enumerate(self.rows, 1))]
        return "\n".join(lines)

    __repr__ = __str__


def recommend(answers: Answers, rows: Rows | None = None) -> Recommendation:
    """What to do about a use case, from its answers and the stored rows of lessons/results (or `rows`, by family).

    It may say "measure first". Raises DecisionError where an argument is not an Answers, costs.CostsError for a config that cannot be read.
    """
    if not isinstance(answers, Answers):
        raise DecisionError(f"recommend: expected decisions.Answers, got {type(answers).__name__}. Fix: decisions.answers_from({{…}}).")
    case = Case(answers, evidence.stored_rows() if rows is None else rows)
    for rule in (_nothing_missing, _unmeasured, _reached, _unsure):
        if found := rule(case):
            return found
    return _short(case)


def baseline(share: float | Interval, rows: int) -> Interval:
    """An interval as it is; a share that was measured on so many rows, with Wilson's interval (1927) at 95 %, as `evaluation.proportion` computes it from the rows."""
    if isinstance(share, Interval):
        return share
    z = 1.959964
    middle, half = share + z * z / (2 * rows), z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    low, high = ((middle + sign * half) / (1 + z * z / rows) for sign in (-1, 1))
    return Interval(share, max(low, 0.0), min(high, 1.0))


# ---------------------------------------------------------------- the rules


def _nothing_missing(case: Case) -> Recommendation | None:
    if case.answers.missing or case.answers.show_sources:
        return None
    return _say(case, DONT, "you named nothing that the model lacks, so there is nothing to tune.",
                "Collect ten answers that were not good enough, and name what was wrong with each.")


def _unmeasured(case: Case) -> Recommendation | None:
    a = case.answers
    if a.prompt is None:
        return _say(case, MEASURE, "nobody measured the best prompt; without that baseline no tuning can be judged.",
                    f"Write the best prompt you can, with a few examples like each request, and score it on {a.test_rows} held-out rows (lesson 02).")
    if case.needs_documents and a.rag is None:
        return _say(case, MEASURE, "facts are needed and nobody measured retrieval; it is the baseline for facts.",
                    f"Put the documents into an index and score the answers on the same {a.test_rows} rows (lesson 03).")
    return None


def _scores(case: Case) -> dict[str, Interval]:
    """The baselines that are allowed, cheapest first: where a source must be shown, only retrieval has one.

    One measured score may stand for both, where the documents were in the prompt already; it is named once."""
    a = case.answers
    if isinstance(a.rag, Interval) and a.rag == a.prompt:
        return {RAG if a.show_sources else BOTH: a.rag}
    known = {PROMPT: None if a.show_sources else a.prompt, RAG: a.rag}
    return {name: baseline(share, a.test_rows) for name, share in known.items() if share is not None}


def _reached(case: Case) -> Recommendation | None:
    a = case.answers
    name = next((name for name, score in _scores(case).items() if score.low >= a.target), None)
    if name is None:
        return None
    method, words = case.method, f"{CALLED[name]} reaches the target of {a.target:g}"
    months = case.bills[method].months if method else None
    pays = months is not None and months <= HORIZON
    slow = reasons.by_wait(case) is not None
    if name == PROMPT and (pays or slow) and not _blocks(case) and not _too_few(case):
        why = "shorter prompts pay the training" if pays else "answers come too late with a long prompt"
        return _say(case, evidence.NAMES[method], f"{words}, but {why}.",
                    "Tune once and score the same rows: keep the prompt if the tuned model is worse.")
    return _say(case, RAG if name == BOTH else name, f"{words}; tuning could only add cost.",
                "Send the next hundred real requests and score them: if the share falls under the target, fill in this sheet again.")


def _unsure(case: Case) -> Recommendation | None:
    a = case.answers
    unsure = {name: score for name, score in _scores(case).items() if score.high >= a.target}
    if not unsure:
        return None
    name, score = next(iter(unsure.items()))
    measured = a.prompt if name == PROMPT else a.rag
    need = _rows_to_narrow(score, a.test_rows, a.target) if isinstance(measured, Interval) else _rows_to_tell(score.estimate, a.target)
    more = f"Score {CALLED[name]} on {need:,} held-out rows instead of {a.test_rows:,}."
    if need <= a.test_rows:
        more = "Look at the wrong answers, and set a target with them in sight."
    return _say(case, MEASURE, f"{CALLED[name]} has {score} on {a.test_rows:,} rows: the target of {a.target:g} lies within the interval.", more)


def _short(case: Case) -> Recommendation:
    """All baselines fall short of the target."""
    a, blocked, few = case.answers, _blocks(case), _too_few(case)
    scores = _scores(case)
    short = " and ".join(f"{CALLED[name]} ({score})" for name,
                         score in scores.items()) + f" {'fall' if len(scores) > 1 else 'falls'} short of {a.target:g}"
    if case.tunes_facts_in and not blocked and not few:
        return _say(case, evidence.NAMES[case.method], f"{short}; the facts never change, and tuned in they were right more often than retrieved.",
                    "Change one fact, and count the hours until every answer is right again.")
    if case.needs_documents:
        if not blocked and not few:
            return _say(case, f"RAG + {evidence.NAMES[case.method]}", f"{short}: documents for the facts, tuning for what documents do not bring.",
                        "Score the same rows with the right documents put in by hand: if that reaches the target, mend the search and do not tune.")
        why = "tuning is not possible here" if blocked else "there are too few rows to tune"
        return _say(case, RAG, f"{short}; stay with retrieval and mend it: {why}.", _rows_experiment(case) if few and not blocked else
                    "Score the same rows with the right documents put in by hand: that tells whether the search or the reader is the problem.")
    if blocked:
        return _say(case, DONT, f"{short}, and tuning is not possible here. Do not ship: another model, a lower target or a person.",
                    "Score the best prompt with a larger model on the same rows.")
    if few:
        return _say(case, MEASURE, f"{short}, and there are too few rows to know what tuning brings.", _rows_experiment(case))
    return _say(case, evidence.NAMES[case.method], f"{short}: what is missing stands in no document, and tuning {'may' if 'skill' in a.missing else 'can'} bring it.",
                "Tune once on a quarter of the rows and once on half of them: if the score does not rise between them, more training will not help.")


# ---------------------------------------------------------------- parts


def _blocks(case: Case) -> list[Reason]:
    """Reasons that make tuning impossible, or useless by measurement."""
    found = [reasons.by_tunability(case), reasons.by_owner(case), reasons.by_memory(case) if case.method is None else None,
             reasons.by_gain(case) if case.gain[0] == "against" else None]
    return [reason for reason in found if reason]


def _too_few(case: Case) -> bool:
    return case.enough is None or case.answers.good_rows < case.enough


def _rows_experiment(case: Case) -> str:
    counts = list(evidence.learning_curve(case.rows)) or [25, 50, 100, 200]
    return (f"Make rows until you have {case.enough or counts[-1]}, and tune at {', '.join(map(str, counts))} of them: "
            "the curve tells whether more rows will reach the target (lesson 04).")


def _rows_to_tell(share: float, target: float) -> int:
    """Rows with which a share is told apart from the target, or from SMALLEST_STEP beside it where they are nearer."""
    gap = max(abs(target - share), SMALLEST_STEP)
    other = share + gap if share + gap <= 1 else share - gap
    return evaluation.rows_needed(other - share, share)


def _rows_to_narrow(score: Interval, rows: int, target: float) -> int:
    """Rows with which a measured interval would be as narrow as its distance from the target: its width falls with the root of their number."""
    return math.ceil(rows * ((score.high - score.low) / 2 / max(abs(target - score.estimate), SMALLEST_STEP)) ** 2)


def _say(case: Case, verdict: str, sentence: str, experiment: str) -> Recommendation:
    """The recommendation with every reason that applies, those for and against first."""
    r = reasons
    found = [r.by_tokens(case), r.by_memory(case)]  # what tuning would cost and save
    if case.answers.missing or case.answers.show_sources:
        found = [r.by_documents(case), r.by_changes(case), r.by_facts_in(case), r.by_sources(case), r.by_reader(case), r.by_tunability(case),
                 r.by_owner(case), r.by_gain(case), r.by_full(case), r.by_rows(case), *found, r.by_wait(case), r.by_tasks(case)]
    order = {"for": 0, "against": 1, "note": 2}
    kept = sorted((reason for reason in found if reason and reason.cites), key=lambda reason: order[reason.side])
    return Recommendation(verdict, sentence, tuple(kept), tuple(_conditions(case, verdict)), experiment, case.bills[case.method or "qlora"])


def _conditions(case: Case, verdict: str) -> list[str]:
    a, found = case.answers, []
    if a.private and a.host == "provider":
        found.append("the data must stay with you and a provider hosts the model: nothing here may be sent before you host it yourself")
    elif a.private:
        found.append("the data stays on your machines: documents, prompts, training rows and logs")
    if "skill" in a.missing:
        found.append("the desk has no need like a new skill: its rows stand in for yours, so measure your own before you spend more than a day")
    if verdict == "full" and evidence.LONGER in evidence.measured(a.like, case.rows):
        found.append("full led LoRA in short trainings: train both as long as the one that you would use, and score both before you choose")
    if case.gain[0] == "unknown" and verdict not in (MEASURE, DONT, PROMPT, RAG):
        found.append(f"tuning is not measured yet on the need `{a.like}`")
    return found
