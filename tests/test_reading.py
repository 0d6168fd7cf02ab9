"""Chunks before a question, examples of reading, and where an answer stands."""

from __future__ import annotations

import pytest

from helpers import data, evaluation, models, prompting, retrieval

CHUNKS = retrieval.by_section(data.load_articles(1))
QUESTIONS = data.load_answer(1)


def a_fact():
    return next(r for r in QUESTIONS["train"] if r["kind"] == "fact")


def test_chunks_stand_before_the_question_and_nothing_else_changes():
    row = a_fact()
    read = retrieval.with_chunks(row, CHUNKS[:2])
    user = read["messages"][1]["content"]
    assert user.index(CHUNKS[0].content) < user.index(CHUNKS[1].content) < user.index(row["messages"][1]["content"])
    assert read["messages"][0] == row["messages"][0] and read["messages"][2] == row["messages"][2] and read["id"] == row["id"]
    assert user not in row["messages"][1]["content"], "the row itself is left as it was"
    with pytest.raises(ValueError, match="at least one chunk.*Fix: search first"):
        retrieval.with_chunks(row, [])


def test_the_reading_prompt_ends_where_the_answer_begins_and_holds_no_gold_answer():
    shots = retrieval.reading_examples(list(QUESTIONS["train"]), CHUNKS, 3)
    row = {**a_fact(), "messages": [*a_fact()["messages"][:2], {"role": "assistant", "content": "SECRET"}]}
    text = retrieval.prompt(row, CHUNKS[:1], shots)
    assert text.endswith("\nAnswer:") and text.count("Question:") == 4 and text.count("\nAnswer:") == 4 and "SECRET" not in text


def test_examples_of_reading_show_when_to_abstain():
    shots = retrieval.reading_examples(list(QUESTIONS["train"]), CHUNKS, 8)
    said = [r["messages"][2]["content"] == data.NOT_IN_DOCUMENTS for r in shots]
    assert said == [False, False, False, True] * 2 and len({r["id"] for r in shots}) == 8
    held_out = {r["id"] for name in ("validation", "test") for r in QUESTIONS[name]}
    assert not held_out & {r["id"] for r in shots}
    for row in shots:
        if row["kind"] == "fact":
            assert evaluation.answers.stands_in(row["messages"][2]["content"], row["messages"][1]["content"]) or row["accepted"]


def test_an_answer_is_traced_to_the_chunk_that_says_it():
    row = a_fact()
    (section,) = retrieval.gold_sections(row, CHUNKS)
    others = [c for c in CHUNKS if c.article != section.article][:3]
    value = next(f for f in data.load_facts() if f["id"] == row["facts"][0])["edition_1"]
    assert retrieval.traced(value, [*others, section]) == section
    assert retrieval.traced("violet elephants on stilts", [section]) is None and retrieval.traced("", [section]) is None
    assert retrieval.traced(data.NOT_IN_DOCUMENTS, [section]) is None


def test_every_question_fits_with_three_sections_into_the_context():
    tokenizer = models.load_tokenizer()
    shots = retrieval.reading_examples(list(QUESTIONS["train"]), CHUNKS, 8)
    longest = sorted(CHUNKS, key=lambda c: len(c.text))[-3:]
    assert models.count_tokens(tokenizer, prompting.as_text(retrieval.with_chunks(a_fact(), longest), None, shots)) < 8192
