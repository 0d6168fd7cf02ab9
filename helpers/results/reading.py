"""Answers to the desk's questions without documents, with the gold sections, and with what the search found. Read in lesson 03."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any, Sequence

import numpy as np

from helpers import data, evaluation, models, prompting, retrieval, training

from .rows import Family, listed, provenance, share

CONTEXTS = ("closed book", "gold", "retrieved", "stale")


@dataclass(frozen=True)
class ReadingRecipe:
    """The base model as reader of the test questions of both editions: `shots` solved examples of reading and the `chunks` best
    sections of a hybrid search in the prompt."""

    need: str = "answer"
    chunks: int = 1
    shots: int = 8
    seed: int = 0


RUNS = (ReadingRecipe(),)


def contexts(rows: Sequence[data.Row], index: retrieval.Index, chunks: Sequence[retrieval.Chunk], k: int) -> dict[str, list[list[retrieval.Chunk]]]:
    """What each row may read, by context: the gold sections (where there are none, what the search finds), and the `k` best hits.

    For edition 2 also `stale`: what the search finds when the index still holds edition 1.
    """
    edition = rows[0]["edition"]
    questions = [row["messages"][1]["content"] for row in rows]
    found = [list(hits) for hits in index.search_many(questions, k=k, edition=edition)]
    read = {"gold": [retrieval.gold_sections(row, chunks) or hits for row, hits in zip(rows, found)], "retrieved": found}
    if edition == 2:
        read["stale"] = [list(hits) for hits in index.search_many(questions, k=k, edition=1)]
    return read


def measure(recipe: ReadingRecipe) -> dict[str, Any]:
    """Answer every test row of both editions in each context; one row of results, with one entry per edition ("1", "2").

    For each context: `right` over all rows and by kind, `changed` (rows whose answer the editions give differently),
    `anywhere` (right, also inside a longer answer), `grounded` (answers whose words stand in what was read, abstentions
    apart), `attributed` (those that stand in a gold article, of the answerable rows), abstention on unanswerable and
    answerable rows, each [share, low, high, rows]; `each` has the score of every row. `search` has recall, reciprocal rank and
    nDCG of each way to search, on answerable rows.
    """
    training.quiet()
    source = provenance(recipe.need)
    chunks = {edition: retrieval.by_section(data.load_articles(edition)) for edition in (1, 2)}
    tokenizer, model = models.load_tokenizer(), models.load_model()
    pool = list(data.load_answer(1)["train"])
    shots = retrieval.reading_examples(pool, chunks[1], recipe.shots, recipe.seed)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        index = retrieval.Index(folder, models.load_embedder())
        for edition in (1, 2):
            index.update(chunks[edition], edition)
        for edition in (1, 2):
            rows = list(data.load_answer(edition)["test"])
            read = contexts(rows, index, chunks[edition], recipe.chunks)
            one = result[str(edition)] = {"rows": len(rows), "search": search_scores(rows, index)}
            for name in ("closed book", *read):
                start = time.monotonic()
                answers = ask(recipe, model, tokenizer, rows, read.get(name), shots, pool)
                one[name] = {**scores(answers, rows, read.get(name)), "seconds": round((time.monotonic() - start) / len(rows), 2)}
    return {"recipe": asdict(recipe), **result, "memory_gb": round(training.peak_memory_gb(), 1), "provenance": source}


def ask(recipe: ReadingRecipe, model, tokenizer, rows, read, shots, pool) -> list[str]:
    """The reader's answer to every row: with `read`, each row's chunks, before the question; without, closed book."""
    if read is None:
        plain = prompting.choose_random([r for r in pool if r["kind"] != "two_articles"], recipe.shots, recipe.seed)
        prompts = [prompting.as_text(row, prompting.INSTRUCTIONS["answer"], plain) for row in rows]
    else:
        prompts = [retrieval.prompt(row, chunks, shots) for row, chunks in zip(rows, read)]
    return [prompting.first_line(a) for a in models.generate(model, tokenizer, prompts, max_new_tokens=24, batch_size=8)]


def scores(answers: Sequence[str], rows: Sequence[data.Row], read: Sequence[Sequence[retrieval.Chunk]] | None) -> dict[str, Any]:
    """The scores of one context, as `measure` says."""
    right = evaluation.answer_right(answers, rows)
    kinds = np.array([row["kind"] for row in rows])
    said = evaluation.abstention(answers, rows)
    found = {"right": share(right), **{kind: share(right[kinds == kind]) for kind in ("fact", "two_articles", "unanswerable")},
             "anywhere": share(evaluation.answer_right(answers, rows, anywhere=True)),
             "changed": share(right[[row["changed"] for row in rows]]),
             "abstains": {name: listed(one, int((kinds == "unanswerable").sum() if name == "unanswerable" else (kinds != "unanswerable").sum()))
                          for name, one in said.items()},
             "each": [int(x) for x in right]}
    if read is not None:
        sources = [retrieval.traced(answer, chunks) for answer, chunks in zip(answers, read)]
        spoken = [source is not None for source, answer in zip(sources, answers) if not evaluation.abstains(answer)]
        found["grounded"] = share(spoken) if spoken else None
        found["attributed"] = share([s is not None and s.article in row["articles"] for s, row in zip(sources, rows) if row["articles"]])
    return found


def search_scores(rows: Sequence[data.Row], index: retrieval.Index, k: int = 10) -> dict[str, Any]:
    """Recall at 1 and 5, reciprocal rank and nDCG at 5 of each way to search, on the rows that have gold articles."""
    asked = [row for row in rows if row["articles"]]
    gold = [set(row["articles"]) for row in asked]
    result = {}
    for mode in ("vector", "text", "hybrid"):
        hits = index.search_many([row["messages"][1]["content"] for row in asked], k=k, mode=mode, edition=asked[0]["edition"])
        found = [[hit.article for hit in one] for one in hits]
        each = {"recall@1": evaluation.recall_at_k(found, gold, 1), "recall@5": evaluation.recall_at_k(found, gold, 5),
                "mrr": evaluation.reciprocal_rank(found, gold), "ndcg@5": evaluation.ndcg_at_k(found, gold, 5)}
        result[mode] = {name: listed(evaluation.bootstrap(values), len(values)) for name, values in each.items()}
    return result


READING = Family("reading", RUNS, measure, "about ten minutes")
