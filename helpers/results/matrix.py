"""The decision matrix: the techniques on the needs `answer` and `reply`, beside what `tuning` and `prompts` hold of the others. Read in lesson 09.

A cell is a technique on a need. What the desk's documents say reaches the model in one of two ways: trained into its weights, or
found by the search and put before the question.
"""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any, Sequence

import numpy as np

from helpers import data, evaluation, models, prompting, retrieval, training

from . import prompts, reading, tuning
from .rows import Family, listed, provenance, share

METHODS = {"lora": "lora", "qlora": "qlora", "full": "full", "rag+lora": "lora"}
EPOCHS = {"answer": 2, "reply": 2}
SHOTS = {"answer": 8, "reply": 1}  # solved examples of the untrained techniques: lesson 02's choice on validation rows, eight to read by as in lesson 03
ANSWER_TOKENS = {"answer": 24, "reply": 160}
LONGEST = 800
SAID = 12  # answers that a row keeps, to the first rows of its split


@dataclass(frozen=True)
class Cell:
    """One run. `technique`: zero-shot, few-shot, rag, lora, qlora, full or rag+lora. `edition`: of the knowledge base that it learned from, and
    searches unless `asked` is given another. `chunks`: sections that the search puts before the question, 0 without a search. `seed`: of the training."""

    need: str
    technique: str
    seed: int = 0
    split: str = "test"
    edition: int = 1
    epochs: int = 0
    learning_rate: float = 0.0
    chunks: int = 0


def trained(need: str, technique: str, seed: int, edition: int = 1) -> Cell:
    """The cell of a technique that trains, with the rate that was best on validation rows of `tone` (`tuning.RATE`)."""
    return Cell(need, technique, seed, "test", edition, EPOCHS[need], tuning.RATE[METHODS[technique]], int("rag" in technique))


UNTRAINED = tuple(cell for need in EPOCHS for cell in (Cell(need, "zero-shot"), Cell(need, "few-shot"), Cell(need, "rag", chunks=1)))
RETRAINED = (trained("answer", "lora", 0, edition=2),)
SEEDS = range(3)
RUNS = (*UNTRAINED, *(trained(need, technique, seed) for need in EPOCHS for seed in SEEDS for technique in METHODS), *RETRAINED)


def measure(cell: Cell) -> dict[str, Any]:
    """Train where the technique trains, then answer the rows of its split; one row of results.

    `score` is [estimate, low, high, rows] at 95 %: of `answer` the share of right answers, of `reply` the mean share of style rules kept;
    `each` has the score of every row, `said` the first answers. More of `answer`: by kind, `abstains`, and `next_edition`: the same model on the questions of
    edition 2, whose documents the search then holds. More of `reply`: `figures`, the share of replies whose figures all stand in
    the ticket or its gold sections (one copied from another section counts as wrong), and `told`: of the gold reply's figures that the ticket
    does not hold, the share that the reply gives.

    `minutes` of training and `memory_gb`, the peak of this process up to the end of training, only where something trains; `tokens` over all
    epochs, `trainable` parameters, `adapter_mb` on disk. `prompt_tokens` and `answer_tokens` are means per request, `seconds` per request in a
    batch. `probe`: as in `tuning.measure`, of trained models.
    """
    training.quiet()
    source = provenance(cell.need)
    tokenizer, row = models.load_tokenizer(), {"recipe": asdict(cell), "metric": prompts.METRICS[cell.need]}
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(cell, folder)
        if cell.technique in METHODS:
            recipe = tuning.Tuning(cell.need, METHODS[cell.technique], cell.seed, cell.split, cell.epochs, cell.learning_rate, longest=LONGEST)
            model, spent = train(recipe, tuning.training_rows(recipe, desk.training_rows(), tokenizer), tokenizer)
            row.update(spent)
        else:
            model = models.load_model()
        row.update(asked(cell, desk, model, tokenizer))
        if cell.need == "answer" and cell.edition == 1 and cell.split == "test":
            row["next_edition"] = asked(cell, desk, model, tokenizer, edition=2)
    if cell.technique in METHODS:
        row["probe"] = tuning.probe_scores(model, tokenizer)
    return {**row, "provenance": source}


