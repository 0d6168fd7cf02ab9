"""Prompts without training, measured: a grid on the validation rows, and the best of each need on the test rows. Read in lesson 02.

The prompt is chosen on validation rows and scored on test rows, so the test score is not flattered by the choice. The row of
`BASELINES` for a need is *the* prompt baseline that a tuned model has to beat.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable

import numpy as np

from helpers import data, evaluation, models, prompting, training

from .rows import Family, listed, provenance, share

LOADERS: dict[str, Callable[[], Any]] = {
    "extract": data.load_extract, "tone": data.load_tone, "answer": data.load_answer, "reply": data.load_reply,
}
METRICS = {"extract": "exact match", "tone": "accuracy", "answer": "right answers", "reply": "rules of style kept"}
ANSWER_TOKENS = {"extract": 90, "tone": 8, "answer": 24, "reply": 160}


@dataclass(frozen=True)
class PromptRecipe:
    """One way to prompt for one need.

    `k` examples, chosen `balanced` (as many of each label), at `random`, or `nearest` (for each row, by embedding).
    `instructions`: the `short` system turn of the data or the `long` one of `prompting.INSTRUCTIONS`. `layout`: `chat` turns
    or one `text` to be continued. `decode`: the answer is `written`, or for tone the most probable label is taken, as it is
    (`scored`) or after the mean over unlabelled training messages is taken off each label (`centred`).
    """

    need: str
    split: str = "validation"
    k: int = 0
    choice: str = "balanced"
    instructions: str = "long"
    layout: str = "chat"
    decode: str = "written"
    seed: int = 0


GRID = (
    *(PromptRecipe("extract", k=k) for k in (0, 2, 4, 8)),
    *(PromptRecipe("extract", k=k, choice="nearest") for k in (2, 4, 8)),
    *(PromptRecipe("tone", k=k, decode=d) for k in (0, 8) for d in ("written", "scored", "centred")),
    *(PromptRecipe("tone", k=k, choice="nearest", instructions="short", decode=d) for k in (1, 4, 8) for d in ("written", "scored")),
    *(PromptRecipe("answer", k=k) for k in (0, 4, 8)),
    *(PromptRecipe("answer", k=k, layout="text") for k in (4, 8)),
    *(PromptRecipe("answer", k=k, choice="nearest", layout="text") for k in (4, 8)),
    *(PromptRecipe("reply", k=k, choice="random") for k in (0, 1)),
    PromptRecipe("reply", k=1, choice="nearest"),
)
BASELINES = {
    "extract": PromptRecipe("extract", k=8, choice="nearest"),
    "tone": PromptRecipe("tone", k=1, choice="nearest", instructions="short", decode="scored"),
    "answer": PromptRecipe("answer", k=8, choice="nearest", layout="text"),
    "reply": PromptRecipe("reply", k=1, choice="nearest"),
}


def prompts_of(recipe: PromptRecipe, rows: list[data.Row], pool: list[data.Row], embedder: Any = None) -> list[models.Prompt]:
    """The prompt of each row by the recipe. `pool`: the training rows that examples come from."""
    instructions = prompting.INSTRUCTIONS[recipe.need] if recipe.instructions == "long" else None
    if recipe.need == "extract":  # an example costs tokens in every request: short ones only
        pool = [r for r in pool if len(r["messages"][1]["content"].split()) <= 30]
    if recipe.choice == "nearest" and recipe.k:
        shots = prompting.Nearest(pool, embedder).choose(rows, recipe.k)
    elif recipe.choice == "random":
        shots = [prompting.choose_random(pool, recipe.k, recipe.seed)] * len(rows)
    else:
        shots = [prompting.choose_by_label(pool, recipe.k, label_of(recipe.need), recipe.seed)] * len(rows)
    build = prompting.as_text if recipe.layout == "text" else prompting.messages
    return [build(row, instructions, chosen) for row, chosen in zip(rows, shots)]


def label_of(need: str) -> Callable[[data.Row], Any]:
    """What `balanced` examples are balanced by."""
    return {
        "extract": lambda r: data.record_of(r)["problem"], "tone": lambda r: r["messages"][-1]["content"],
        "answer": lambda r: r["kind"], "reply": lambda r: r["product"],
    }[need]


def measure(recipe: PromptRecipe) -> dict[str, Any]:
    """Answer every row of the recipe's split; one row of results.

    `score` is [estimate, low, high, rows] at 95 %, of the metric that `metric` names; `each` has the score of every row, in the
    order of the split, for paired comparisons. `prompt_tokens` and `answer_tokens` are medians, `seconds` is the time of one
    request in a batch, loading apart; `memory_gb` the peak of this process in GB.
    """
    source = provenance(recipe.need)
    desk = LOADERS[recipe.need]()
    rows, pool = list(desk[recipe.split]), list(desk["train"])
    tokenizer, model = models.load_tokenizer(), models.load_model()
    embedder = models.load_embedder() if recipe.choice == "nearest" else None
    prompts = prompts_of(recipe, rows, pool, embedder)
    start = time.monotonic()
    answers = answer(recipe, model, tokenizer, prompts, pool, embedder)
    seconds = (time.monotonic() - start) / len(rows)
    each, more = scores(recipe.need, answers, rows)
    return {
        "recipe": asdict(recipe), "rows": len(rows), "metric": METRICS[recipe.need],
        "score": listed(evaluation.bootstrap(each), len(each)) if recipe.need == "reply" else share(each), **more,
        "each": [round(float(x), 3) for x in each],
        "prompt_tokens": int(np.median([models.count_tokens(tokenizer, p) for p in prompts])),
        "answer_tokens": int(np.median([len(tokenizer(a)["input_ids"]) for a in answers])),
        "seconds": round(seconds, 2), "memory_gb": round(training.peak_memory_gb(), 1), "provenance": source,
    }


def answer(recipe: PromptRecipe, model, tokenizer, prompts: list[models.Prompt], pool: list[data.Row], embedder: Any = None) -> list[str]:
    """The answers of the model by the recipe's way of decoding."""
    if recipe.decode == "written":
        size = 8 if recipe.need == "reply" or recipe.choice == "nearest" else 24  # long prompts that share little need memory
        answers = models.generate(model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS[recipe.need], batch_size=size)
        return [prompting.first_line(a) for a in answers] if recipe.layout == "text" else answers
    likely = prompting.label_log_likelihoods(model, tokenizer, prompts, prompting.TONES)
    if recipe.decode == "centred":
        shown = prompting.choose_by_label(pool, recipe.k, label_of(recipe.need), recipe.seed)
        others = [r for r in prompting.choose_random(pool, 64 + recipe.k, recipe.seed + 1) if r not in shown][:64]
        likely = likely - prompting.label_log_likelihoods(model, tokenizer, prompts_of(recipe, others, pool, embedder), prompting.TONES).mean(axis=0)
    return [prompting.TONES[i] for i in likely.argmax(axis=1)]


