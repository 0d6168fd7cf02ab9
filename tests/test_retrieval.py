"""Chunks and the index over them: what is cut, stored, embedded and found; odd questions and odd documents."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from helpers import data, models
from helpers import evaluation as ev
from helpers.retrieval import MODES, Chunk, Hit, Index, RetrievalError, Update, by_section, by_size, gold_sections
from words_embedder import WordsEmbedder


def article(text: str, name: str = "kb-900", edition: int = 1, title: str = "The pump") -> dict:
    return {"id": name, "edition": edition, "title": title, "product": None, "topic": "use", "text": text}


def words(count: int) -> str:
    return " ".join(f"w{n}" for n in range(count))


@pytest.fixture(scope="module")
def sections() -> dict[int, list[Chunk]]:
    return {edition: by_section(data.load_articles(edition)) for edition in (1, 2)}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, sections) -> Index:
    """Both editions with the course's own embedder."""
    index = Index(tmp_path_factory.mktemp("desk") / "index", models.load_embedder())
    for edition in (1, 2):
        index.update(sections[edition], edition)
    return index


@pytest.fixture
def small(tmp_path) -> Index:
    return Index(tmp_path / "index", WordsEmbedder())


# ---------------------------------------------------------------- chunks


def test_sections_become_chunks_that_carry_their_titles():
    chunks = by_section([article("# The pump\n\nIt pumps.\n\n## Noise\nIt hums.\n\n## Empty\n\n## Price\n€68")])
    assert [(c.id, c.heading, c.text) for c in chunks] == [
        ("kb-900@1/section/1", "", "It pumps."), ("kb-900@1/section/2", "Noise", "It hums."), ("kb-900@1/section/3", "Price", "€68")]
    assert chunks[0].content == "The pump\nIt pumps." and chunks[1].content == "The pump: Noise\nIt hums."
    with pytest.raises(dataclasses.FrozenInstanceError):
        chunks[0].text = "other"


def test_every_word_of_the_knowledge_base_is_in_a_chunk_and_no_id_is_twice(sections):
    for edition in (1, 2):
        articles = list(data.load_articles(edition))
        for chunks in (sections[edition], by_size(articles, 60, 0)):
            assert len({c.id for c in chunks}) == len(chunks) and all(c.edition == edition and c.text.strip() for c in chunks)
            for row in articles:
                body = re.sub(r"^# .*\n", "", row["text"])
                body = re.sub(r"^## .*$", "", body, flags=re.M) if chunks is sections[edition] else re.sub(r"^#+ ", "", body, flags=re.M)
                assert " ".join(c.text for c in chunks if c.article == row["id"]).split() == body.split()
    assert len({c.id for e in (1, 2) for c in sections[e]}) == len(sections[1]) + len(sections[2])


@pytest.mark.parametrize("count, size, overlap, expected", [
    (10, 4, 1, [(0, 4), (3, 7), (6, 10)]),  # the last window ends with the text: no fourth one that repeats "w9"
    (11, 4, 1, [(0, 4), (3, 7), (6, 10), (9, 11)]),
    (4, 4, 1, [(0, 4)]), (3, 4, 3, [(0, 3)]), (5, 4, 3, [(0, 4), (1, 5)]), (1, 4, 3, [(0, 1)]), (0, 4, 1, []), (8, 4, 0, [(0, 4), (4, 8)]),
])
def test_windows_overlap_and_the_last_one_brings_something_new(count, size, overlap, expected):
    got = [c.text.split() for c in by_size([article("# The pump\n" + words(count))], size, overlap)]
    assert got == [[f"w{n}" for n in range(a, b)] for a, b in expected]


def test_windows_ignore_headings_and_keep_line_breaks():
    chunks = by_size([article("# The pump\n\nIt pumps.\n\n## Noise\nIt hums.")], 5, 0)
    assert [c.text for c in chunks] == ["It pumps.\n\nNoise\nIt hums."] and chunks[0].heading == ""


def test_a_document_of_20_000_words_is_cut_and_found(small):
    long = article("# The pump\n" + words(9_999) + " needle\n## Second\n" + words(10_000))
    chunks = by_section([long])
    assert len(chunks) == 2 * 59 and max(len(c.text.split()) for c in chunks) == 170
    small.update(chunks, 1)
    hit = small.search("needle", mode="text")[0]
    assert hit.text.endswith("needle") and hit.heading == ""


def test_no_chunk_of_the_knowledge_base_is_longer_than_the_embedder_reads(desk, sections):
    tokenizer, window = desk.embedder.tokenizer, desk.embedder.max_seq_length
    assert window == 256
    for chunks in (*sections.values(), by_size(data.load_articles(1))):
        assert max(map(len, tokenizer([c.content for c in chunks], truncation=False)["input_ids"])) <= window