def train(recipe: tuning.Tuning, rows: list[data.Row], tokenizer):
    """The trained model, ready to answer, and what the training took."""
    trainer = tuning.trainer_for(tuning._model(recipe), tokenizer, rows, recipe)
    start = time.monotonic()
    trainer.train()
    spent = {
        "train_rows": len(rows), "minutes": round((time.monotonic() - start) / 60, 2), "memory_gb": round(training.peak_memory_gb(), 1),
        "losses": [round(x, 3) for x in training.loss_history(trainer)], "trainable": training.trainable_parameters(trainer.model)[0],
        "tokens": recipe.epochs * sum(len(ids) for ids in trainer.train_dataset["input_ids"]),
        "precision": "bfloat16" if models.has_fast_bf16() else "float32",
    }
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()  # scored in float32
    return model, {**spent, "adapter_mb": tuning._saved_mb(model)}


class Desk:
    """The rows of a cell's need and the search over both editions of the knowledge base, its index in `folder`."""

    def __init__(self, cell: Cell, folder: str) -> None:
        self.cell = cell
        self.chunks = {edition: retrieval.by_section(data.load_articles(edition)) for edition in (1, 2)} if cell.chunks else {}
        self.embedder = models.load_embedder() if cell.chunks or cell.technique == "few-shot" or cell.need == "reply" else None
        if cell.chunks:
            self.index = retrieval.Index(folder, self.embedder)
            for edition, chunks in self.chunks.items():
                self.index.update(chunks, edition)

    def rows(self, split: str, edition: int) -> list[data.Row]:
        """The rows of a split without documents."""
        return list((data.load_answer(edition) if self.cell.need == "answer" else data.load_reply(documents=False))[split])

    def found(self, rows: Sequence[data.Row], edition: int) -> list[list[retrieval.Chunk]]:
        """What the search finds for each row."""
        return [list(hits) for hits in self.index.search_many([r["messages"][1]["content"] for r in rows], k=self.cell.chunks, edition=edition)]

    def training_rows(self) -> list[data.Row]:
        """What the technique trains on: with a search, each row behind its gold sections, or the first hit where nothing answers it."""
        rows = self.rows("train", self.cell.edition)
        if not self.cell.chunks:
            return rows
        if self.cell.need == "reply":
            return list(data.load_reply(documents=True)["train"])
        chunks = self.chunks[self.cell.edition]
        return [retrieval.with_chunks(row, retrieval.gold_sections(row, chunks) or hits) for row, hits in zip(rows, self.found(rows, self.cell.edition))]


def with_documents(row: data.Row, chunks: Sequence[retrieval.Chunk]) -> data.Row:
    """A ticket of `reply` behind what was found, laid out as `data.load_reply` lays out the gold sections."""
    system, user, gold = row["messages"]
    return {**row, "messages": [system, {**user, "content": user["content"] + "\n\nDocuments:\n" + "\n\n".join("# " + c.content for c in chunks)}, gold]}


def asked(cell: Cell, desk: Desk, model, tokenizer, edition: int | None = None) -> dict[str, Any]:
    """The scores of the technique on the rows of an edition, and what a request costs."""
    edition = edition or cell.edition
    rows = desk.rows(cell.split, edition)
    read = desk.found(rows, edition) if cell.chunks else None
    built = prompts_of(cell, desk, rows, read)
    start = time.monotonic()
    size = 24 if cell.technique in ("zero-shot", "lora", "qlora", "full") else 8  # long prompts that share little need memory
    answers = models.generate(model, tokenizer, built, max_new_tokens=ANSWER_TOKENS[cell.need], batch_size=size)
    seconds = (time.monotonic() - start) / len(rows)
    if isinstance(built[0], str):
        answers = [prompting.first_line(a) for a in answers]
    found = answer_scores(answers, rows, read) if cell.need == "answer" else reply_scores(answers, rows)
    return {
        **found, "said": answers[:SAID], "prompt_tokens": round(float(np.mean([models.count_tokens(tokenizer, p) for p in built])), 1),
        "answer_tokens": round(float(np.mean([len(tokenizer(a)["input_ids"]) for a in answers])), 1), "seconds": round(seconds, 3),
    }


