"""labs/starters/rag.py: alone in an empty folder, on small documents, with the real embedder and a tiny language model."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from test_starter_tune import runner  # noqa: F401  (a fixture)

from words_embedder import WordsEmbedder

SCRIPT = Path(__file__).resolve().parent.parent / "labs/starters/rag.py"
PUBLIC = {"numpy", "lancedb", "pyarrow", "sentence_transformers", "torch", "transformers", "scipy"}
QUESTIONS = [
    {"id": "filter", "question": "How often must the filter of the Rill be cleaned?", "answer": "every 11 weeks", "sources": ["rill.md"]},
    {"id": "price", "question": "What does the Rill cost?", "answer": "24.50 euros", "accepted": ["€24.50"], "sources": ["rill.md"]},
    {"id": "hamlet", "question": "Who wrote Hamlet, and when?", "answer": "Not in our documents."},
]


@pytest.fixture(scope="module")
def rag():
    spec = importlib.util.spec_from_file_location("starter_rag", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """An empty folder with the script, some documents and some questions."""
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "docs/more").mkdir(parents=True)
    (tmp_path / "docs/rill.md").write_text("# The Rill\n\nA washing machine.\n\n## Filter\nClean the filter every 11 weeks.\n\n## Price\nIt costs 24.50 euros.\n")
    (tmp_path / "docs/more/pip.txt").write_text("The kettle Pip boils a litre in 3 minutes.")
    (tmp_path / "docs/kb.jsonl").write_text('{"id": "kb-1", "title": "The Glod", "text": "## Door\\nThe door of the oven opens to the left."}\n')
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS), encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-I", "rag.py", *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})


def settings(folder: Path, **changes) -> Namespace:
    own = {"docs": folder / "docs", "index": folder / "index", "words": 170, "language": "English", "embedder": "words", "mode": "hybrid",
           "chunks": 2, "min_cosine": 0.25, "refusal": "Not in our documents."}
    return Namespace(**{**own, **changes})


class Embedder(WordsEmbedder):
    """`WordsEmbedder` with the methods of a SentenceTransformer that the script calls."""

    max_seq_length = 256

    def encode_document(self, texts, normalize_embeddings):
        vectors = self.encode(texts)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_query = encode_document

    def tokenizer(self, text):
        return {"input_ids": text.split()}


# ---------------------------------------------------------------- the file


def test_it_is_one_short_file_that_needs_public_libraries_only():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300 and max(map(len, text.splitlines())) <= 150
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    names = {(a.name if isinstance(n, ast.Import) else n.module).split(".")[0] for n in nodes for a in n.names}
    assert names - set(sys.stdlib_module_names) <= PUBLIC


# ---------------------------------------------------------------- what a user gets wrong


@pytest.mark.parametrize("arguments, words", [
    (["--help"], ["questions.jsonl", "--min-cosine", "pip install"]),
    (["eval", "questions.jsonl", "--no-such-flag"], ["--no-such-flag"]),
    (["index"], ["--docs"]),
    (["ask", " "], ["question"]),
    (["eval", "missing.jsonl"], ["missing.jsonl", "No such file"]),
    (["eval", "bad.jsonl"], ["bad.jsonl, line 2", "one JSON object", "Fix"]),
    (["eval", "half.jsonl"], ["half.jsonl, line 1", "two columns", "question", "Fix"]),
    (["eval", "twice.jsonl"], ["twice.jsonl, line 2", "'x'", "Fix"]),
    (["eval", "null.jsonl"], ["null.jsonl, line 1", "'content': None", "Fix"]),
    (["eval", "array.jsonl"], ["array.jsonl, line 1", "jq -c '.[]' array.jsonl > rows.jsonl"]),
    (["eval", "names.csv"], ["names.csv, line 2", "'text': 'a'", "--columns"]),
    (["eval", "comma.csv", "--columns", "text,label"], ["comma.csv, line 2", "None: ['c']", "a comma between double quotes"]),
    (["eval", "hole.csv", "--columns", "text,label"], ["hole.csv, line 2", "'label': ''", "fill empty cells"]),
    (["eval", "empty.jsonl"], ["empty.jsonl", "at least one row", "Fix"]),
    (["eval", "latin.jsonl"], ["latin.jsonl, line 2", "UTF-8", "0xf9", "Fix"]),
    (["index", "--docs", "docs", "--language", "Klingon"], ["--language", "Klingon", "English", "Turkish"]),
    (["eval", "questions.jsonl", "--out", "docs"], ["--out docs", "--force"]),
    (["ask", "Why?", "--model", "./no/such/folder"], ["--model", "no/such/folder", "hub id", "Fix"]),
])
def test_a_mistake_is_named_at_once(folder, arguments, words):
    (folder / "bad.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n{'question': 'single quotes'}\n")
    (folder / "null.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null}]}')
    (folder / "array.jsonl").write_text("[\n" + json.dumps(QUESTIONS[0]) + "\n]")
    (folder / "names.csv").write_text("text,label\na,b\n")
    (folder / "comma.csv").write_text("text,label\na,b,c\n")
    (folder / "hole.csv").write_text("text,label\na,\n")
    (folder / "half.jsonl").write_text('{"question": "no answer"}\n')
    (folder / "twice.jsonl").write_text('{"id": "x", "prompt": "a", "completion": "b"}\n{"id": "x", "prompt": "c", "completion": "d"}\n')
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "latin.jsonl").write_bytes('{"question": "a", "answer": "b"}\n{"question": "où?", "answer": "là"}'.encode("latin-1"))
    before = sorted(folder.rglob("*"))
    done = run(folder, *arguments)
    said = done.stdout + done.stderr
    assert all(word in said for word in words) and "Traceback" not in said, said
    assert done.returncode == (0 if "--help" in arguments else 2 if "usage" in said else 1)
    assert sorted(folder.rglob("*")) == before


def test_the_default_model_that_is_not_there_says_how_to_get_it(folder):
    done = run(folder, "ask", "Why?", COURSE_CACHE=str(folder / "cache"), COURSE_MODEL="")
    assert done.returncode == 1 and "course.py lab" in done.stderr and str(folder / "cache") in done.stderr, done.stderr


def test_rows_in_all_forms_become_the_same_messages(rag, tmp_path):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    forms = [{"messages": turns}, {"prompt": "Why?", "completion": "Because."}, {"prompt": turns[:1], "completion": turns[1:]}]
    (tmp_path / "rows.jsonl").write_text("\ufeff" + "".join(json.dumps(form) + "\n\n" for form in forms), encoding="utf-8")
    (tmp_path / "rows.csv").write_text('n,asked,said\n1,Why?,Because.\n2,"Why\nnot?",So.\n', encoding="utf-8")
    rows = rag.read_rows(tmp_path / "rows.jsonl", None)
    assert [row["messages"] for row in rows] == [turns] * 3 and [row["id"] for row in rows] == ["1", "3", "5"]
    table = rag.read_rows(tmp_path / "rows.csv", "asked,said")
    assert table[0]["messages"] == turns and table[1]["messages"][0]["content"] == "Why\nnot?"
    (tmp_path / "excel.csv").write_bytes("asked;said\r\nWhy?;Because.\r\n".encode("utf-16"))
    assert rag.read_rows(tmp_path / "excel.csv", "asked,said")[0]["messages"] == turns, "UTF-16 and semicolons"
    (tmp_path / "ragged.csv").write_text("asked,said\nonly one\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="line 2"):
        rag.read_rows(tmp_path / "ragged.csv", "asked,said")


# ---------------------------------------------------------------- documents and chunks


def test_documents_become_sections_that_carry_their_titles(rag, folder):
    documents = rag.read_documents(folder / "docs")
    assert [(key, title) for key, title, _ in documents] == [("kb-1", "The Glod"), ("more/pip.txt", "pip"), ("rill.md", "The Rill")]
    contents = [chunk["content"] for chunk in rag.cut(documents, 170)]
    assert "The Rill: Filter\nClean the filter every 11 weeks." in contents and "The Rill\nA washing machine." in contents and len(contents) == 5


def test_a_long_section_is_cut_and_no_word_is_lost(rag):
    chunks = rag.cut([("d", "T", " ".join(map(str, range(25))))], 10)
    bodies = [chunk["content"].split("\n", 1)[1].split() for chunk in chunks]
    assert list(map(len, bodies)) == [10, 10, 5] and sum(bodies, []) == list(map(str, range(25)))


@pytest.mark.parametrize("name", ["latin.md", "latin.jsonl"])
def test_a_document_that_is_not_utf_8_is_named_with_its_line(rag, folder, name):
    (folder / "docs" / name).write_bytes('{"text": "a"}\n{"text": "où"}\n'.encode("latin-1"))
    with pytest.raises(SystemExit, match=rf"{name}, line 2: expected UTF-8 text, found the byte 0xf9\. Fix"):
        rag.read_documents(folder / "docs")


def test_every_language_on_offer_has_its_stems(rag, tmp_path):
    import lancedb.index

    table = lancedb.connect(str(tmp_path)).create_table("t", [{"content": "the dogs were running"}])
    for language in rag.LANGUAGES:
        table.create_index("content", config=lancedb.index.FTS(language=language), replace=True)
    with pytest.raises(ValueError, match="language"):
        table.create_index("content", config=lancedb.index.FTS(language="Klingon"), replace=True)


@pytest.mark.parametrize("line, word", [('{"id": "kb-1", "text": "again"}', "'kb-1' twice"), ('{"id": "kb-2"}', "a text"), ("[1]", "a text")])
def test_a_bad_document_is_named_with_its_line(rag, folder, line, word):
    with open(folder / "docs/kb.jsonl", "a") as stream:
        stream.write(line + "\n")
    with pytest.raises(SystemExit, match="kb.jsonl, line 2") as error:
        rag.read_documents(folder / "docs")
    assert word in str(error.value)


# ---------------------------------------------------------------- the index


def test_only_changes_are_embedded_and_what_was_deleted_is_gone(rag, folder, capsys):
    args, embedder = settings(folder), Embedder()
    rag.update_index(args, embedder)
    first, embedded = json.loads((folder / "index/index.json").read_text()), embedder.texts
    assert embedded == 5
    rag.update_index(args, embedder)
    assert json.loads((folder / "index/index.json").read_text()) == first and "up to date" in capsys.readouterr().err
    embedder.texts = 0
    (folder / "docs/rill.md").write_text("# The Rill\n\n## Filter\nClean the filter every 12 weeks.\n\n## Price\nIt costs 24.50 euros.\n")
    (folder / "docs/kb.jsonl").unlink()
    rag.update_index(args, embedder)
    assert embedder.texts == 2, "one probe, one changed section"
    table, about, same = rag.open_index(folder / "index", embedder)
    contents = set(table.to_arrow()["content"].to_pylist())
    assert same and contents == {"pip\nThe kettle Pip boils a litre in 3 minutes.", "The Rill: Filter\nClean the filter every 12 weeks.",
                                 "The Rill: Price\nIt costs 24.50 euros."}
    assert sorted(p.name for p in (folder / "index").iterdir()) == sorted(["index.json", f"{about['table']}.lance"]), "the old table is gone"
    assert "12 weeks" in rag.search(args, embedder, ["how many weeks for the filter"])[0][0]["content"]


def test_an_index_of_other_documents_is_made_again_with_a_sentence(rag, folder, capsys):
    rag.update_index(settings(folder), Embedder())
    (folder / "others").mkdir()
    (folder / "others/new.md").write_text("# New\n\nSomething new.")
    capsys.readouterr()
    rag.update_index(settings(folder, docs=folder / "others"), Embedder())
    assert f"was made of {folder / 'docs'} by words, is now made of {folder / 'others'} by words" in capsys.readouterr().err
    assert [hit["doc"] for hit in rag.search(settings(folder), Embedder(), ["kettle"])[0]] == ["new.md"], "nothing of the old documents is left"


def test_files_appear_all_or_none(rag, tmp_path):
    with pytest.raises(AttributeError):
        rag.write(tmp_path / "out", {"a": "1", "b": None})
    assert not list(tmp_path.iterdir())
    rag.write(tmp_path / "deep/out", {"a": "é", "b": b"2"})
    assert [(p.name, p.read_bytes()) for p in sorted((tmp_path / "deep/out").iterdir())] == [("a", "é".encode()), ("b", b"2")]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_named_and_leaves_no_index(runner, folder):  # noqa: F811
    """A limit on the size of a file stands for the full disk: the table, 8 kB of vectors, does not fit."""
    done = runner(folder, "rag.py", "index", "--docs", "docs", largest_file=4000)
    assert done.code == 1 and "disk is full" in done.err and "Fix" in done.err and "Traceback" not in done.err, done.err
    assert not [path for path in (folder / "rag-index").rglob("*") if path.is_file()]


def test_whoever_stops_an_update_leaves_the_old_index_whole(rag, folder, monkeypatch):
    args, embedder = settings(folder), Embedder()
    rag.update_index(args, embedder)
    (folder / "docs/new.md").write_text("# New\n\nSomething new.")

    def stopped(*_):
        raise KeyboardInterrupt

    for name in ("write", "cut"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(rag, name, stopped)
            rag.update_index(args, embedder)
        assert len(rag.search(args, embedder, ["kettle"])[0]) == 5
    rag.update_index(args, embedder)
    assert len(rag.search(args, embedder, ["kettle"])[0]) == 6
    assert len(list((folder / "index").iterdir())) == 2, "index.json and one table: what the stopped update left is gone"


def test_a_first_build_that_was_killed_is_no_obstacle(rag, folder):
    (folder / "index/rag-part-dead.lance").mkdir(parents=True)
    rag.update_index(settings(folder), Embedder())
    assert (folder / "index/index.json").is_file()


def test_a_folder_of_somebody_else_is_left_alone(rag, folder):
    with pytest.raises(SystemExit, match="an index made by rag.py"):
        rag.update_index(settings(folder, index=folder / "docs"), Embedder())
    assert (folder / "docs/rill.md").is_file()


def test_another_embedder_is_refused_until_the_documents_are_indexed_again(rag, folder):
    args = settings(folder)
    rag.update_index(args, Embedder(64))
    with pytest.raises(SystemExit, match="--embedder"):
        rag.search(args, Embedder(32), ["kettle"])
    rag.update_index(args, Embedder(32))
    assert rag.search(args, Embedder(32), ["kettle"])[0]


def test_hybrid_search_adds_the_reciprocal_ranks_of_both_searches(rag, folder):
    embedder = Embedder()
    rag.update_index(settings(folder), embedder)
    ranks = {}
    for mode in ("vector", "keyword"):
        for rank, hit in enumerate(rag.search(settings(folder, mode=mode), embedder, ["the filter of the oven"])[0], start=1):
            ranks.setdefault(hit["content"], []).append(1 / (60 + rank))
    hybrid = rag.search(settings(folder), embedder, ["the filter of the oven"])[0]
    assert {hit["content"]: pytest.approx(hit["score"]) for hit in hybrid} == {content: sum(some) for content, some in ranks.items()}
    assert [hit["score"] for hit in hybrid] == sorted((hit["score"] for hit in hybrid), reverse=True)


# ---------------------------------------------------------------- answers and scores


def test_what_was_found_stands_before_the_question_and_an_own_instruction_stays(rag):
    hits = [{"content": "A"}, {"content": "B"}]
    plain = rag.reading_prompt([{"role": "user", "content": "Why?"}], hits, "No idea.")
    assert [t["role"] for t in plain] == ["system", "user"] and "No idea." in plain[0]["content"] and plain[1]["content"] == "A\n\nB\nQuestion: Why?"
    own = rag.reading_prompt([{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}], hits, "No idea.")
    assert own[0]["content"] == "Be short." and len(own) == 2


def test_where_nothing_is_near_the_model_is_not_asked(rag, monkeypatch):
    rows = [{"id": str(n), "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "gold"}]} for n in range(2)]
    hits = [[{"doc": "d", "content": "The door is red.", "closest": 0.9}], [{"doc": "d", "content": "The door is red.", "closest": 0.1}]]
    monkeypatch.setattr(rag, "load_model", lambda source: ("tokenizer", "model"))
    asked = []
    monkeypatch.setattr(rag, "generate", lambda t, m, prompts, *_: asked.extend(prompts) or [{"answer": "red"} for _ in prompts])
    args = Namespace(chunks=1, refusal="Not in our documents.", min_cosine=0.25, model="m", max_new_tokens=4)
    made = rag.answer(args, rows, hits)
    assert len(asked) == 1 and [one["answer"] for one in made] == ["red", "Not in our documents."]
    assert (made[0]["sources"], made[0]["stands_in"]) == (["d"], "d") and (made[1]["sources"], made[1]["stands_in"]) == ([], None)


@pytest.mark.parametrize("a, b, same", [
    ("Every 11 weeks.", "every 11 weeks", True), ("0.7 bar", "7 bar", False), ("1,250 rpm", "1250 rpm", True), ("12:30", "12 30", False),
    ("साफ करें।", "साफ करें", True), ("की", "का", False), ("24.50", "24.5", False),
])
def test_words_compare_what_is_said_and_not_how_it_is_set(rag, a, b, same):
    assert (rag.words(a) == rag.words(b)) is same


def test_an_answer_is_contained_by_whole_words_only(rag):
    assert rag.holds("It is 640 rpm at most.", "640 rpm") and not rag.holds("It is 1640 rpm", "640 rpm") and not rag.holds("anything", "")


def test_scores_by_hand(rag):
    def row(gold, **more):
        return {"id": gold, "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": gold}], **more}

    rows = [row("red", sources=["a", "b"]), row("blue", accepted="azure"), row("Not in our documents."), row("green", accepted=[])]
    hits = [[{"doc": "a", "closest": 0.5}, {"doc": "a", "closest": 0.5}, {"doc": "c", "closest": 0.5}]] + [[]] * 3
    said = ["It is red.", "Azure", "purple", "not in our documents"]
    made = [{"gold": r["messages"][1]["content"], "answer": s, "stands_in": "a" if n == 0 else None} for n, (r, s) in enumerate(zip(rows, said))]
    scores = rag.judge(Namespace(refusal="Not in our documents."), rows, hits, made)
    means = {name: (mean, n) for name, (mean, _, _, n) in scores.items()}
    assert means["exact"] == (0.25, 4) and means["contains"] == (0.5, 4) and means["refusal accuracy"] == (0.5, 4)
    assert means["refuses, answerable"] == (0.3333, 3) and means["refuses, unanswerable"] == (0.0, 1)
    assert means["recall@1"] == (0.5, 1) and means["recall@5"] == (0.5, 1) and means["stands in what was read"] == (0.3333, 3)


def test_intervals_stay_honest_at_none_of_n_and_are_a_bootstrap_else(rag):
    from helpers import evaluation

    low, high = rag.interval([0] * 12)[1:3]
    wilson = evaluation.proportion([0] * 12)
    assert (low, high) == (pytest.approx(wilson.low, abs=1e-4), pytest.approx(wilson.high, abs=1e-4)) and high > 0.2
    values = np.random.default_rng(0).random(60)
    ours, theirs = rag.interval(values), evaluation.bootstrap(values)
    assert ours[:3] == pytest.approx([theirs.estimate, theirs.low, theirs.high], abs=0.02) and ours[3] == 60


# ---------------------------------------------------------------- alone in an empty folder, with real models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from helpers import models

    folder, tokenizer = tmp_path_factory.mktemp("models") / "tiny", models.load_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_eval_alone_in_an_empty_folder(folder, tiny):
    done = run(folder, "eval", "questions.jsonl", "--docs", "docs", "--model", str(tiny), "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / "rag-scores/metrics.json").read_text())["scores"]
    assert scores["recall@1"][0] == 1.0 and scores["recall@1"][3] == 2 and scores["refuses, unanswerable"][0] == 1.0
    made = [json.loads(line) for line in (folder / "rag-scores/predictions.jsonl").read_text().splitlines()]
    assert [one["id"] for one in made] == ["filter", "price", "hamlet"] and made[2]["answer"] == "Not in our documents." and made[2]["seconds"] == 0
    assert "every 11 weeks" in made[0]["prompt"][-1]["content"] and 0 < made[0]["completion_tokens"] <= 4 < made[0]["prompt_tokens"]
    assert "recall@1" in done.stdout and sorted(p.name for p in (folder / "rag-scores").iterdir()) == ["metrics.json", "predictions.jsonl"]


def test_ctrl_c_leaves_nothing_half_written(folder, tiny):
    command = [sys.executable, "-I", "rag.py", "eval", "questions.jsonl", "--docs", "docs", "--model", str(tiny), "--max-new-tokens", "1500"]
    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    while "embedded" not in child.stderr.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert child.wait(300) == 130 and "Stopped" in child.stderr.read()
    assert not (folder / "rag-scores").exists() and (folder / "rag-index/index.json").is_file()
