"""Claims about prompts, about retrieval, and about what tuning brings. Part of the ledger."""

from __future__ import annotations

from dataclasses import replace

from helpers import evaluation

from . import evidence
from .bills import bill, shrink
from .answers import Answers
from .evidence import interval
from .claims import HOLDS, NOT, WHEN, Finding, Pending, apart, by_lead, by_scores, claim, either, read_lesson, row, technique, untested

NEAREST = {"need": "extract", "split": "validation", "choice": "nearest"}


def _reading(rows: evidence.Rows) -> dict:
    return row(rows, "reading", need="answer")


# ---------------------------------------------------------------- prompts


@claim("F2", "tuning", "A few examples in the prompt guide the model (few-shot learning).", "02, Few-shot: 0 to 8 examples")
def few_shot(rows):
    none, many = row(rows, "prompts", need="extract", split="validation", k=0), row(rows, "prompts", k=8, **NEAREST)
    a, b = interval(none["macro_f1"]), interval(many["macro_f1"])
    return either(apart(b, a), f"mean F1 of the record's fields: {a} without examples, {b} with 8", evidence.cite(none, "prompts", str(a)),
                  evidence.cite(many, "prompts", str(b)))


@claim("F3a", "tuning", "The token limit caps the number of examples in a prompt.", "02, Where the context ends")
def token_limit(rows):
    found, source = read_lesson("02_prompt_baselines", "Where the context ends", r"extract: (\d+) of (\d+) training rows fit into [\d,]+ tokens")
    return either(int(found[1]) < int(found[2]), f"{found[1]} of {found[2]} solved tickets fit into the context", source)


@claim("F3b", "tuning", "Examples in every prompt make each request more expensive.", "02, What a shot costs")
def token_cost(rows):
    none, many = row(rows, "prompts", need="extract", split="validation", k=0), row(rows, "prompts", k=8, **NEAREST)
    tokens = none["prompt_tokens"], many["prompt_tokens"]
    return either(tokens[1] > tokens[0], f"{tokens[0]} prompt tokens without examples, {tokens[1]} with 8",
                  evidence.cite(none, "prompts", f"{tokens[0]} tokens"), evidence.cite(many, "prompts", f"{tokens[1]} tokens"))


@claim("F4", "tuning", "A model tuned on examples of a task may be more accurate there.", "05, The same tickets again; 08, The card")
def tuned_is_better(rows):
    sides, said, sources = [], [], []
    for need in ("extract", "tone"):
        plain, tuned = evidence.rivals(need, rows)
        if not plain or not tuned:
            raise Pending(evidence.measuring(need))
        sides.append(evidence.gain(need, rows)[0])
        said.append(f"{need}: {tuned.technique} {tuned.score}, best prompt {plain.score}")
        sources += [tuned.cite, plain.cite]
    return either(sides == ["for", "for"], "; ".join(said), *sources)


@claim("F5a", "tuning", "A tuned model needs fewer examples in its prompt, so fewer tokens.", "05, What it costs per request")
def fewer_tokens(rows):
    ratio, sources = shrink("extract", "lora", rows)
    if ratio is None:
        raise Pending(evidence.command("tuning", "extract"))
    return either(ratio < 1, f"a tuned prompt has {ratio:.0%} of the tokens of the best prompt", *sources)


@claim("F5b", "tuning", "Fewer tokens lower the cost.", "01, When does it pay?")
def lower_cost(rows):
    one = bill(Answers("x", ("labels",), good_rows=1000, price=1.0, prompt_tokens=1000), "lora", rows)
    if one.requests is None:
        raise Pending(evidence.command("tuning", "tone"))
    return Finding(WHEN, f"at 1 per million tokens and 1,000 prompt tokens, {one.once:,.0f} for people and machine are saved after {one.requests:,.0f} requests",
                   one.cites, "there are enough requests to pay for the work")


@claim("F6", "tuning", "Tuning in a supervised way means to add new data.", "04, Three forms of data, and what each one trains")
def supervised(rows):
    found, source = read_lesson("04_prepare_data", "Three forms of data, and what each one trains",
                                r"prompt and completion, as messages +(\d+) +(\d+)")
    return either(False, f"it means to train on right answers, new or not: {found[2]} of {found[1]} tokens of a row, those of the answer, are trained", source)


@claim("F7", "tuning", "Unsupervised tuning trains again on the original data with other settings.",
       "04, Three forms of data, and what each one trains")
def unsupervised(rows):
    found, source = read_lesson("04_prepare_data", "Three forms of data, and what each one trains", r"\ntext +(\d+) +(\d+)")
    return either(False, f"it is the same loss on text without labels, also your own: {found[2]} of {found[1]} tokens of a plain text are trained",
                  source)


