"""Claims about data, settings and what goes wrong. Part of the ledger."""

from __future__ import annotations

from helpers import evaluation

from . import evidence
from .evidence import interval
from .claims import HOLDS, NOT, WHEN, Finding, Pending, by_lead, claim, either, read_lesson, row, untested

RATES = {"need": "tone", "split": "validation", "rank": 16, "targets": "all-linear", "loss_on": "answer", "start": "pretrained"}
HELPED = 0.9  # a knob helps where the last validation loss falls to this share: one run each, so small differences say nothing


@claim("E1", "slmops", "Tuning specialises a model while it keeps what it knew.", "07, What was forgotten; 08, What did tuning break?")
def keeps(rows):
    found, source = read_lesson("08_evaluation", "What did tuning break?", r"lost: +(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")
    return either(float(found[2]) <= 0, f"share of general questions lost after a minute of LoRA: {found[1]} [{found[2]}, {found[3]}]", source)


@claim("E2", "slmops", "Tuning is better than training from scratch.", "09")
def from_scratch(rows):
    tried = evidence.pick(rows, "tuning", need="tone", method="full", split="validation", start="scratch")
    if not tried:
        raise Pending(evidence.command("tuning", "tone"))
    scratch = max(tried, key=lambda one: one["score"][0])
    tuned = row(rows, "tuning", **RATES, method="full", learning_rate=1e-4)
    lead = evaluation.compare_paired(tuned["hits"], scratch["hits"])
    return by_lead(lead, f"right tones: pretrained {interval(tuned['score'])}, from scratch at its best rate {interval(scratch['score'])}",
                   evidence.cite(tuned, "tuning", str(interval(tuned["score"]))), evidence.cite(scratch, "tuning", str(interval(scratch["score"]))))


@claim("E3", "slmops", "A small data set is enough.", "04; 09")
def small_data(rows):
    enough, curve, prompt = evidence.enough_rows(rows), evidence.learning_curve(rows), evidence.best_prompt("tone", rows)
    if enough is None or prompt is None:
        raise Pending(evidence.command("tuning", "tone"))
    return Finding(WHEN, f"with {enough} rows, right tones {curve[enough].score}, best prompt {prompt.score}", (curve[enough].cite, prompt.cite),
                   f"small means about {enough} rows, not 50")


@claim("E4", "slmops", "Good rows matter more than many rows.", "09")
def quality(rows):
    clean, noisy = evidence.learning_curve(rows).get(100), evidence.pick(rows, "tuning", need="tone", rows=200, noise=0.4)
    if not clean or len(noisy) < 2:
        raise Pending(evidence.command("tuning", "tone"))
    dirty = evidence.pooled("LoRA", "tone", noisy)
    lead = evidence.lead(clean, dirty)
    return by_lead(lead, f"right tones: 100 clean rows {clean.score}, 200 rows of which 40 % are mislabelled {dirty.score}", clean.cite, dirty.cite)


@claim("E5", "slmops", "Use the right instruction format for an instruction-tuned model.", "04, The wrong template")
def template(rows):
    found, source = read_lesson("04_prepare_data", "The wrong template", r"own template ([\d.]+ \[[\d., ]+\]); other template ([\d.]+ \[[\d., ]+\])")
    better, _ = read_lesson("04_prepare_data", "The wrong template", r"interval excludes 0: (True|False)")
    return either(better[1] == "True", f"easy questions right: own template {found[1]}, another model's {found[2]}", source)


@claim("E6", "slmops", "A text template needs no end mark after the answer (the document's own example has none).", "04, No end token; 10, Case 3")
def end_mark(rows):
    found, source = read_lesson("04_prepare_data", "No end token", r"without it, the answers are longer: (True|False)")
    clinic, second = read_lesson("10_failure_clinic", "Case 3: the answer that never ends", r"answers of more than one word: (\d+) of (\d+)")
    return either(found[1] == "False", f"without the end mark, answers are longer; {clinic[1]} of {clinic[2]} one-word answers run on", source,
                  second)


