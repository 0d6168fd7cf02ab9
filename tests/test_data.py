"""The chat-JSONL contract, the split, the near-duplicate search and the description of splits."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from helpers import data

GOOD = '{"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}'
USER, ANSWER = '{"role": "user", "content": "hi"}', '{"role": "assistant", "content": "x"}'


def messages(*turns: str) -> bytes:
    return ('{"messages": [' + ", ".join(turns) + "]}").encode()


# file content, line named, expected, found, fix: each text must stand in the message
MALFORMED = {
    "not JSON": (b"{'messages': []}", 1, "one JSON object on one line", "column 2", "double quotes"),
    "two objects": (GOOD.encode() + GOOD.encode(), 1, "one JSON object on one line", "Extra data", "line of its own"),
    "a list": (b"[1, 2]", 1, "a JSON object", "a list", '{"messages"'),
    "a number": (b"7", 1, "a JSON object", "a number", '{"messages"'),
    "no messages": (b'{"id": "a", "text": "hi"}', 1, "a key `messages`", "id, text", '"role": "user"'),
    "messages null": (b'{"messages": null}', 1, "`messages` as a list", "nothing (null)", "["),
    "messages is text": (b'{"messages": "hi"}', 1, "`messages` as a list", "text", "["),
    "no turns": (b'{"messages": []}', 1, "at least one turn", "an empty list", "["),
    "turn is text": (messages('"hi"'), 1, "turn 1", "text", '"content"'),
    "unknown role": (messages('{"role": "human", "content": "hi"}', ANSWER), 1, "system, user, assistant", "'human'", "'user'"),
    "no role": (messages('{"content": "hi"}', ANSWER), 1, "system, user, assistant", "None", "'user'"),
    "empty content": (messages(USER, '{"role": "assistant", "content": ""}'), 1, "turn 2", "empty content", "fill it in"),
    "blank content": (messages(USER, '{"role": "assistant", "content": " \\n"}'), 1, "some content", "empty content", "fill it in"),
    "content is an object": (messages(USER, '{"role": "assistant", "content": {"a": 1}}'), 1, "`content` as text", "an object", "escape"),
    "content is a number": (messages('{"role": "user", "content": 5}', ANSWER), 1, "turn 1", "a number", "double quotes"),
    "content is null": (messages('{"role": "user", "content": null}', ANSWER), 1, "`content` as text", "nothing (null)", "double quotes"),
    "no assistant turn": (messages(USER), 1, "an assistant turn at the end", "'user'", "add the answer"),
    "answer not last": (messages(USER, ANSWER, USER), 1, "an assistant turn at the end", "'user'", "remove the turns"),
    "duplicate id": ((GOOD + "\n" + GOOD).encode(), 2, "an id of its own", "'a', already used in line 1", "rename"),
    "id is a number": (GOOD.replace('"a"', "4").encode(), 1, "`id` as non-empty text", "a number", "double quotes"),
    "byte-order mark": (b"\xef\xbb\xbf" + GOOD.encode(), 1, "plain UTF-8", "byte-order mark", "UTF-8 with BOM"),
    "invalid UTF-8": (GOOD.encode() + b"\n" + GOOD.replace("hi", "caf\u00e9").encode("latin-1"), 2, "UTF-8 text", "0xe9", "save the file as UTF-8"),
    "empty file": (b"", 1, "at least one JSON object", "an empty file", "one conversation per line"),
    "blank lines only": (b"\n \n\n", 1, "at least one JSON object", "an empty file", "one conversation per line"),
    "third line bad": ((GOOD + "\n\n{}").encode(), 3, "a key `messages`", "(none)", "write"),
    "UTF-16": (GOOD.encode("utf-16"), 1, "UTF-8 text", "UTF-16 text", "UTF-8"),
    "nested too deeply": (b"[" * 100_000, 1, "one JSON object", "nested too deeply", "flatten"),
    "a number of 5000 digits": (b'{"a": ' + b"1" * 5000 + b"}", 1, "plain JSON values", "digits", "ordinary number"),
    "NaN": (GOOD[:-1].encode() + b', "score": NaN}', 1, "plain JSON values", "NaN", "null"),
    "a key twice": (b'{"messages": [], "messages": []}', 1, "each key once", "'messages' twice", "each key once"),
    "half a surrogate pair": (messages(USER, '{"role": "assistant", "content": "\\ud83d"}'), 1, "whole characters", "surrogate", "both halves"),
    "id is empty": (GOOD.replace('"a"', '""').encode(), 1, "`id` as non-empty text", "empty text", "remove the key"),
    "cut in the middle": (GOOD.encode()[:40], 1, "one JSON object on one line", "column", "line of its own"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_bad_line_is_refused_with_file_line_expected_found_and_fix(tmp_path, name):
    content, line, expected, found, fix = MALFORMED[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(data.DataError) as caught:
        data.read_chat(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line {line}: expected "), text
    head, mend = text.split(" Fix: ")
    before, after = head.split("; found ")
    assert expected in before and found in after and fix in mend, text


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(data.DataError, match="found nothing.*Fix"):
        data.read_chat(tmp_path / "none.jsonl")
    with pytest.raises(data.DataError, match="found a folder"):
        data.read_chat(tmp_path)


def test_good_rows_come_back_whole_and_in_order(tmp_path):
    rows = [{"id": f"r{i}", "messages": [{"role": "user", "content": f"प्रश्न {i}\u2028x"}, {"role": "assistant", "content": "x"}],
             "lang": "mr"} for i in range(3)]
    path = tmp_path / "rows.jsonl"
    data.write_chat(rows, path)
    assert data.read_chat(path) == rows
    assert data.load_chat(path)["lang"][:] == ["mr"] * 3
    windows = tmp_path / "crlf.jsonl"
    windows.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert data.read_chat(windows) == rows


def test_rows_without_id_are_numbered_and_differing_keys_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(messages(USER, ANSWER) + b"\n" + messages(USER, ANSWER)[:-1] + b', "note": "n"}')
    loaded = data.load_chat(path)
    assert loaded["id"][:] == ["1", "2"] and loaded["note"][:] == [None, "n"]


def test_a_refused_write_leaves_the_old_file_and_no_scraps(tmp_path):
    path = tmp_path / "rows.jsonl"
    data.write_chat([json.loads(GOOD)], path)
    before = path.read_bytes()
    with pytest.raises(data.DataError, match="line 2"):
        data.write_chat([json.loads(GOOD), {"messages": []}], path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("rows, what", [
    ([json.loads(GOOD)] * 2, "already used in line 1"), ([], "at least one row"), ([{**json.loads(GOOD), "x": {1, 2}}], "JSON can hold"),
    ([{**json.loads(GOOD), "x": float("nan")}], "JSON can hold"), ([{**json.loads(GOOD), "x": "\ud83d"}], "JSON can hold"),
])
def test_nothing_is_written_that_could_not_be_read_again(tmp_path, rows, what):
    with pytest.raises(data.DataError, match=what):
        data.write_chat(rows, tmp_path / "rows.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(data.DataError, match="expected an existing folder.*Fix"):
        data.write_chat([json.loads(GOOD)], tmp_path / "none" / "rows.jsonl")


def test_a_key_with_two_types_is_refused_by_name(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(messages(USER, ANSWER)[:-1] + b', "score": 1}\n' + messages(USER, ANSWER)[:-1] + b', "score": "high"}')
    with pytest.raises(data.DataError, match="one type per key"):
        data.load_chat(path)


# ---------------------------------------------------------------- split


@pytest.mark.parametrize("sizes", [[100], [10, 10, 10], [1, 2, 3, 4, 5, 200], [7] * 20, [1] * 50, [33, 47]])
def test_each_stratum_and_the_whole_are_shared_within_a_row(sizes):
    rows = [{"label": k, "n": (k, i)} for k, size in enumerate(sizes) for i in range(size)]
    splits = data.stratified_split(rows, lambda r: r["label"], seed=3)
    everything = [r["n"] for part in splits.values() for r in part]
    assert sorted(everything) == sorted(r["n"] for r in rows), "each row stands in just one split"
    for k, size in enumerate(sizes):
        for name, share in zip(data.SPLITS, (0.7, 0.1, 0.2)):
            assert abs(sum(r["label"] == k for r in splits[name]) - share * size) < 2
    for name, share in zip(data.SPLITS, (0.7, 0.1, 0.2)):
        assert abs(len(splits[name]) - share * len(rows)) <= max(1, 0.02 * len(rows))


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    rows = [{"label": i % 3, "n": i} for i in range(60)]
    one, again, other = (data.stratified_split(rows, lambda r: r["label"], seed=s) for s in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.8, 0.1, 0.2), (1.0, 0.0, 0.0), (-0.1, 0.6, 0.5)])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(data.DataError, match="three positive numbers"):
        data.stratified_split([{}], lambda r: 0, fractions)


@pytest.mark.parametrize("fractions", [(0.5, 0.3, 0.2)])
def test_other_fractions_hold_too(fractions):
    parts = data.stratified_split([{"n": i} for i in range(100)], lambda r: 0, fractions)
    assert [len(part) for part in parts.values()] == [50, 30, 20]


# ---------------------------------------------------------------- near duplicates


def chat(key: str, text: str) -> dict:
    return {"id": key, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]}


def texts_with_copies(seed: int) -> list[dict]:
    """60 texts of random words, of which every third is the one before it with some words changed."""
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(400)]
    rows: list[dict] = []
    for n in range(60):
        text = rng.choices(words, k=rng.randint(5, 60))
        if n % 3 == 2:
            text = rows[-1]["messages"][0]["content"].split()
            for _ in range(rng.randint(0, 3)):
                text[rng.randrange(len(text))] = rng.choice(words)
        rows.append(chat(f"t{n}", " ".join(text)))
    return rows


@pytest.mark.parametrize("threshold", [0.1, 0.35, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_what_comparing_every_pair_finds(threshold, seed):
    rows = texts_with_copies(seed)
    grams = {row["id"]: data.word_ngrams(data.prompt_of(row)) for row in rows}
    every = {frozenset(pair): data.jaccard(grams[pair[0]], grams[pair[1]]) for pair in itertools.combinations(grams, 2)}
    wanted = {pair: likeness for pair, likeness in every.items() if likeness > threshold}
    assert wanted, "the example must have something to find"
    found = data.near_duplicates(rows, threshold)
    assert {frozenset(pair[:2]): pair.likeness for pair in found} == wanted
    assert [pair.likeness for pair in found] == sorted((pair.likeness for pair in found), reverse=True)


def test_a_copy_in_another_split_is_a_leak_and_one_in_the_same_split_is_not():
    one, two = "the kettle clicks off after two seconds every time", "the kettle clicks off after two seconds each time"
    same = {"train": [chat("a", one), chat("b", two)], "test": [chat("c", "nothing like the others at all")]}
    across = {"train": [chat("a", one)], "test": [chat("b", two)]}
    assert data.leaks(same) == []
    (pair,) = data.leaks(across)
    assert pair[:2] == ("a", "b") and pair.likeness == pytest.approx(0.5)
    with pytest.raises(data.DataError, match="'a' in train and in test"):
        data.leaks({"train": [chat("a", one)], "test": [chat("a", two)]})


def test_short_texts_case_and_marks_count_as_people_read_them():
    rows = [chat("a", "Too late!"), chat("b", "too late"), chat("c", "too early"), chat("d", "\u0926\u0941\u0915\u093e\u0928 \u092c\u0902\u0926")]
    assert [pair[:2] for pair in data.near_duplicates(rows, 0.5)] == [("a", "b")]


@pytest.mark.parametrize("threshold", [-1, 0, 1, 5])
def test_a_threshold_that_makes_no_sense_is_refused(threshold):
    with pytest.raises(data.DataError, match="threshold: expected"):
        data.near_duplicates([], threshold)


@pytest.mark.parametrize("rows", [[chat("a", "one two three four"), chat("a", "five six seven eight")], [{"messages": chat("a", "one")["messages"]}]])
def test_rows_without_an_id_of_their_own_are_refused(rows):
    with pytest.raises(data.DataError, match="row [12]: expected an id of its own.*Fix"):
        data.near_duplicates(rows, 0.5)


def test_devanagari_words_stay_whole():
    assert data.word_ngrams("\u0926\u0941\u0915\u093e\u0928 \u092c\u0902\u0926", 1) == {("\u0926\u0941\u0915\u093e\u0928",), ("\u092c\u0902\u0926",)}


# ---------------------------------------------------------------- describe


def test_describe_says_what_it_needs():
    with pytest.raises(data.DataError, match="expected rows with `messages`.*prompt, chosen.*Fix"):
        data.describe(data.load_preferences())


def test_describe_takes_an_empty_split():
    assert data.describe({"train": [json.loads(GOOD)], "test": []}).loc["test"].tolist() == [0, 0, 0, 0]


def test_describe_counts_what_is_there():
    tickets = data.load_extract()
    table = data.describe(tickets, label=lambda r: data.record_of(r)["problem"])
    assert table["rows"].sum() == sum(map(len, tickets.values()))
    assert table.loc["test", "leak"] == sum(data.record_of(r)["problem"] == "leak" for r in tickets["test"])
