"""Single reasons for and against a technique, each resting on stored rows. `verdict` brings them together. Lesson 01."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from helpers.evaluation import Interval

from . import evidence
from .answers import Answers
from .bills import METHODS, Bill, bill
from .evidence import Cite, Measured, Rows

HORIZON = 12  # months within which saved tokens should pay a training


@dataclass(frozen=True)
class Reason:
    """One sentence that speaks `side` ("for", "against" or "note") `about` ("tuning", "RAG" or "prompt"), and the rows it rests on."""

    about: str
    side: str
    text: str
    cites: tuple[Cite, ...]

    @property
    def said(self) -> str:
        """The sentence with its side, without the rows."""
        return {"for": f"For {self.about}", "against": f"Against {self.about}", "note": "Note"}[self.side] + f": {self.text}"

    def __str__(self) -> str:
        return f"{self.said} [{'; '.join(map(str, self.cites)) or 'no row'}]"


@dataclass(frozen=True)
class Case:
    """The answers of a worksheet with the rows beside them, and what follows from both."""

    answers: Answers
    rows: Rows

    @property
    def needs_documents(self) -> bool:
        """Whether facts must come from documents: they are missing, or a source must be shown."""
        return "facts" in self.answers.missing or self.answers.show_sources

    @property
    def needs_form(self) -> bool:
        """Whether something besides facts is missing, which documents do not bring."""
        return bool(set(self.answers.missing) - {"facts"})

    @property
    def enough(self) -> int | None:
        return evidence.enough_rows(self.rows)

    @cached_property
    def bills(self) -> dict[str, Bill]:
        return {method: bill(self.answers, method, self.rows) for method in METHODS}

    @cached_property
    def method(self) -> str | None:
        """The method to tune with: full where it was measured to be better and nothing forbids it, else LoRA where it fits, else QLoRA; else None."""
        if self.full_lead and self.full_lead.low > 0 and not self.against_full:
            return "full"
        return next((method for method in ("lora", "qlora") if self.bills[method].fits), None)

    @property
    def full_lead(self) -> Interval | None:
        """The lead of full tuning over LoRA on the like need, trained equally long; None where it is not measured."""
        found = evidence.measured(self.answers.like, self.rows)
        full, lora = found.get("full"), found.get("LoRA")
        equal = full and lora and full.cite.recipe.get("epochs") == lora.cite.recipe.get("epochs")
        return evidence.lead_of("full", "LoRA", self.answers.like, self.rows) if equal else None

    @property
    def against_full(self) -> str:
        """What forbids full tuning whatever its score, in words: too little memory, several tasks, a provider who hosts; else empty."""
        a, peak = self.answers, self.bills["full"]
        if not peak.fits:
            return f"full needs {peak.peak_gb:.1f} GB and the machine has {a.memory_gb:g} GB"
        if a.tasks > 1:
            return f"{a.tasks} tasks share the base, and full tuning makes a whole model for each"
        return "a provider hosts, who would have to store and serve a whole model for you alone" if a.host == "provider" else ""

    @property
    def rivals(self) -> tuple[Measured | None, Measured | None]:
        """What tuning is compared with on the like need, without tuning and with the method of this case."""
        return evidence.rivals_of(self.answers.like, self.method, self.rows)

    @property
    def gain(self) -> tuple[str, Interval | None]:
        """What tuning gained on the like need, see `evidence.gain`."""
        return evidence.gain_of(*self.rivals)

    @property
    def facts_in(self) -> Interval | None:
        """The lead of a model with the facts tuned in over retrieval, on questions that the documents answer; None where it is not measured."""
        facts = evidence.facts_in(self.rows)
        return facts[2] if facts else None

    @property
    def tunes_facts_in(self) -> bool:
        """Facts are all that is missing, they never change, no source is asked for, and tuning them in was measured to beat retrieval."""
        a = self.answers
        return a.missing == ("facts",) and not a.fact_changes and not a.show_sources and self.facts_in is not None and self.facts_in.low > 0


# ---------------------------------------------------------------- what tuning buys


def by_gain(case: Case) -> Reason:
    """What tuning gained where it was measured on the like need."""
    plain, tuned = case.rivals
    side, lead = case.gain
    like = case.answers.like
    if side == "unknown":
        missing = f"tuning is not measured yet on {_like(case)} ({evidence.measuring(like)})"
        return Reason("tuning", "note", missing + ".", (plain.cite,) if plain else ())
    words = {"for": "beats", "against": "loses to", "note": "is not told apart from"}[side]
    more = f", lead {lead}" if lead else ""
    text = f"on {_like(case)}, {tuned.technique} {words} {plain.technique}: {tuned.score} against {plain.score}{more}."
    return Reason("tuning", side, text, (tuned.cite, plain.cite))


def _like(case: Case) -> str:
    """The like need in words; a skill has none that is near."""
    near = "which stands in for your skill without being like it" if "skill" in case.answers.missing else "the one most like yours"
    return f"the desk's need `{case.answers.like}`, {near}"


def by_full(case: Case) -> Reason | None:
    """Whether training all weights was better than LoRA on the like need, and what follows here."""
    lead, like = case.full_lead, case.answers.like
    if lead is None or case.method is None or not case.answers.tunable:
        return None
    found = evidence.measured(like, case.rows)
    full, lora, longer = (found.get(name) for name in ("full", "LoRA", evidence.LONGER))
    if lead.low <= 0:
        said = "loses to" if lead.high < 0 else "is not told apart from"
        return Reason("tuning", "note", f"on `{like}`, training all weights (full) {said} LoRA: lead {lead}; LoRA needs less memory.", (full.cite, lora.cite))
    follows = f"{evidence.NAMES[case.method]} here all the same: {case.against_full}" if case.against_full else "here it fits, for one task, and you host it yourself"
    epochs = full.cite.recipe.get("epochs")
    length = "equally long" if epochs is None else f"for {epochs} epoch{'' if epochs == 1 else 's'}"
    text = f"on `{like}`, full beats LoRA, both trained {length}: {full.score} against {lora.score}, lead {lead}; {follows}."
    if longer is None:
        return Reason("tuning", "note", text, (full.cite, lora.cite))
    text += f" LoRA trained longer, {longer.cite.recipe['epochs']} epochs, reached {longer.score}; full was not measured that long."
    return Reason("tuning", "note", text, (full.cite, lora.cite, longer.cite))


def by_rows(case: Case) -> Reason:
    """Whether there are as many good rows as tuning needed on `tone`."""
    have, enough = case.answers.good_rows, case.enough
    curve, prompt = evidence.learning_curve(case.rows), evidence.best_prompt("tone", case.rows)
    if enough is None:
        return Reason("tuning", "against", f"nobody measured how many rows are enough ({evidence.command('tuning', 'tone')}); you have {have:,}.",
                      tuple(one.cite for one in curve.values()))
    below = [count for count in curve if count < enough]
    cites = (*(curve[count].cite for count in below[-1:]), curve[enough].cite, prompt.cite)
    if have >= enough:
        return Reason("tuning", "for", f"you have {have:,} good rows; on `tone`, {enough} were enough to beat the best prompt.", cites)
    return Reason("tuning", "against", f"you have {have:,} good rows; on `tone`, tuning needed {enough} to beat the best prompt"
                  + (f", and with {below[-1]} it did not." if below else "."), cites)


def by_owner(case: Case) -> Reason | None:
    """Tuning needs somebody who measures; a wrong setting ruins it without an error."""
    if case.answers.owner:
        return None
    rates = evidence.pick(case.rows, "tuning", need="tone", method="lora", split="validation", rank=16, targets="all-linear", loss_on="answer")
    worst = sorted(rates, key=lambda row: row["score"][0])[:1]
    cites = tuple(evidence.cite(row, "tuning", f"{evidence.interval(row['score'])}") for row in worst)
    rate = f": with learning rate {worst[0]['recipe']['learning_rate']:g} the same run scored {worst[0]['score'][0]:.2f}" if worst else ""
    return Reason("tuning", "against", f"nobody is there to prepare data, evaluate and tune again; a wrong setting gives no error{rate}.", cites)


def by_tunability(case: Case) -> Reason | None:
    """A closed model cannot be tuned."""
    plain = case.rivals[0]
    return None if case.answers.tunable else Reason(
        "tuning", "against", "this model cannot be tuned; what it can do is what a prompt brings out.", (plain.cite,) if plain else ())


def by_memory(case: Case) -> Reason:
    """Which method fits the machine, by prediction, with the measured rows beside it."""
    sizes = ", ".join(f"{evidence.NAMES[m]} {b.peak_gb:.1f} GB ({b.small})" for m, b in case.bills.items())
    rows = [evidence.pick(case.rows, "costs", model="135M", method=m, batch=4, length=128, loss="answer", checkpointing=False, optimizer="adamw")
            for m in ("lora", "full")]
    cites = tuple(evidence.cite(found[0], "costs", f"measured peak {found[0]['peak_gb']:.1f} GB, batch 4, rows of 128 tokens") for found in rows if found)
    have = f"predicted peaks for rows of {case.answers.tokens_per_row:,} tokens: {sizes}; the machine has {case.answers.memory_gb:g} GB"
    if case.method is None:
        return Reason("tuning", "against", f"no method fits: {have}.", cites)
    return Reason("tuning", "note", f"{evidence.NAMES[case.method]} fits: {have}.", cites)


def by_tokens(case: Case) -> Reason | None:
    """What shorter prompts save, and when that pays the training. Never against tuning: whoever sends more, saves more."""
    one = case.bills[case.method or "lora"]
    if one.tokens_after is None or one.tokens_after >= one.tokens_before:
        return None
    saved = f"on `{one.cites[0].recipe['need']}`, a tuned prompt was about {1 - one.tokens_after / one.tokens_before:.0%} shorter than the best one"
    if one.months is not None and one.months <= HORIZON:
        when = f"after {one.months:.1f} months" if one.months >= 0.1 else "within days"
        return Reason("tuning", "for", f"{saved}; if yours shrinks as much, {case.answers.requests:,} requests a month pay the training {when}.", one.cites)
    when = "never pay the training at this price" if one.months is None or one.months == float("inf") else f"pay the training only after {one.months:,.0f} months"
    return Reason("tuning", "note", f"{saved}; if yours shrinks as much, {case.answers.requests:,} requests a month {when}.", one.cites)


def by_wait(case: Case) -> Reason | None:
    """Long prompts take time."""
    a = case.answers
    if a.wait_seconds is None or a.takes_seconds is None or a.takes_seconds <= a.wait_seconds:
        return None
    shots = [row for row in evidence.pick(case.rows, "prompts", need="extract", split="validation", choice="nearest") if row["recipe"]["k"] in (2, 8)]
    cites = tuple(evidence.cite(row, "prompts", f"{row['seconds']:.2f} s per request") for row in shots)
    return Reason("tuning", "for", f"an answer takes {a.takes_seconds:g} s and may take {a.wait_seconds:g} s; shorter prompts are faster.", cites)


def by_tasks(case: Case) -> Reason | None:
    """Several tasks on one base speak for adapters."""
    if case.answers.tasks == 1:
        return None
    rows = [evidence.pick(case.rows, "tuning", need="tone", method=m, split="validation", rank=16)[:1] for m in ("lora", "full")]
    cites = tuple(evidence.cite(r, "tuning", f"{r['adapter_mb']:.0f} MB on disk") for found in rows for r in found if "adapter_mb" in r)
    return Reason("tuning", "note", f"{case.answers.tasks} tasks share the base: adapters are switched, whole models are stored and served one by one.", cites)


# ---------------------------------------------------------------- what documents buy


def by_documents(case: Case) -> Reason | None:
    """Facts that the model does not have come from documents."""
    for row in case.rows.get("reading", ()) if case.needs_documents else ():
        one = row["1"]
        shut, found = evidence.interval(one["closed book"]["right"]), evidence.interval(one["retrieved"]["right"])
        side = "for" if found.low > shut.high or found.estimate > shut.estimate else "against"
        return Reason("RAG", side, f"the model does not have your facts: right answers without documents {shut}, with retrieved ones {found}.",
                      (evidence.cite(row, "reading", f"closed book {shut}, retrieved {found}"),))
    return None


def by_changes(case: Case) -> Reason | None:
    """When facts change, an index is updated and a tuned-in fact is wrong until the next training."""
    if not case.needs_documents or not case.answers.fact_changes:
        return None
    for row in case.rows.get("reading", ()):
        old, new = (evidence.interval(row["2"][name]["changed"]) for name in ("stale", "retrieved"))
        often = f"{case.answers.fact_changes:g} time{'' if case.answers.fact_changes == 1 else 's'} a year"
        return Reason("RAG", "for", f"facts change {often}: on changed facts, knowledge of the old edition is right in {old}, "
                      f"an updated index in {new}; a tuned-in fact is old knowledge until the next training.",
                      (evidence.cite(row, "reading", f"changed questions, stale {old}, retrieved {new}"),))
    return None


def by_facts_in(case: Case) -> Reason | None:
    """Whether facts can be tuned in, where that was measured."""
    if "facts" not in case.answers.missing or case.facts_in is None:
        return None
    tuned, found = (evidence.measured("answer", case.rows)[name] for name in ("LoRA", "RAG"))
    knows, reads, lead = evidence.facts_in(case.rows)
    side = "for" if case.tunes_facts_in else "against" if case.facts_in.high < 0 else "note"
    return Reason("tuning", side, f"where the documents have an answer, facts tuned in are right in {knows.estimate:.3f}, retrieved ones in {reads}; lead of tuning {lead}.",
                  (tuned.cite, found.cite))


def by_sources(case: Case) -> Reason | None:
    """Only retrieval can name the text that an answer came from, and even then the answer must stand in it."""
    for row in case.rows.get("reading", ()) if case.answers.show_sources else ():
        share = evidence.interval(row["1"]["retrieved"]["attributed"])
        return Reason("RAG", "for", f"a source must be shown: retrieval has one to show, weights have none. Check it: the answer stood in a gold article in {share}.",
                      (evidence.cite(row, "reading", f"attributed {share}"),))
    return None


def by_reader(case: Case) -> Reason | None:
    """Whether the search or the reader limits RAG: the score with the gold documents."""
    for row in case.rows.get("reading", ()) if case.needs_documents else ():
        gold, found = (evidence.interval(row["1"][name]["right"]) for name in ("gold", "retrieved"))
        return Reason("RAG", "note", f"with the right documents in the prompt the untuned reader reached {gold}, with retrieved ones {found}: "
                      "the first gap, up to the target, is the reader's; the second is the search's.",
                      (evidence.cite(row, "reading", f"gold {gold}"),))
    return None