def prompts_of(cell: Cell, desk: Desk, rows: list[data.Row], read: list[list[retrieval.Chunk]] | None) -> list[models.Prompt]:
    """The prompt of each row. Zero-shot and what is trained get the data's short instruction; few-shot and RAG the prompts of lessons 02 and 03.

    Examples are of the cell's edition, also where another one is asked."""
    if cell.technique == "zero-shot" or cell.technique in ("lora", "qlora", "full"):
        return [row["messages"][:-1] for row in rows]
    if cell.technique == "rag+lora":
        put = retrieval.with_chunks if cell.need == "answer" else with_documents
        return [put(row, chunks)["messages"][:-1] for row, chunks in zip(rows, read)]
    pool = desk.rows("train", cell.edition)
    if cell.need == "answer" and cell.technique == "rag":
        shots = retrieval.reading_examples(pool, desk.chunks[cell.edition], SHOTS["answer"], cell.seed)
        return [retrieval.prompt(row, chunks, shots) for row, chunks in zip(rows, read)]
    shots = prompting.Nearest(pool, desk.embedder).choose(rows, SHOTS[cell.need])
    if cell.need == "answer":
        return [prompting.as_text(row, prompting.INSTRUCTIONS["answer"], shown) for row, shown in zip(rows, shots)]
    if cell.technique == "rag":
        documented = {row["id"]: row for row in data.load_reply(documents=True)["train"]}
        rows = [with_documents(row, chunks) for row, chunks in zip(rows, read)]
        shots = [[documented[one["id"]] for one in shown] for shown in shots]
    return [prompting.messages(row, prompting.INSTRUCTIONS["reply"], shown) for row, shown in zip(rows, shots)]


def answer_scores(answers: list[str], rows: list[data.Row], read: list[list[retrieval.Chunk]] | None) -> dict[str, Any]:
    """Right answers: all, by kind, and where the editions differ; abstentions, and answers whose words stand in what was read."""
    found = reading.scores(answers, rows, read)
    return {"score": found.pop("right"), **found}


def reply_scores(answers: list[str], rows: list[data.Row]) -> dict[str, Any]:
    """Style rules kept; replies without figures of their own; figures of the documents that were told; likeness to the gold reply."""
    each = evaluation.style_scores(answers, rows)
    reports = [data.check_style(a, name=r["name"], product=r["product"], known=r["known"]) for a, r in zip(answers, rows)]
    told = [share_told(a, r) for a, r in zip(answers, rows)]
    gold = [r["messages"][-1]["content"] for r in rows]
    return {
        "score": listed(evaluation.bootstrap(each), len(rows)), "each": [round(float(x), 3) for x in each],
        "figures": share([float("figures" not in report.broken) for report in reports]),
        "told": listed(evaluation.bootstrap([x for x in told if x is not None]), sum(x is not None for x in told)),
        "chrf": listed(evaluation.bootstrap(evaluation.chrf(answers, gold)), len(rows)),
    }


def share_told(reply: str, row: data.Row) -> float | None:
    """Which share of the gold reply's figures that the ticket does not hold stand in a reply; None where the gold reply has no such figure.

    A reply in perfect style that says nothing from the documents gets 0: style and facts are scored apart.
    """
    ticket = row["known"].split("\n\nDocuments:\n")[0]
    wanted = figures(row["messages"][-1]["content"]) - figures(ticket)
    return len(wanted & figures(reply)) / len(wanted) if wanted else None


def figures(text: str) -> set[str]:
    """The numbers of a text, those of numbered steps apart."""
    return {f.lower() for f in re.findall(r"\d+(?:[.,:]\d+)*", re.sub(r"^\s*\d+\.\s", "", text, flags=re.M))}


MATRIX = Family("matrix", RUNS, measure, "about four hours; one row takes two to fifteen minutes")