def scores(need: str, answers: list[str], rows: list[data.Row]) -> tuple[np.ndarray, dict[str, Any]]:
    """The score of each row, shape (rows,), and what else is worth a column."""
    gold = [r["messages"][-1]["content"] for r in rows]
    if need == "extract":
        records = [data.record_of(r) for r in rows]
        return evaluation.exact_match(answers, records), {
            "macro_f1": listed(evaluation.macro_f1(answers, records, n=2000), len(rows)), "valid_record": share(evaluation.valid_record(answers)),
        }
    if need == "tone":
        return evaluation.label_accuracy(answers, gold), {"macro_f1": listed(evaluation.macro_f1_labels(answers, gold), len(rows))}
    if need == "answer":
        said = {name: listed(found, len(rows)) for name, found in evaluation.abstention(answers, rows).items()}
        return evaluation.answer_right(answers, rows), {"anywhere": share(evaluation.answer_right(answers, rows, anywhere=True)), "abstains": said}
    return evaluation.style_scores(answers, rows), {"chrf": listed(evaluation.bootstrap(evaluation.chrf(answers, gold)), len(rows))}


def best_on_validation(need: str) -> PromptRecipe:
    """The recipe of the grid with the best score on validation rows; where scores are equal, the better macro F1, then fewer prompt tokens."""
    def rank(recipe: PromptRecipe) -> tuple[float, float, float]:
        row = PROMPTS.stored(recipe)
        return row["score"][0], row.get("macro_f1", [0])[0], -row["prompt_tokens"]

    return max((recipe for recipe in GRID if recipe.need == need), key=rank)


PROMPTS = Family("prompts", (*GRID, *(replace(r, split="test") for r in BASELINES.values())), measure, "about twenty minutes")
