"""The desk's data sets: one loader per need, each in the chat contract with fixed splits. The data card is `helpers/data/README.md`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from datasets import Dataset, DatasetDict
from pydantic import ValidationError

from . import schema
from .contract import DataError, Row, read_chat, strict_json
from .splits import SPLITS

HERE = Path(__file__).parent
Edition = Literal[1, 2]

EXTRACT_INSTRUCTION = "Write the desk's record of this ticket as JSON."
TONE_INSTRUCTION = "Name the tone of this message: sarcastic, angry, worried, thankful, confused or neutral."
ANSWER_INSTRUCTION = "Answer the customer's question in a few words. If our documents do not say it, write: Not in our documents."
REPLY_INSTRUCTION = "Reply to this ticket in the house style, from the documents given."
NOT_IN_DOCUMENTS = "Not in our documents."


# ---------------------------------------------------------------- the four needs


def load_extract() -> DatasetDict:
    """The need `extract`: tickets with their records (`schema.Record`, `schema.Ticket`).

    Columns: id, messages (system, user, assistant), wants (what the customer asks for, labelled beside the record),
    channel, batch, hard (a list of marks); `extract/GUIDE.md` explains them.
    """
    return _by_split(_chat("extract/tickets.jsonl", schema.Ticket))


def load_tone() -> DatasetDict:
    """The need `tone`: messages with one of six tones (`schema.Tone`, `schema.ToneMessage`).

    Columns: id, messages (system, user, assistant), channel, batch, hard (true or false); `tone/GUIDE.md` defines the tones.
    """
    return _by_split(_chat("tone/messages.jsonl", schema.ToneMessage))


def load_answer(edition: Edition = 1) -> DatasetDict:
    """The need `answer`: questions to the knowledge base with the short gold answer of one edition (`schema.Question`).

    Columns: id, messages (system, user, assistant), kind (fact, two_articles or unanswerable, in this edition), accepted
    (other right ways to write the answer), facts, articles (ids of the gold articles), changed (the other edition has
    another answer), absent (terms that no article has, for unanswerable questions), batch, edition.
    """
    _check_edition(edition)
    rows = []
    for row in _chat("answer/questions.jsonl", schema.Question):
        by_edition = {1: (row["messages"][-1]["content"], row.pop("accepted_1")), 2: (row.pop("answer_2"), row.pop("accepted_2"))}
        answer, accepted = by_edition[edition]
        nowhere = answer == NOT_IN_DOCUMENTS
        articles = [] if nowhere else list(dict.fromkeys(fact.split("/")[0] for fact in row["facts"]))
        rows.append({
            **row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": answer}],
            "kind": "unanswerable" if nowhere else row["kind"], "accepted": accepted, "articles": articles,
            "changed": by_edition[1][0] != by_edition[2][0], "edition": edition,
        })
    return _by_split(rows)


def load_reply(documents: bool = True) -> DatasetDict:
    """The need `reply`: tickets with the desk's reply in house style, written from edition 1 (`schema.Reply`).

    Columns: id, messages (system, user, assistant), sources (article and section), known (ticket and documents in one text,
    what `check_style` takes), name, product, channel, batch. With `documents`, the user turn holds the ticket and then the
    gold sections; without, the ticket alone. `reply/GUIDE.md` is the style guide.
    """
    return _by_split([_with_documents(row, documents) for row in _chat("reply/replies.jsonl", schema.Reply)])


def load_preferences() -> DatasetDict:
    """Pairs of replies for preference tuning, in the form that TRL's DPOTrainer takes (`schema.Preference`).

    Columns: id, prompt (system, user with documents), chosen, rejected (one assistant turn each), failure (how the rejected
    one fails), why, reply (the id of the chosen one in `load_reply`, whose split it shares). Explained in lesson 12.
    """
    prompts = {row["id"]: _with_documents(row, True)["messages"][:-1] for row in _chat("reply/replies.jsonl", schema.Reply)}
    return _by_split([
        {"id": row["id"], "prompt": prompts[row["reply"]], "chosen": row["messages"][-1:],
         "rejected": [{"role": "assistant", "content": row["rejected"]}], "failure": row["failure"], "why": row["why"],
         "reply": row["reply"], "split": row["split"]}
        for row in _chat("preferences/pairs.jsonl", schema.Preference)
    ])


def load_probe() -> Dataset:
    """The general probe: items that have nothing to do with the desk, to measure what tuning forgets (`schema.ProbeItem`).

    Columns: id, messages, kind (knowledge, arithmetic, instruction, prose), check (the rule, for `evaluation.passes`). It
    is for testing only, so it has no splits.
    """
    rows = _chat("probe/items.jsonl", schema.ProbeItem)
    return Dataset.from_list([{key: value for key, value in row.items() if key != "split"} for row in rows])


# ---------------------------------------------------------------- the knowledge base


def load_articles(edition: Edition = 1) -> Dataset:
    """The articles of one edition (`schema.Article`). Columns: id, edition, title, product, topic, text (Markdown)."""
    _check_edition(edition)
    return Dataset.from_list([row for row in _articles() if row["edition"] == edition])


def load_facts() -> Dataset:
    """Every fact of the knowledge base with its value in each edition (`schema.Fact`); null where the article is not there."""
    return Dataset.from_list(_plain("knowledge/facts.jsonl", schema.Fact))


def load_changes() -> Dataset:
    """What edition 2 changed, as a list: columns kind (changed, new, withdrawn), article, fact (id), name, edition_1, edition_2."""
    rows = []
    for row in load_facts():
        old, new = row["edition_1"], row["edition_2"]
        if old != new:
            kind = "new" if old is None else "withdrawn" if new is None else "changed"
            rows.append({"kind": kind, "article": row["article"], "fact": row["id"], "name": row["fact"], "edition_1": old, "edition_2": new})
    return Dataset.from_list(rows)


def load_parallel() -> Dataset:
    """Short sentences to the desk, each in English, Marathi and Nepali (`schema.Parallel`). Columns: id, en, mr, ne. Explained in lesson 04."""
    return Dataset.from_list(_plain("parallel/sentences.jsonl", schema.Parallel))


def sections(text: str) -> dict[str, str]:
    """The sections of an article: heading -> text. What stands between the title and the first `## ` heading has the key ''."""
    first, *rest = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    parts = {"": re.sub(r"^# .*\n", "", first).strip()}
    return parts | {heading.strip(): body.strip() for heading, body in zip(rest[::2], rest[1::2])}


# ---------------------------------------------------------------- reading


def record_of(row: Row) -> dict[str, Any]:
    """The gold record of a row of `load_extract`, as a dictionary."""
    return json.loads(row["messages"][-1]["content"])


def _with_documents(row: Row, documents: bool) -> Row:
    ticket = row["messages"][1]["content"]
    texts = [_section(source["article"], source["section"]) for source in row["sources"]]
    known = ticket + "\n\nDocuments:\n" + "\n\n".join(texts)
    system, user, reply = row["messages"]
    return {**row, "messages": [system, {**user, "content": known if documents else ticket}, reply], "known": known}


def _section(article: str, heading: str) -> str:
    """One section of an article of edition 1 under its title, as the desk gives it to whoever replies."""
    title, parts = _sections_of_edition_1()[article]
    return f"# {title}{': ' + heading if heading else ''}\n{parts[heading]}"


@cache
def _sections_of_edition_1() -> dict[str, tuple[str, dict[str, str]]]:
    return {row["id"]: (row["title"], sections(row["text"])) for row in _articles() if row["edition"] == 1}


def _articles() -> list[Row]:
    return _plain("knowledge/articles.jsonl", schema.Article)


Model = TypeVar("Model", bound=schema.Strict)


def _chat(file: str, model: type[Model]) -> list[Row]:
    return _checked(file, model, read_chat(HERE / file))


def _plain(file: str, model: type[Model]) -> list[Row]:
    path = HERE / file
    if not path.is_file():
        raise DataError(f"{path}: expected the course's data, found nothing. Fix: install the course again, or check out the file with git.")
    try:
        rows = [strict_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except ValueError as error:
        raise DataError(f"{path}: expected one JSON object per line; found {error}. Fix: check out the file again with git.") from error
    return _checked(file, model, rows)


def _checked(file: str, model: type[Model], rows: list[Row]) -> list[Row]:
    for number, row in enumerate(rows, start=1):
        try:
            model.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{HERE / file}, row {number}: expected {model.__name__} as in helpers/data/schema.py; found at `{where}`: "
                            f"{first['msg']}. Fix: check out the file again with git.") from error
    return rows


def _by_split(rows: list[Row]) -> DatasetDict:
    splits: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        splits[row["split"]].append({key: value for key, value in row.items() if key != "split"})
    return DatasetDict({name: Dataset.from_list(splits[name]) for name in SPLITS})


def _check_edition(edition: int) -> None:
    if edition not in (1, 2):
        raise DataError(f"edition: expected 1 or 2, found {edition!r}. Fix: edition 1 is the one that the desk works with, 2 replaces it.")