@pytest.mark.parametrize("cut", [lambda: by_section([], 0), lambda: by_size([], 0, 0), lambda: by_size([], 4, 4), lambda: by_size([], 4, -1)])
def test_sizes_that_cut_nothing_are_refused(cut):
    with pytest.raises(ValueError, match="Fix: "):
        cut()


# ---------------------------------------------------------------- gold sections


def test_every_fact_of_a_question_has_the_one_section_that_holds_its_value(sections):
    facts = {f["id"]: f for f in data.load_facts()}
    for edition in (1, 2):
        for part in data.load_answer(edition).values():
            for row in part:
                gold = gold_sections(row, sections[edition])
                assert {c.article for c in gold} == set(row["articles"]) and len(gold) == len(row["articles"]), row["id"]
                text = " ".join(" ".join(c.text.split()) for c in gold)
                assert not row["articles"] or all(" ".join(facts[f][f"edition_{edition}"].split()) in text for f in row["facts"])


def test_a_value_that_stands_twice_is_taken_where_its_name_stands():
    row = {"id": "an-0", "articles": ["kb-001"], "facts": ["kb-001/f1"], "edition": 1}  # transport bolts: four orange bolts
    chunks = by_section([article("# T\n## Colours\nThere are four orange bolts.\n## Transport bolts\nUndo four orange bolts.", "kb-001")])
    assert [c.heading for c in gold_sections(row, chunks)] == ["Transport bolts"]
    cut = by_size([article("# T\nUndo four orange bolts.", "kb-001")], 2, 0)
    assert gold_sections(row, cut) == cut  # the value is cut in two: the whole article
    with pytest.raises(ValueError, match="expected chunks of kb-001, edition 1"):
        gold_sections(row, [])


# ---------------------------------------------------------------- update


def test_an_update_embeds_only_what_is_new_and_reopening_embeds_nothing(tmp_path, sections):
    embedder = WordsEmbedder()
    index = Index(tmp_path / "index", embedder)
    assert index.update(sections[1], 1) == Update(len(sections[1]), 0, 0, 0, len({c.content for c in sections[1]}))
    texts = {c.content for c in sections[1]}
    before = embedder.texts
    update = index.update(sections[2], 2)
    assert update.added == len(sections[2]) and update.embedded == embedder.texts - before == len({c.content for c in sections[2]} - texts)
    assert update.embedded < update.added / 2  # most texts are those of edition 1
    reopened, before = Index(tmp_path / "index", embedder), embedder.texts
    assert reopened.update(sections[2], 2) == Update(0, 0, 0, len(sections[2]), 0) and embedder.texts == before
    assert reopened.chunks(1) == sorted(sections[1], key=lambda c: c.id) and reopened.chunks(2) == sorted(sections[2], key=lambda c: c.id)
    assert reopened.editions() == [1, 2] and len(reopened) == len(sections[1]) + len(sections[2])


def test_an_update_changes_removes_and_adds_in_its_edition_only(small):
    old = [Chunk(f"a@1/section/{n}", "a", 1, "T", "", text) for n, text in enumerate(["one", "two", "three"])]
    other = [Chunk("a@2/section/0", "a", 2, "T", "", "one")]
    small.update(old, 1), small.update(other, 2)
    new = [old[0], dataclasses.replace(old[1], text="two changed"), Chunk("b@1/section/0", "b", 1, "T", "", "four")]
    assert small.update(new, 1) == Update(added=1, changed=1, removed=1, same=1, embedded=2)
    assert small.chunks(1) == sorted(new, key=lambda c: c.id) and small.chunks(2) == other
    assert small.search("changed", mode="text")[0].text == "two changed" and small.search("three", mode="text") == []
    own = np.eye(3, small.embedder.size)
    assert small.update([dataclasses.replace(c, text=c.text + " again") for c in new], 1, vectors=own * 7).embedded == 0
    stored = small.table.search().where("edition = 1").select(["id", "vector"]).to_arrow().sort_by("id")
    assert np.array_equal(np.stack(stored["vector"].to_numpy()), own[[0, 1, 2]].astype(np.float32))  # of length 1, in the order of the chunks
    assert small.update([], 1) == Update(0, 0, 3, 0, 0) and small.editions() == [2]


def test_vectors_in_the_table_are_those_of_the_texts_after_any_history(small, sections):
    small.update(sections[1], 1)
    small.update(sections[2], 2)
    small.update(sections[1][:100], 1)
    small.update(list(reversed(sections[1])), 1)
    stored = small.table.search().select(["content", "vector"]).to_arrow()
    fresh = WordsEmbedder().encode(stored["content"].to_pylist())
    assert np.allclose(np.stack(stored["vector"].to_numpy()), fresh / np.linalg.norm(fresh, axis=1, keepdims=True), atol=1e-6)


