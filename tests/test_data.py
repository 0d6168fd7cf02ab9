"""The chat-JSONL contract, the split, and the desk's tickets."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter

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


# ---------------------------------------------------------------- the tickets


@pytest.fixture(scope="module")
def tickets():
    return data.load_extract()


@pytest.fixture(scope="module")
def rows(tickets):
    return [row for split in tickets.values() for row in split]


def ticket(row) -> str:
    return row["messages"][1]["content"]


def four_grams(text: str) -> set:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0


def test_at_least_300_tickets_split_70_10_20(tickets, rows):
    assert len(rows) >= 300
    for name, share in zip(data.SPLITS, (0.7, 0.1, 0.2)):
        assert abs(len(tickets[name]) / len(rows) - share) < 0.02


def test_every_record_holds_to_the_schema_and_keeps_the_order_of_fields(rows):
    for row in rows:
        record = data.record_of(row)
        data.Record.model_validate_json(row["messages"][-1]["content"])
        assert list(record) == list(data.Record.model_fields), row["id"]
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]


def test_free_spans_stand_in_their_ticket(rows):
    units = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    spoken = {word: str(n) for n, word in enumerate(units.split())} | {"oh": "0"}
    for row in rows:
        record, text = data.record_of(row), ticket(row)
        if record["name"]:
            assert record["name"].lower() in text.lower(), row["id"]
        words = " ".join(spoken.get(w, w) for w in re.findall(r"\w+", text.lower()))
        if record["order"] and row["channel"] != "voice":
            assert record["order"][3:] in re.sub(r"\D", "", words), row["id"]
        for code in record["error_codes"]:
            assert all(d in re.sub(r"\D", "", words) or row["channel"] == "voice" for d in code[1:]), row["id"]


def test_every_closed_value_occurs_in_train_and_test(tickets):
    for name in ("train", "test"):
        records = [data.record_of(r) for r in tickets[name]]
        for field in ("product", "problem"):
            values = {r[field] for r in records} - {None}
            allowed = set(re.findall(r"'(\w+)'", str(data.Record.model_fields[field].annotation)))
            assert values == allowed, (name, field, allowed - values)


def test_nothing_is_nearly_written_twice(tickets, rows):
    grams = {row["id"]: four_grams(ticket(row)) for row in rows}
    home = {row["id"]: name for name, split in tickets.items() for row in split}
    for a, b in itertools.combinations(grams, 2):
        likeness = jaccard(grams[a], grams[b])
        assert likeness <= (0.5 if home[a] == home[b] else 0.35), (a, b, likeness)


def test_tickets_do_not_sound_alike(rows):
    openings = Counter(" ".join(re.findall(r"\w+", ticket(r).lower())[:3]) for r in rows)
    opening, count = openings.most_common(1)[0]
    assert count <= 0.02 * len(rows), (opening, count)
    words = [re.findall(r"\w+", ticket(r).lower()) for r in rows]
    trigrams = [tuple(w[i : i + 3]) for w in words for i in range(len(w) - 2)]
    assert len(set(trigrams)) / len(trigrams) >= 0.75


def test_lengths_are_those_of_real_tickets(rows):
    lengths = [len(ticket(r).split()) for r in rows]
    assert min(lengths) >= 4 and max(lengths) <= 190 and 35 <= sum(lengths) / len(lengths) <= 65


@pytest.mark.parametrize("field", ["product", "problem", "error_codes", "age_months", "order", "name", "safety", "wants"])
def test_a_second_reader_agrees_beyond_chance(rows, field):
    """Cohen's kappa of the second, blind labels of at least 15 % of the tickets."""
    from sklearn.metrics import cohen_kappa_score

    first = {r["id"]: {**data.record_of(r), "wants": r["wants"]} for r in rows}
    lines = (data.HERE / "extract" / "second_labels.jsonl").read_text(encoding="utf-8").splitlines()
    second = {r["id"]: {**r["record"], "wants": r["wants"]} for r in map(json.loads, lines)}
    assert len(second) >= 0.15 * len(rows)
    pairs = [(json.dumps(first[i][field]), json.dumps(second[i][field])) for i in second]
    assert cohen_kappa_score(*zip(*pairs)) >= 0.8


def test_order_numbers_are_all_different(rows):
    orders = Counter(data.record_of(r)["order"] for r in rows)
    del orders[None]
    assert max(orders.values()) == 1, orders.most_common(3)


def test_describe_takes_an_empty_split():
    assert data.describe({"train": [json.loads(GOOD)], "test": []}).loc["test"].tolist() == [0, 0, 0, 0]


def test_describe_counts_what_is_there(tickets):
    table = data.describe(tickets, label=lambda r: data.record_of(r)["problem"])
    assert table["rows"].sum() == sum(map(len, tickets.values()))
    assert table.loc["test", "leak"] == sum(data.record_of(r)["problem"] == "leak" for r in tickets["test"])