@claim("E7", "slmops", "Keep 10 to 20 % of the rows for validation.", "04, Splits: by chance or by label")
def split_share(rows):
    small, source = read_lesson("04_prepare_data", "Splits: by chance or by label", r"640 rows +10 % +(\d+) +[\d.]+ to [\d.]+ +([\d.]+)")
    large, _ = read_lesson("04_prepare_data", "Splits: by chance or by label", r"5,000 rows +10 % +(\d+) +[\d.]+ to [\d.]+ +([\d.]+)")
    return Finding(WHEN, f"10 % of 640 rows leave an interval of {small[2]} points, 10 % of 5,000 one of {large[2]}", (source,),
                   "that share is enough rows for the difference you look for")


@claim("E8", "slmops", "Split by label (stratified) for classification.", "04, Splits: by chance or by label")
def stratified(rows):
    chance, source = read_lesson("04_prepare_data", "Splits: by chance or by label", r"by chance +([\d.]+) +[\d.]+\s+stratified +([\d.]+)")
    return either(float(chance[2]) < float(chance[1]), f"drift of the labels in points: by chance {chance[1]}, stratified {chance[2]}", source)


@claim("E9", "slmops", "Start with learning rates from 1e-5 to 1e-4.", "07, The learning rate; 09")
def learning_rate(rows):
    best, sources = {}, []
    for method in ("lora", "full"):
        found = evidence.pick(rows, "tuning", **RATES, method=method)
        if len(found) < 3:
            raise Pending(evidence.command("tuning", "tone"))
        top = max(found, key=lambda one: (one["score"][0], -one["loss"][0]))
        best[method] = top["recipe"]["learning_rate"]
        sources.append(evidence.cite(top, "tuning", str(interval(top["score"]))))
    inside = [method for method, rate in best.items() if 1e-5 <= rate <= 1e-4]
    verdict = HOLDS if len(inside) == 2 else WHEN if inside else NOT
    return Finding(verdict, f"best of the measured rates: LoRA {best['lora']:g}, all weights {best['full']:g}", tuple(sources),
                   f"the method is {inside[0]}" if verdict == WHEN else "")


@claim("E10", "slmops", "Accumulated gradients give a larger effective batch.", "07, Gradient accumulation equals the large batch")
def accumulation(rows):
    found, source = read_lesson("07_full_fine_tuning", "Gradient accumulation equals the large batch",
                                r"divided by all labels: equal to 1e-12: (True|False)")
    off, second = read_lesson("07_full_fine_tuning", "Gradient accumulation equals the large batch", r"means: off by ([\d.]+)")
    verdict = WHEN if found[1] == "True" and float(off[1]) > 0.01 else HOLDS if found[1] == "True" else NOT
    return Finding(verdict, f"divided by all labels it is the same gradient; as a mean of means it is off by {off[1]} of its length",
                   (source, second), "the loss is divided by all labels of the step")


@claim("E11", "slmops", "Accumulation helps where memory is short.", "07, Gradient accumulation equals the large batch")
def accumulation_memory(rows):
    found, source = read_lesson("07_full_fine_tuning", "Gradient accumulation equals the large batch",
                                r"one part of (\d+) rows keeps ([\d.]+) of what the batch of (\d+) rows keeps")
    return Finding(WHEN, f"a part of {found[1]} rows keeps {found[2]} of what {found[3]} rows keep", (source,),
                   "the batch on the machine gets smaller by it")


@claim("E12", "slmops", "Training loss that falls while validation loss rises is overfitting.", "10, Case 5")
def overfitting(rows):
    one = row(rows, "overfit", rows=20, rank=16, dropout=0.0, weight_decay=0.0)
    low, last = min(one["validation"]), one["validation"][-1]
    return either(one["training"][-1] < one["training"][0] and last > low,
                  f"20 rows: training loss {one['training'][0]:.2f} to {one['training'][-1]:.2f}, validation loss {low:.2f} at its lowest and {last:.2f} at the end",
                  evidence.cite(one, "overfit", f"validation {low:.2f} to {last:.2f}"))


def _knob(rows, /, **turned):
    base = row(rows, "overfit", rows=20, rank=16, dropout=0.0, weight_decay=0.0)
    other = row(rows, "overfit", **{"rows": 20, "rank": 16, "dropout": 0.0, "weight_decay": 0.0, **turned})
    before, after = base["validation"][-1], other["validation"][-1]
    return after <= HELPED * before, f"last validation loss {before:.3f} without, {after:.3f} with it (one run each)", (
        evidence.cite(base, "overfit", f"{before:.3f}"), evidence.cite(other, "overfit", f"{after:.3f}"))