@claim("F8a", "tuning", "Done wrongly, tuning does not help, and it may make things worse.", "07, The learning rate; 10")
def done_wrongly(rows):
    bad, good = row(rows, "tuning", need="tone", method="lora", split="validation",
                    learning_rate=1e-2), row(rows, "tuning", need="tone", method="lora", split="validation", learning_rate=2e-3, rank=16,
                                             targets="all-linear", loss_on="answer")
    prompt = row(rows, "prompts", need="tone", split="validation", k=1, choice="nearest", decode="scored")
    a, b, c = (interval(one["score"]) for one in (bad, good, prompt))
    return either(apart(c, a), f"right tones: learning rate 1e-2 {a}, 2e-3 {b}, best prompt {c}", evidence.cite(bad, "tuning", str(a)),
                  evidence.cite(good, "tuning", str(b)), evidence.cite(prompt, "prompts", str(c)))


@claim("F8b", "sisters", "Supervised tuning may lose alignment and forget what the model could do.",
       "07, What was forgotten; 08, What did tuning break?")
def forgets(rows):
    found, source = read_lesson("07_full_fine_tuning", "What was forgotten",
                                r"change in general questions passed: (-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")
    return either(float(found[3]) < 0, f"general questions passed, all weights tuned: change {found[1]} [{found[2]}, {found[3]}]", source)


# ---------------------------------------------------------------- retrieval or tuning


@claim("R1", "expert", "When answers need outside data, retrieval is best.", "03, All test questions, both editions")
def outside_data(rows):
    one = _reading(rows)
    shut, found = interval(one["1"]["closed book"]["right"]), interval(one["1"]["retrieved"]["right"])
    return Finding(WHEN if apart(found, shut) else NOT, f"right answers without documents {shut}, with retrieved ones {found}; tuned-in facts are claim R2",
                   (evidence.cite(one, "reading", f"closed book {shut}, retrieved {found}"),), "the model is not tuned; retrieval and tuning together are better")


@claim("R2", "expert", "For stable, precise knowledge of a field, tuning is good.", "09")
def stable_knowledge(rows):
    tuned, found = technique("answer", "LoRA", rows), technique("answer", "RAG", rows)
    facts = evidence.facts_in(rows)
    if facts is None:
        raise Pending(evidence.measuring("answer"))
    return by_lead(facts[2], f"right answers where there is one: LoRA without documents {facts[0].estimate:.3f} (few of these facts stood in a training row), retrieved {facts[1]}", tuned.cite, found.cite)


@claim("R3", "expert", "When data changes often, tuning gets complicated; an index is updated.", "03, The new edition")
def changing_data(rows):
    two = _reading(rows)["2"]
    stale, fresh = interval(two["stale"]["changed"]), interval(two["retrieved"]["changed"])
    lead = evaluation.compare_paired(two["retrieved"]["each"], two["stale"]["each"])
    return either(lead.low > 0, f"changed facts right: index of the old edition {stale}, updated index {fresh}; over all questions the update gains {lead}",
                  evidence.cite(_reading(rows), "reading", f"edition 2, stale {stale}, retrieved {fresh}"))


@claim("R4", "expert", "With little data, tuning makes little difference.", "04; 09")
def little_data(rows):
    curve, prompt, enough = evidence.learning_curve(rows), evidence.best_prompt("tone", rows), evidence.enough_rows(rows)
    if not curve or not prompt or enough is None:
        raise Pending(evidence.command("tuning", "tone"))
    said = ", ".join(f"{n} rows {one.score}" for n, one in curve.items())
    return Finding(WHEN, f"right tones: {said}; best prompt {prompt.score}", tuple(one.cite for one in curve.values()) + (prompt.cite,),
                   f"there are fewer than about {enough} rows")


@claim("R5", "expert", "Retrieval shows where an answer comes from.", "03, Where does the answer stand?")
def shows_source(rows):
    share = interval(_reading(rows)["1"]["retrieved"]["attributed"])
    return Finding(WHEN, f"the answer stands in a right article in {share} of the answerable questions",
                   (evidence.cite(_reading(rows), "reading", f"attributed {share}"),),
                   "one checks that the answer stands in the source shown")


@claim("R6", "expert", "Retrieval cures invented answers.", "03, What the documents do not say")
def invented(rows):
    share = interval(_reading(rows)["1"]["retrieved"]["abstains"]["unanswerable"])
    return either(share.low > 0.5, f"of the questions that the documents do not answer, the model says so in {share}",
                  evidence.cite(_reading(rows), "reading", f"abstains {share}"))


