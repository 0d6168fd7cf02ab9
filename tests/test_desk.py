"""The desk's data keeps what its card promises: counts, splits, schemas, no repeats, no leaks, labels that a second reader shares."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from helpers import data
from helpers.data import schema

ROOT = Path(__file__).parents[1]
LOADERS = {"extract": data.load_extract, "tone": data.load_tone, "answer": data.load_answer, "reply": lambda: data.load_reply(documents=False),
           "preferences": data.load_preferences}
AT_LEAST = {"extract": 800, "tone": 600, "answer": 400, "reply": 300, "preferences": 250}
NEEDS = ["extract", "tone", "answer", "reply"]
ANSWER_SHOWN = "Most fields gain a lot. Now look at `safety`"  # a sentence of lesson 05


@pytest.fixture(scope="module")
def sets() -> dict:
    return {name: {split: list(rows) for split, rows in load().items()} for name, load in LOADERS.items()}


@pytest.fixture(scope="module")
def facts() -> dict:
    return {row["id"]: row for row in data.load_facts()}


@pytest.fixture(scope="module")
def articles() -> dict:
    return {(row["id"], edition): row for edition in (1, 2) for row in data.load_articles(edition)}


def everything(splits: dict) -> list[dict]:
    return [row for rows in splits.values() for row in rows]


def answer(row: dict) -> str:
    return row["messages"][-1]["content"]


def label(name: str, row: dict) -> str:
    """What the splits are stratified by."""
    return {"extract": lambda: data.record_of(row)["problem"], "tone": lambda: answer(row), "reply": lambda: len(row["sources"]),
            "answer": lambda: (row["kind"], row["changed"])}[name]()


# ---------------------------------------------------------------- all sets


@pytest.mark.parametrize("name", AT_LEAST)
def test_there_are_enough_rows_split_70_10_20(sets, name):
    rows = everything(sets[name])
    assert len(rows) >= AT_LEAST[name]
    for split, share in zip(data.SPLITS, (0.7, 0.1, 0.2)):
        assert abs(len(sets[name][split]) / len(rows) - share) < 0.02, split


@pytest.mark.parametrize("name", NEEDS)
def test_splits_are_stratified_by_label_and_by_batch(sets, name):
    for key in (lambda row: label(name, row), lambda row: row["batch"]):
        total = Counter(map(key, everything(sets[name])))
        for split, share in zip(data.SPLITS, (0.7, 0.1, 0.2)):
            here = Counter(map(key, sets[name][split]))
            for value, count in total.items():
                assert abs(here[value] - share * count) <= 3, (split, value, here[value], count)


def test_ids_are_unique_over_all_sets_and_say_their_set(sets):
    prefixes = {"extract": "ex", "tone": "to", "answer": "an", "reply": "re", "preferences": "pp"}
    for name, splits in sets.items():
        ids = [row["id"] for row in everything(splits)]
        assert len(set(ids)) == len(ids) and all(re.fullmatch(prefixes[name] + r"-\d{4}", i) for i in ids)


def test_every_conversation_has_instruction_question_and_answer(sets):
    for name in NEEDS:
        turns = {tuple(m["role"] for m in row["messages"]) for row in everything(sets[name])}
        instructions = {row["messages"][0]["content"] for row in everything(sets[name])}
        assert turns == {("system", "user", "assistant")}
        assert instructions == {getattr(data, f"{name.upper()}_INSTRUCTION")}


@pytest.mark.parametrize("name", ["extract", "tone", "reply"])
def test_nothing_is_nearly_written_twice(sets, name):
    assert data.near_duplicates(everything(sets[name]), 0.5) == []
    assert data.leaks(sets[name], 0.35) == []


def test_no_reply_is_nearly_another_reply(sets):
    body = lambda row: re.sub(r"^Hello.*?,\n|Take care,\nThe Pellwarth desk$", "", answer(row))
    assert data.near_duplicates(everything(sets["reply"]), 0.35, text=body) == []


@pytest.mark.parametrize("name", NEEDS)
def test_texts_do_not_open_or_sound_alike(sets, name):
    rows = everything(sets[name])
    opening, count = Counter(" ".join(re.findall(r"\w+", data.prompt_of(r).lower())[:3]) for r in rows).most_common(1)[0]
    assert count <= 0.02 * len(rows), (opening, count)
    words = [re.findall(r"\w+", data.prompt_of(r).lower()) for r in rows]
    trigrams = [tuple(w[i : i + 3]) for w in words for i in range(len(w) - 2)]
    assert len(set(trigrams)) / len(trigrams) >= 0.75


@pytest.mark.parametrize("name, shortest, longest", [("extract", 8, 160), ("tone", 10, 60), ("reply", 18, 55)])
def test_channels_and_lengths_vary_as_at_a_real_desk(sets, name, shortest, longest):
    rows = everything(sets[name])
    channels = Counter(row["channel"] for row in rows)
    assert set(channels) == {"mail", "chat", "voice"} and min(channels.values()) >= 0.12 * len(rows)
    lengths = [len(data.prompt_of(r).split()) for r in rows]
    assert 4 <= min(lengths) <= shortest and longest <= max(lengths) <= 190


def test_all_sets_are_small_and_load_in_a_second():
    assert sum(f.stat().st_size for f in data.HERE.rglob("*") if f.is_file() and "__pycache__" not in f.parts) < 6e6
    started = time.perf_counter()
    for load in (*LOADERS.values(), data.load_probe, data.load_articles, data.load_facts, data.load_changes, data.load_parallel):
        load()
    assert time.perf_counter() - started < 1


def test_no_test_row_stands_in_a_lesson_or_a_prompt(sets):
    """Few-shot examples are picked from training rows; a test text pasted into a notebook or a helper would be a leak."""
    sources = [*(ROOT / "helpers").glob("**/*.py")]
    text = "\n".join(p.read_text(encoding="utf-8") for p in sources)
    for path in (ROOT / "lessons").glob("*.ipynb"):
        text += "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    letters = lambda t: re.sub(r"\\n|\W", "", t)  # line breaks and quotes may be written in another way
    text = letters(text)
    assert letters(ANSWER_SHOWN) in text, "the search must find what is there"
    for name in NEEDS:
        for row in sets[name]["test"]:
            assert letters(data.prompt_of(row)[:60]) not in text, row["id"]


# ---------------------------------------------------------------- a row out of its schema is named


def test_a_file_that_breaks_its_schema_is_refused_with_row_and_field(tmp_path, monkeypatch):
    from helpers.data import desk

    monkeypatch.setattr(desk, "HERE", tmp_path)
    (tmp_path / "tone").mkdir()
    good = json.loads((data.HERE / "tone" / "messages.jsonl").read_text(encoding="utf-8").split("\n")[0])
    data.write_chat([good, {**good, "id": "to-9999", "hard": "yes"}], tmp_path / "tone" / "messages.jsonl")
    with pytest.raises(data.DataError, match=r"row 2: expected ToneMessage.*found at `hard`.*Fix"):
        data.load_tone()
    with pytest.raises(data.DataError, match="found nothing.*Fix"):
        data.load_facts()
    (tmp_path / "knowledge").mkdir()
    (tmp_path / "knowledge" / "facts.jsonl").write_text('{"id": "kb-001/f1"\n', encoding="utf-8")
    with pytest.raises(data.DataError, match="one JSON object per line.*Fix"):
        data.load_facts()


@pytest.mark.parametrize("load", [data.load_answer, data.load_articles])
def test_an_edition_that_does_not_exist_is_refused(load):
    with pytest.raises(data.DataError, match="edition: expected 1 or 2, found 3"):
        load(3)


# ---------------------------------------------------------------- extract


def test_every_record_holds_to_the_schema_and_keeps_the_order_of_fields(sets):
    for row in everything(sets["extract"]):
        data.Record.model_validate_json(answer(row))
        assert list(data.record_of(row)) == list(data.Record.model_fields), row["id"]


def test_free_spans_stand_in_their_ticket(sets):
    units = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    spoken = {word: str(n) for n, word in enumerate(units.split())} | {"oh": "0"}
    for row in everything(sets["extract"]):
        record, text = data.record_of(row), data.prompt_of(row)
        if record["name"]:
            assert record["name"].lower() in text.lower(), row["id"]
        words = " ".join(spoken.get(w, w) for w in re.findall(r"\w+", text.lower()))
        if record["order"] and row["channel"] != "voice":
            assert record["order"][3:] in re.sub(r"\D", "", words), row["id"]
        for code in record["error_codes"]:
            assert all(d in re.sub(r"\D", "", words) or row["channel"] == "voice" for d in code[1:]), row["id"]


def test_every_closed_value_occurs_in_train_and_test(sets):
    for split in ("train", "test"):
        records = [data.record_of(r) for r in sets["extract"][split]]
        for field in ("product", "problem"):
            values = {r[field] for r in records} - {None}
            allowed = set(re.findall(r"'(\w+)'", str(data.Record.model_fields[field].annotation)))
            assert values == allowed, (split, field, allowed - values)


def test_order_numbers_are_all_different(sets):
    orders = Counter(data.record_of(r)["order"] for r in everything(sets["extract"]))
    del orders[None]
    assert max(orders.values()) == 1, orders.most_common(3)


def test_every_kind_of_hardness_is_there_and_in_an_easy_row_values_can_be_copied(sets):
    rows = everything(sets["extract"])
    marks = Counter(mark for row in rows for mark in row["hard"])
    assert set(marks) == set(schema.Hard.__args__) and min(marks.values()) >= 35
    for row in rows:
        if row["hard"]:
            continue
        record, bare = data.record_of(row), re.sub(r"[\s\u2010-\u2015-]", "", data.prompt_of(row)).upper()
        for code in (*record["error_codes"], *([record["order"]] if record["order"] else [])):
            assert code.replace("-", "") in bare, (row["id"], code)
        if (age := record["age_months"]) is not None:
            assert re.search(rf"\b{age}[ -]?months?\b", data.prompt_of(row), flags=re.I), row["id"]


# ---------------------------------------------------------------- tone


def test_all_tones_are_about_equally_frequent(sets):
    tones = Counter(answer(row) for row in everything(sets["tone"]))
    assert set(tones) == set(schema.Tone.__args__)
    assert max(tones.values()) < 1.2 * min(tones.values())


def test_a_tone_is_not_given_away_by_its_name(sets):
    rows = everything(sets["tone"])
    assert sum(answer(row) in data.prompt_of(row).lower() for row in rows) < 0.03 * len(rows)


# ---------------------------------------------------------------- the knowledge base


def stands(value: str, text: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(value)}(?!\w)", text) is not None


def test_two_editions_of_at_least_80_articles(articles, facts):
    ids = [{i for i, e in articles if e == edition} for edition in (1, 2)]
    assert min(map(len, ids)) >= 80 and len(ids[1] - ids[0]) >= 5 and len(ids[0] - ids[1]) >= 5
    for row in articles.values():
        assert 115 <= len(row["text"].split()) <= 410, row["id"]
        assert row["text"].startswith(f"# {row['title']}\n") and len(data.sections(row["text"])) >= 3, row["id"]
    assert {row["product"] for row in articles.values()} - {None} == set(schema.Product.__args__)
    with_table = {i for (i, _), row in articles.items() if re.search(r"^\|.*\|$", row["text"], flags=re.M)}
    with_list = {i for (i, _), row in articles.items() if re.search(r"^(\d+\.|-) ", row["text"], flags=re.M)}
    assert len(with_table) >= 25 and len(with_list) >= 40


def test_sections_lose_nothing(articles):
    for row in articles.values():
        words = Counter(re.findall(r"\w+", row["text"]))
        parts = data.sections(row["text"])
        kept = Counter(re.findall(r"\w+", row["title"] + "\n" + "\n".join(f"{h}\n{t}" for h, t in parts.items())))
        assert kept == words, row["id"]
    assert data.sections("# T\n\nIntro.\n\n## A\none\n\n## B\ntwo\n") == {"": "Intro.", "A": "one", "B": "two"}


def test_every_fact_stands_in_its_article_and_each_changed_one_differs(articles, facts):
    assert len(facts) >= 600
    for fact in facts.values():
        for edition in (1, 2):
            value, other = fact[f"edition_{edition}"], fact[f"edition_{3 - edition}"]
            row = articles.get((fact["article"], edition))
            assert (value is None) == (row is None), fact["id"]
            if value is not None:
                assert stands(value, row["text"]), (fact["id"], edition)
                if other not in (None, value):
                    assert not stands(other, row["text"]), (fact["id"], edition)


def test_a_fifth_of_the_facts_changed_and_the_list_of_changes_is_whole(articles, facts):
    changes = list(data.load_changes())
    both = [f for f in facts.values() if f["edition_1"] and f["edition_2"]]
    changed = [c for c in changes if c["kind"] == "changed"]
    assert 0.2 <= len(changed) / len(both) <= 0.3
    assert {c["kind"] for c in changes} == {"changed", "new", "withdrawn"}
    by_article = defaultdict(list)
    for change in changed:
        by_article[change["article"]].append(change)
    for article in {i for i, _ in articles}:
        texts = [articles.get((article, edition)) for edition in (1, 2)]
        if None in texts:
            continue
        masked = [row["text"] for row in texts]
        for change in sorted(by_article[article], key=lambda c: -len(c["edition_1"] + c["edition_2"])):
            for k, edition in enumerate((1, 2)):
                masked[k] = re.sub(rf"(?<![\w.]){re.escape(change[f'edition_{edition}'])}(?!\w)", "<changed>", masked[k])
        assert masked[0] == masked[1], f"{article}: the editions differ in something that is not on the list"


# ---------------------------------------------------------------- answer


@pytest.fixture(scope="module", params=[1, 2])
def questions(request) -> tuple[int, list[dict]]:
    return request.param, everything({k: list(v) for k, v in data.load_answer(request.param).items()})


def test_there_are_enough_questions_of_each_kind(sets):
    rows = everything(sets["answer"])
    assert sum(row["changed"] for row in rows) >= 70
    assert sum(row["kind"] == "two_articles" for row in rows) >= 50
    assert sum(bool(row["absent"]) for row in rows) >= 70, "questions that no article of either edition answers"
    for split in data.SPLITS:
        assert {row["kind"] for row in sets["answer"][split]} == {"fact", "two_articles", "unanswerable"}


def test_every_gold_answer_is_findable_in_its_gold_article(questions, articles, facts):
    edition, rows = questions
    for row in rows:
        if row["kind"] == "unanswerable":
            assert answer(row) == data.NOT_IN_DOCUMENTS and row["articles"] == row["accepted"] == [], row["id"]
            continue
        values = [facts[f][f"edition_{edition}"] for f in row["facts"]]
        for fact, value in zip(row["facts"], values):
            assert stands(value, articles[facts[fact]["article"], edition]["text"]), row["id"]
        assert any(value.lower() in answer(row).lower() for value in values), row["id"]
        assert row["accepted"] and len(answer(row).split()) <= 14, row["id"]
        assert len(row["articles"]) == (2 if row["kind"] == "two_articles" else 1), row["id"]
        assert answer(row).lower() not in data.prompt_of(row).lower(), row["id"]


def test_a_question_changes_its_answer_just_when_its_facts_change(sets, facts):
    for row in everything(sets["answer"]):
        changed = any(facts[f]["edition_1"] != facts[f]["edition_2"] for f in row["facts"])
        assert row["changed"] == changed, row["id"]


def test_every_unanswerable_question_is_unanswerable(sets, articles):
    for row in everything(sets["answer"]):
        for term in row["absent"]:
            where = [key for key, article in articles.items() if term.lower() in article["text"].lower()]
            assert not where, (row["id"], term, where)
        assert not row["absent"] or row["kind"] == "unanswerable"


def test_no_question_leaks_and_no_fact_is_asked_twice_in_the_same_words(sets):
    assert data.leaks(sets["answer"], 0.6) == []
    by_fact = defaultdict(list)
    for split, rows in sets["answer"].items():
        for row in rows:
            for fact in row["facts"]:
                by_fact[fact].append((split, row["id"], data.word_ngrams(data.prompt_of(row), 1)))
    twice = 0
    for fact, found in by_fact.items():
        for k, (split, first, words) in enumerate(found):
            for other, second, others in found[:k]:
                twice += split != other
                assert split == other or data.jaccard(words, others) < 0.6, (fact, first, second)
    rows = [(split, row) for split, part in sets["answer"].items() for row in part if row["absent"]]
    for k, (split, row) in enumerate(rows):
        for home, other in rows[:k]:
            shared = {t.lower() for t in row["absent"]} & {t.lower() for t in other["absent"]}
            like = data.jaccard(data.word_ngrams(data.prompt_of(row), 1), data.word_ngrams(data.prompt_of(other), 1))
            assert split == home or not shared or like < 0.3, (row["id"], other["id"])
    assert twice, "some facts are asked in train and in test in other words, so that tuning can show what it learned"


# ---------------------------------------------------------------- reply and preferences


def test_every_reply_keeps_the_house_style_and_stands_on_its_sources(sets, articles):
    for row in everything(sets["reply"]):
        assert 1 <= len(row["sources"]) <= 2
        for source in row["sources"]:
            assert source["section"] in data.sections(articles[source["article"], 1]["text"]), row["id"]
        report = data.check_style(answer(row), name=row["name"], product=row["product"], known=row["known"])
        assert report.score == 1.0, (row["id"], report.broken)


def test_documents_stand_in_the_prompt_when_asked_for(sets):
    with_documents = everything({k: list(v) for k, v in data.load_reply().items()})
    for short, long in zip(everything(sets["reply"]), with_documents):
        assert data.prompt_of(long) == long["known"] and data.prompt_of(long).startswith(data.prompt_of(short) + "\n\nDocuments:\n# ")
        assert answer(short) == answer(long)


def test_pairs_share_prompt_reply_and_split_with_their_reply(sets):
    replies = {row["id"]: (split, row) for split, rows in data.load_reply().items() for row in rows}
    for split, rows in sets["preferences"].items():
        for row in rows:
            home, reply = replies[row["reply"]]
            assert home == split and row["prompt"] == reply["messages"][:-1] and row["chosen"] == reply["messages"][-1:], row["id"]


def test_the_worse_reply_fails_in_the_named_way(sets):
    replies = {row["id"]: row for rows in sets["reply"].values() for row in rows}
    failures = Counter()
    for row in everything(sets["preferences"]):
        gold, worse = replies[row["reply"]], row["rejected"][0]["content"]
        report = data.check_style(worse, name=gold["name"], product=gold["product"], known=gold["known"])
        failures[row["failure"]] += 1
        if row["failure"] == "off_style":
            assert len(report.broken) >= 3, row["id"]
        elif row["failure"] == "too_long":
            assert "length" in report.broken and len(worse.split()) >= 150, row["id"]
        elif row["failure"] == "wrong_fact":
            assert set(report.broken) <= {"figures", "promise"}, (row["id"], report.broken)
        else:
            assert not {"greeting", "sign_off"} & set(report.broken), (row["id"], report.broken)
    assert set(failures) == set(schema.Failure.__args__) and min(failures.values()) >= 40


def test_length_does_not_tell_the_better_reply(sets):
    """Apart from `too_long`, the worse reply is about as often the shorter one, so that brevity alone wins nothing."""
    for name in ("train", "test"):
        pairs = [row for row in sets["preferences"][name] if row["failure"] != "too_long"]
        shorter = sum(len(row["rejected"][0]["content"].split()) < len(row["chosen"][0]["content"].split()) for row in pairs)
        assert 0.35 <= shorter / len(pairs) <= 0.65, (name, shorter, len(pairs))


def test_chosen_and_rejected_are_other_texts(sets):
    for row in everything(sets["preferences"]):
        a, b = (data.word_ngrams(row[side][0]["content"]) for side in ("chosen", "rejected"))
        assert data.jaccard(a, b) < 0.6, row["id"]


# ---------------------------------------------------------------- the general probe


def test_the_probe_has_each_kind_and_every_answer_passes_its_own_rule():
    from helpers.evaluation import passes

    items = list(data.load_probe())
    assert len(items) >= 150 and set(Counter(i["kind"] for i in items)) == {"knowledge", "arithmetic", "instruction", "prose"}
    for item in items:
        if item["kind"] == "prose":
            assert item["check"]["type"] == "perplexity" and 55 <= len(answer(item).split()) <= 100
            continue
        assert passes(answer(item), item["check"]), item["id"]
        assert not passes("", item["check"]), item["id"]
        if item["kind"] in ("knowledge", "arithmetic"):
            assert not passes(data.prompt_of(item), item["check"]), f"{item['id']}: the question holds its answer"
    rules = [item["check"] for item in items if item["kind"] != "prose"]
    for reply in ("I do not know.", "Dog", "Yes", "No", "1", "The capital of France is Paris.", '{"product": null}'):
        assert sum(passes(reply, rule) for rule in rules) <= 0.05 * len(rules), f"a model that always says {reply!r} scores"


def test_the_probe_has_nothing_of_the_desk():
    words = {w.lower() for w in schema.Product.__args__} | {"pellwarth", "refund", "warranty", "appliance"}
    for item in data.load_probe():
        text = " ".join(m["content"] for m in item["messages"]).lower()
        assert not words & set(re.findall(r"\w+", text)), item["id"]


# ---------------------------------------------------------------- second labels and the card


def test_a_second_reader_of_15_percent_of_each_set_agrees_beyond_chance(sets):
    """Cohen's kappa of the second, blind labels, for every label of every set."""
    import datacard
    from sklearn.metrics import cohen_kappa_score

    seen = set()
    for name, field, first, second in datacard.second_labels():
        seen.add((name, field))
        assert second.keys() <= first.keys(), name
        assert len(second) >= 0.15 * AT_LEAST[name] and len(second) >= 0.15 * len(first), name
        values = [[json.dumps(labels[i]) for i in second] for labels in (first, second)]
        assert cohen_kappa_score(*values) >= 0.8, (name, field)
    assert {name for name, _ in seen} == set(AT_LEAST)
    assert len(seen) == 8 + 1 + 3 + 3 + 2


def test_a_second_reader_passes_the_probe():
    import datacard
    from helpers.evaluation import passes

    items = {item["id"]: item for item in data.load_probe()}
    said = datacard.probe_answers()
    assert len(said) >= 0.15 * len(items)
    assert sum(passes(text, items[i]["check"]) for i, text in said.items()) >= 0.95 * len(said)


def test_the_card_states_the_figures_of_today():
    import datacard

    card = datacard.CARD.read_text(encoding="utf-8")
    assert card == datacard.with_figures(card), "Fix: python tests/datacard.py"
    assert "not measured" not in card


def test_the_card_and_the_guides_name_every_set_and_mark():
    card = (data.HERE / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in NEEDS)
    for guide, words in (("extract", (*schema.Problem.__args__, *schema.Hard.__args__, *schema.Product.__args__)), ("tone", schema.Tone.__args__)):
        text = (data.HERE / guide / "GUIDE.md").read_text(encoding="utf-8")
        assert all(f"`{word}`" in text for word in words), guide