@claim("E13", "slmops", "Against overfitting: reduce the rank (“r: 16”).", "10, What helps against overfitting?")
def less_rank(rows):
    helps, seen, sources = _knob(rows, rank=4)
    return Finding(WHEN if helps else NOT, f"rank 4: {seen}", sources, "the rank is really reduced: 16 is the rank of the document's own example")


@claim("E14", "slmops", "Against overfitting: dropout 0.1.", "10, What helps against overfitting?")
def dropout(rows):
    helps, seen, sources = _knob(rows, dropout=0.1)
    return either(helps, seen, *sources)


@claim("E15", "slmops", "Against overfitting: weight decay 0.01.", "10, What helps against overfitting?")
def weight_decay(rows):
    helps, seen, sources = _knob(rows, weight_decay=0.01)
    return either(helps, seen, *sources)


@claim("E16", "slmops", "Against overfitting: more data.", "10, What helps against overfitting?")
def more_data(rows):
    helps, seen, sources = _knob(rows, rows=120)
    return either(helps, f"120 rows: {seen}", *sources)


@claim("E17", "slmops", "Stop early, when the validation loss no longer falls.", "10, Early stopping")
def early_stopping(rows):
    found, source = read_lesson("10_failure_clinic", "Early stopping",
                                r"validation loss: now ([\d.]+), lowest of the long run ([\d.]+), end of the long run ([\d.]+)")
    return either(float(found[1]) < float(found[3]),
                  f"validation loss: stopped early {found[1]}, run to the end {found[3]}, best moment of the long run {found[2]}", source)


@claim("E18", "slmops", "A search for settings pays.", "10, A search for better settings")
def search(rows):
    found, source = read_lesson("10_failure_clinic", "A search for better settings", r"lead ([\d.]+) \[([\d.]+), ([\d.]+)\]")
    return either(float(found[2]) > 0, f"the best of a few trials leads the library's default by {found[1]} [{found[2]}, {found[3]}] nats a token",
                  source)


@claim("E19", "slmops", "In YAML, `learning_rate: 1e-6` is a number.", "10, A search for better settings")
def yaml_number(rows):
    found, source = read_lesson("10_failure_clinic", "A search for better settings", r"\['(\w+)', '(\w+)'\]")
    return either(found[1] == "float", f"PyYAML reads 1e-6 as {found[1]} and 1.0e-6 as {found[2]}", source)


@claim("E23", "slmops", "`dataloader_num_workers: 4` makes training faster.", "10, Does `dataloader_num_workers: 4` make training faster?")
def workers(rows):
    found, source = read_lesson("10_failure_clinic", "Does `dataloader_num_workers: 4` make training faster?",
                                r"4 workers deliver the rows faster: (True|False)")
    return either(found[1] == "True", "for small rows in memory, starting four processes takes longer than it saves", source)


@claim("E24", "slmops", "Train on the whole text, prompt and answer (what the document's command does).", "04; 09")
def whole_text(rows):
    every = row(rows, "tuning", need="tone", method="lora", split="validation", loss_on="all", rank=16, learning_rate=2e-3)
    answer = row(rows, "tuning", **RATES, method="lora", learning_rate=2e-3)
    lead = evaluation.compare_paired(every["hits"], answer["hits"])
    return by_lead(lead, f"right tones: loss on all tokens {interval(every['score'])}, on answers {interval(answer['score'])}",
                   evidence.cite(every, "tuning", str(interval(every["score"]))), evidence.cite(answer, "tuning", str(interval(answer["score"]))))


untested("E26", "slmops", "`--trust_remote_code` belongs into the command.",
         "it runs code of a stranger on your machine; no model of this course needs it")
untested("E27", "slmops", "The commands of the tool run as printed.", "the tool is no part of this course; many of its keys have changed since")
untested("E28", "slmops", "A base model from a like domain tunes better.", "the course measures one base model")
untested("E29", "sisters", "To quantise before tuning is better than after.", "it would need rows of both orders on one need")