@claim("R7", "expert", "Questions that bring several facts together are for retrieval.", "03, All test questions, both editions")
def several_facts(rows):
    both, single = interval(_reading(rows)["1"]["retrieved"]["two_articles"]), interval(_reading(rows)["1"]["retrieved"]["fact"])
    return either(both.low > 0, f"right answers: one article {single}, two articles {both}",
                  evidence.cite(_reading(rows), "reading", f"fact {single}, two articles {both}"))


@claim("R8", "expert", "Search by likeness is better than exact words.", "03, How good is the search?")
def likeness(rows):
    search = _reading(rows)["1"]["search"]
    vector, text, both = (interval(search[name]["recall@5"]) for name in ("vector", "text", "hybrid"))
    return by_scores(vector, text, f"right article among the first five: by vectors {vector}, by words {text}, by both {both}",
                     evidence.cite(_reading(rows), "reading", f"recall@5 vector {vector}, text {text}"))


@claim("R9", "expert", "A vector database lets a model remember previous inputs.", "03, All test questions, both editions")
def remembers(rows):
    shut = [interval(_reading(rows)[edition]["closed book"]["right"]) for edition in "12"]
    return either(any(one.low > 0 for one in shut),
                  f"asked without documents, after all of them were indexed, the model is right in {shut[0]} and {shut[1]}: the store is outside the model",
                  evidence.cite(_reading(rows), "reading", f"closed book {shut[0]}"))


@claim("R10", "expert", "An automated business flow needs retrieval and tuning together.", "09")
def both_together(rows):
    plain, tuned = evidence.rivals("reply", rows)
    if not plain or not tuned:
        raise Pending(evidence.measuring("reply"))
    alone = technique("reply", "LoRA", rows)
    judged = by_lead(evidence.lead(tuned, plain), f"rules of house style kept: {tuned.technique} {tuned.score}, {plain.technique} {plain.score}, LoRA {alone.score}",
                     tuned.cite, plain.cite, alone.cite)
    return replace(judged, verdict=WHEN, when="facts are asked for; the form alone comes from tuning") if judged.verdict == HOLDS else judged


@claim("R11", "expert", "The wording and terms of a field are for tuning.", "09")
def wording(rows):
    tuned, plain = evidence.best_tuned("reply", rows), evidence.best_prompt("reply", rows)
    if not tuned or not plain:
        raise Pending(evidence.measuring("reply"))
    lead = evidence.lead(tuned, plain)
    return by_lead(lead, f"rules of house style kept: {tuned.technique} {tuned.score}, prompt {plain.score}", tuned.cite, plain.cite)


@claim("E20", "slmops", "A contrastive loss trains embeddings that find the right text.", "03, Train the search a little")
def contrastive(rows):
    found, source = read_lesson("03_rag_baseline", "Train the search a little",
                                r"contrastive +[\d.]+ +[\d.]+ +[\d.]+ +(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")
    return by_lead(evaluation.Interval(*(float(found[n]) for n in (1, 2, 3))), "recall@5 of the search after a training with this loss, against before", source)


@claim("E21", "slmops", "BLEU and ROUGE measure generated text.", "08, What a metric sees, and what it misses")
def likeness_metrics(rows):
    right, _ = read_lesson("08_evaluation", "What a metric sees, and what it misses", r"47 min\. +[\d.]+ +[\d.]+ +([\d.]+) +([\d.]+) +([\d.]+)")
    wrong, source = read_lesson("08_evaluation", "What a metric sees, and what it misses",
                                r"74 minutes +[\d.]+ +[\d.]+ +([\d.]+) +([\d.]+) +([\d.]+)")
    fooled = float(wrong[3]) > float(right[3])
    return Finding(WHEN if fooled else HOLDS, f"a wrong number (74 minutes for 47) gets BLEU {wrong[3]}, a right one in other words (47 min.) {right[3]}", (source,),
                   "likeness is what is asked for, not truth")


untested("R12", "expert", "Tuning is a black box; retrieval can be understood.", "no score says how well a person understands a system")
untested("F9", "tuning", "Tune only if the benefits outweigh the costs.", "a rule, not a claim: lesson 01 computes both sides for a case")
untested("E22", "slmops", "Business metrics and human judgement complete an evaluation.",
         "the desk is invented; lesson 08 gives the tool with which people judge")
untested("S8", "scenarios", "Each technique suits music, art and creative texts.", "the course has no task with a creative answer that can be scored")
untested("S9", "scenarios", "Hosted tuning needs no machines of your own.", "a provider's service cannot be measured offline")