def test_replaced_versions_do_not_pile_up(small, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr("helpers.retrieval.index.KEEP", timedelta(seconds=0.01))
    for n in range(30):
        small.update([Chunk("a@1/section/0", "a", 1, "T", "", f"text {n}")], 1)
    assert len(list((small.folder / "chunks.lance" / "_versions").glob("*.manifest"))) < 10


@pytest.mark.parametrize("chunks, said", [
    ([Chunk("a@2/section/1", "a", 2, "T", "", "x")], "expected chunks of edition 1, found 'a@2/section/1' of edition 2"),
    ([Chunk("same", "a", 1, "T", "", "x"), Chunk("same", "a", 1, "T", "", "y")], "found 'same' twice"),
    ([Chunk("taken", "a", 1, "T", "", "x")], "found 'taken' stored for edition 2"),
])
def test_chunks_that_do_not_fit_are_refused(small, chunks, said):
    small.update([Chunk("taken", "a", 2, "T", "", "x")], 2)
    with pytest.raises(RetrievalError, match=said):
        small.update(chunks, 1)
    assert len(small) == 1


@pytest.mark.parametrize("vectors", [np.zeros((1, 64)), np.full((1, 64), np.nan), np.ones((2, 64)), np.ones(64)])
def test_vectors_that_are_none_are_refused(small, vectors):
    with pytest.raises(RetrievalError, match="expected 1 vectors of finite numbers"):
        small.embedder.encode = lambda texts: vectors
        small.update([Chunk("a", "a", 1, "T", "", "x")], 1)


def test_an_article_removed_while_answering_stays_readable_and_is_found_no_more(small, sections):
    small.update(sections[1], 1), small.update(sections[2], 2)
    reader = Index(small.folder, WordsEmbedder())
    hits = reader.search("How many orange bolts hold the drum of the Rill?", mode="text", edition=1)
    assert hits[0].article == "kb-001"
    assert small.remove(["kb-001", "no such ' article"]) == sum(c.article == "kb-001" for e in (1, 2) for c in sections[e])
    assert "four orange bolts" in " ".join(h.content for h in hits if h.article == "kb-001")
    for mode in MODES:
        assert "kb-001" not in [h.article for h in reader.search("How many orange bolts hold the drum of the Rill?", mode=mode, k=50)]
    assert small.remove([]) == 0 and small.remove(["kb-002"], edition=2) == sum(c.article == "kb-002" for c in sections[2])
    assert any(c.article == "kb-002" for c in reader.chunks(1))


# ---------------------------------------------------------------- search


def test_vector_search_equals_numpy_and_scores_are_cosines(desk, sections):
    questions = [row["messages"][1]["content"] for row in data.load_answer(1)["validation"]][:10]
    matrix, asked = desk.embedder.encode([c.content for c in sections[1]]), desk.embedder.encode(questions)
    cosine = asked @ matrix.T
    for row, hits in zip(cosine, desk.search_many(questions, k=10, mode="vector", edition=1)):
        assert [h.rank for h in hits] == list(range(1, 11))
        assert [h.id for h in hits] == [sections[1][n].id for n in np.argsort(-row)[:10]]
        assert [h.score for h in hits] == pytest.approx(np.sort(row)[::-1][:10], abs=1e-5)


@pytest.mark.parametrize("edition", [1, 2])
def test_the_right_article_is_among_five_chunks_for_nearly_all_questions(desk, edition):
    rows = [row for row in data.load_answer(edition)["validation"] if row["articles"]]
    found = desk.search_many([row["messages"][1]["content"] for row in rows], k=5, edition=edition)
    assert all(hit.edition == edition for hits in found for hit in hits) and all(len(hits) == 5 for hits in found)
    assert ev.recall_at_k([[h.article for h in hits] for hits in found], [row["articles"] for row in rows], 5).mean() > 0.85


def test_hybrid_is_the_reciprocal_rank_fusion_of_the_two(desk):
    question = "How long must the Rill rest unplugged before its first wash?"
    ranks = {mode: {h.id: h.rank for h in desk.search(question, k=40, mode=mode, edition=1)} for mode in ("vector", "text")}
    fused = {i: sum(1 / (60 + r[i]) for r in ranks.values() if i in r) for r in ranks.values() for i in r}
    hits = desk.search(question, k=5, edition=1)
    assert [h.score for h in hits] == pytest.approx(sorted(fused.values(), reverse=True)[:5], abs=1e-6)
    assert all(h.score == pytest.approx(fused[h.id], abs=1e-6) for h in hits)
    by = {w: [h.id for h in desk.search(question, k=3, edition=1, weight=w)] for w in (0.0, 1.0)}
    assert by == {0.0: list(ranks["text"])[:3], 1.0: list(ranks["vector"])[:3]}


def test_one_at_a_time_and_all_at_once_find_the_same(desk):
    questions = ["Which detergent for wool?", "What does E27 mean?", "Can I send it back?"]
    together = desk.search_many(questions, k=4, edition=2)
    assert [[h.id for h in hits] for hits in together] == [[h.id for h in desk.search(q, k=4, edition=2)] for q in questions]
    given = desk.search_many(questions, k=4, edition=2, vectors=desk.embedder.encode(questions))
    assert [[h.id for h in hits] for hits in given] == [[h.id for h in hits] for hits in together]
    assert desk.search_many([]) == []


def test_a_hit_is_a_chunk_with_its_score(desk, sections):
    hit = desk.search("How many bolts hold the drum?", edition=1)[0]
    assert isinstance(hit, Hit) and hit.rank == 1 and hit.content.startswith(hit.title)
    assert Chunk(**{f.name: getattr(hit, f.name) for f in dataclasses.fields(Chunk)}) in sections[1]


@pytest.mark.parametrize("query", ["पंप आवाज करतो, काय करू?", "मेरी मशीन का पंप शोर करता है"])
def test_a_question_in_devanagari_finds_no_words_and_hybrid_still_answers(desk, query):
    assert desk.search(query, mode="text", edition=1) == []
    vector, hybrid = (desk.search(query, mode=mode, edition=1) for mode in ("vector", "hybrid"))
    assert len(vector) == 5 and [h.id for h in hybrid] == [h.id for h in vector]
    assert len(desk.search(query, edition=1, weight=0.5)) == 5
    tokens = desk.embedder.tokenizer.tokenize(query)  # the embedder is English: it sees letters, not words
    assert "[UNK]" in tokens or max(len(token.strip("#")) for token in tokens) <= 2, tokens


@pytest.mark.parametrize("query", [
    'a "C++ (or what?)" AND filter', '"filter', "filter AND NOT pump OR *", "title:filter^2 ~ filter*", "filter'); DROP TABLE chunks; --",
    "filter \x00 \\ /", "filter [a TO b] {!x}", "+filter -pump", "filter" + " filter" * 2000,
])
def test_every_sign_of_a_question_is_text(desk, query):
    for mode in MODES:
        assert len(desk.search(query, k=8, mode=mode, edition=1)) == 8
    assert all(re.search("filter|pump|table", hit.content, re.I) for hit in desk.search(query, mode="text"))


def test_there_are_no_operators(desk):
    found = {q: {h.id for h in desk.search(q, mode="text", k=10_000)} for q in ("filter", "pump", "filter AND NOT pump", '"pump filter"', "pump*")}
    assert found["filter AND NOT pump"] == found['"pump filter"'] == found["filter"] | found["pump"]
    assert found["pump*"] == found["pump"] < found["filter AND NOT pump"]


@pytest.mark.parametrize("arguments, said", [
    ({"query": ""}, "expected a question in words, got ''"), ({"query": " \n\t"}, "expected a question in words"), ({"query": None}, "got None"),
    ({"k": 0}, "k of at least 1"), ({"k": 2.5}, "k of at least 1"), ({"mode": "fuzzy"}, "hybrid, vector, text, got 'fuzzy'"),
    ({"edition": 3}, "got 3. Fix: the index holds edition 1, edition 2"), ({"edition": "1"}, "whole number"),
    ({"weight": 1.5}, "weight from 0 to 1"), ({"weight": 0.5, "mode": "text"}, "with mode 'hybrid'"),
])
@pytest.mark.parametrize("mode", MODES)
def test_a_search_that_cannot_be_is_refused_with_the_fix(desk, arguments, said, mode):
    with pytest.raises(RetrievalError, match=re.escape(said)) as caught:
        desk.search(**{"query": "pump", "mode": mode} | arguments)
    assert "Fix: " in str(caught.value)


def test_a_text_instead_of_a_list_of_questions_is_refused(desk):
    with pytest.raises(RetrievalError, match="put it into a list"):
        desk.search_many("pump")


def test_more_hits_than_chunks_gives_all_and_an_empty_index_says_so(small):
    for mode in MODES:
        with pytest.raises(RetrievalError, match="found an empty index. Fix: call update"):
            small.search("pump", mode=mode)
    small.update([Chunk(f"a@1/section/{n}", "a", 1, "T", "", "pump") for n in (2, 0, 1)], 1)
    for mode in MODES:
        assert len(small.search("pump", k=1000, mode=mode)) == 3
        assert sorted(h.id for h in small.search("pump", k=2, mode=mode)) == ["a@1/section/0", "a@1/section/1"]  # equal scores: by id
