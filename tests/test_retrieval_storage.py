"""The index on disk when things go wrong: killed writers, two writers, damaged files, another embedder, a full disk.

The embedder is a tiny real one (`words_embedder`): these tests are about storage. tests/test_retrieval.py uses the course's own.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from helpers import data
from helpers.retrieval import MODES, Chunk, Index, RetrievalError, by_section, index as module
from words_embedder import WordsEmbedder

PRELUDE = """
    import sys
    from pathlib import Path
    from helpers import data
    from helpers.retrieval import Chunk, Index, RetrievalError, by_section
    from words_embedder import WordsEmbedder
    folder = Path(sys.argv[1])
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    """Another Python process with the course and the tests on its path; its folder is the first argument."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], env={**os.environ, "PYTHONPATH": path},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def chunks(words: str, count: int = 40, edition: int = 1) -> list[Chunk]:
    return [Chunk(f"a{n}@{edition}/section/1", f"a{n}", edition, "T", "", f"{words} {n}") for n in range(count)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with an index of both editions, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("whole") / "index"
    index = Index(folder, WordsEmbedder())
    for edition in (1, 2):
        index.update(by_section(data.load_articles(edition)), edition)
    return folder


# ---------------------------------------------------------------- killed


@pytest.mark.trains  # takes a quarter of a minute or more
def test_killed_at_any_moment_the_index_holds_the_old_or_the_new_state(tmp_path):
    folder, rng = tmp_path / "index", random.Random(0)
    states = [sorted(chunks(words, count), key=lambda c: c.id) for words, count in (("old pump", 60), ("new filter", 45))]
    seen: set[str] = set()
    Index(folder, WordsEmbedder()).update(states[0], 1)  # so that from here on an empty index is a broken state
    for kill in range(40):
        if kill >= 8 and {"old", "new"} <= seen:  # eight kills or more, until both states were met
            break
        writer = start("""
            index = Index(folder, WordsEmbedder())
            print("ready", flush=True)
            while True:
                for words, count in (("old pump", 60), ("new filter", 45)):
                    index.update([Chunk(f"a{n}@1/section/1", f"a{n}", 1, "T", "", f"{words} {n}") for n in range(count)], 1)
        """, folder)
        assert writer.stdout.readline() == "ready\n", writer.stdout.read()
        time.sleep(rng.uniform(0.02, 0.4))
        writer.kill()
        writer.wait()
        index = Index(folder, WordsEmbedder())
        held = index.chunks()
        assert held in states, f"{len(held)} chunks: neither the old state nor the new one"
        seen.add(held[0].text.split()[0])
        # found by both kinds of search, whether or not the full-text index was brought up to date
        assert {h.article for h in index.search(held[0].text, mode="text", k=100)} == {c.article for c in held}
        assert len(index.search(held[0].text, mode="vector", k=100)) == len(held)
        update = index.update(states[0], 1)  # the next update does the rest
        assert (update.added + update.changed + update.same, len(index)) == (60, 60) and index.chunks() == states[0]
        assert index.table.index_stats("content_idx").num_unindexed_rows == 0
    assert {"old", "new"} <= seen


def test_killed_while_it_is_made_the_index_is_made_again(tmp_path):
    folder = tmp_path / "index"
    (folder / "new" / "chunks.lance" / "data").mkdir(parents=True)  # what a process leaves that is killed while it makes the table
    index = Index(folder, WordsEmbedder())
    assert index.update(chunks("pump"), 1).added == 40 and not (folder / "new").exists()


# ---------------------------------------------------------------- two at once


@pytest.mark.trains  # takes a quarter of a minute or more
def test_two_writers_wait_for_each_other_and_lose_nothing(tmp_path):
    folder = tmp_path / "index"
    code = """
        number = int(sys.argv[2])
        index = Index(folder, WordsEmbedder())
        for turn in range(10):
            words = f"turn {turn}"
            index.update([Chunk(f"a{n}@{number}/section/1", f"a{n}", number, "T", "", f"{words} {n}") for n in range(40)], number)
    """
    writers = [start(code, folder, number) for number in (1, 2)]
    out = [writer.communicate(timeout=100)[0] for writer in writers]
    assert [w.returncode for w in writers] == [0, 0], out
    index = Index(folder, WordsEmbedder())
    for edition in (1, 2):
        assert index.chunks(edition) == sorted(chunks("turn 9", edition=edition), key=lambda c: c.id)


def test_a_writer_that_waits_too_long_says_so_and_readers_never_wait(tmp_path, monkeypatch):
    index = Index(tmp_path / "index", WordsEmbedder())
    index.update(chunks("pump"), 1)
    holder = start("""
        import time
        from filelock import FileLock
        with FileLock(folder / "write.lock"):
            print("held", flush=True)
            time.sleep(60)
    """, index.folder)
    try:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(module, "WAIT", 0.2)
        with pytest.raises(RetrievalError, match="another process has been writing.*Fix: wait"):
            index.update(chunks("filter"), 1)
        assert index.search("pump")[0].article and Index(index.folder, WordsEmbedder()).search("pump")
    finally:
        holder.kill()
        holder.wait()
    assert index.update(chunks("filter"), 1).changed == 40  # the lock of a killed process is free


@pytest.mark.trains  # takes a quarter of a minute or more
def test_an_open_reader_sees_each_whole_state_while_another_process_writes(tmp_path):
    reader = Index(tmp_path / "index", WordsEmbedder())
    reader.update(chunks("one"), 1)
    writer = start("""
        index = Index(folder, WordsEmbedder())
        for turn in range(15):
            words = "two" if turn % 2 else "one"
            index.update([Chunk(f"a{n}@1/section/1", f"a{n}", 1, "T", "", f"{words} {n}") for n in range(40)], 1)
        index.update([Chunk(f"a{n}@1/section/1", f"a{n}", 1, "T", "", f"three {n}") for n in range(40)], 1)
    """, reader.folder)
    while writer.poll() is None:
        hits = reader.search("one two three", mode="vector", k=100)
        assert len(hits) == 40 and len({h.text.split()[0] for h in hits}) == 1
    assert writer.returncode == 0, writer.stdout.read()
    assert len(reader.search("three", mode="text", k=100)) == 40 and reader.search("one", mode="text") == []


# ---------------------------------------------------------------- damaged


def newest(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(f"chunks.lance/{pattern}"), key=lambda p: p.stat().st_size)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("pattern", ["_versions/*.manifest", "data/*.lance", "_indices/*/*.lance"])
@pytest.mark.parametrize("damage", [Path.unlink, truncate, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"\x00\xff" * 5000)],
                         ids=["missing", "truncated", "empty", "garbage"])
def test_a_damaged_index_gives_one_clear_error_and_nothing_is_deleted(whole, tmp_path, pattern, damage):
    folder = tmp_path / "index"
    shutil.copytree(whole, folder)
    for path in newest(folder, pattern):
        damage(path)
    before = files(folder)
    with pytest.raises(RetrievalError) as caught:
        index = Index(folder, WordsEmbedder())
        for mode in MODES:  # a damaged full-text index is met by the search that needs it
            index.search("drain filter", mode=mode)
    said = str(caught.value)
    assert said.startswith(f"{folder}: expected an index that can be read") and "Fix: delete the folder yourself and index again" in said
    assert len(said) < 400 + len(str(folder)) and "\n" not in said and caught.value.__suppress_context__
    assert files(folder) == before
    shutil.rmtree(folder)  # the fix works
    assert Index(folder, WordsEmbedder()).update(chunks("pump"), 1).added == 40


def test_a_folder_that_holds_a_file_or_another_table_is_refused(tmp_path):
    import lancedb

    (tmp_path / "file").write_text("mine")
    with pytest.raises(RetrievalError, match="expected a folder for the index, found a file"):
        Index(tmp_path / "file", WordsEmbedder())
    lancedb.connect(str(tmp_path / "other")).create_table("chunks", [{"vector": [1.0, 2.0], "text": "mine"}])
    with pytest.raises(RetrievalError, match="found a LanceDB table of another kind"):
        Index(tmp_path / "other", WordsEmbedder())
    assert (tmp_path / "file").read_text() == "mine"


class Backwards(WordsEmbedder):
    def encode(self, texts):
        return super().encode(texts)[:, ::-1].copy()


@pytest.mark.parametrize("embedder, said", [(WordsEmbedder(32), "vectors with 32 numbers.*found 64"), (Backwards(), "found that of another one")])
def test_the_folder_of_another_embedder_is_refused(whole, embedder, said):
    with pytest.raises(RetrievalError, match=said + ".*Fix: open it with the embedder that it was made with"):
        Index(whole, embedder)
    assert len(Index(whole, WordsEmbedder())) > 700


# ---------------------------------------------------------------- no room, no permission


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by setrlimit")
def test_a_full_disk_is_named_and_the_last_state_stays(tmp_path):
    index = Index(tmp_path / "index", WordsEmbedder())
    index.update(chunks("pump"), 1)
    writer = start("""
        import resource, signal
        index = Index(folder, WordsEmbedder())
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # no file can grow beyond 4 kB, as on a full disk
        try:
            index.update([Chunk(f"b{n}@1/section/1", f"b{n}", 1, "T", "", f"filter {n}") for n in range(4000)], 1)
        except RetrievalError as error:
            print(error)
    """, index.folder)
    said = writer.communicate(timeout=100)[0]
    assert said.count("\n") == 1 and "but the disk is full. Fix: free some space and update again" in said, said
    assert index.chunks() == sorted(chunks("pump"), key=lambda c: c.id) and len(index.search("pump", k=100)) == 40
    assert index.update(chunks("filter"), 1).changed == 40


def test_a_folder_that_cannot_be_written_can_still_be_searched(tmp_path):
    index = Index(tmp_path / "index", WordsEmbedder())
    index.update(chunks("pump"), 1)
    paths = [p for p in (tmp_path / "index").rglob("*")] + [tmp_path / "index"]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if os.access(tmp_path / "index", os.W_OK):
            pytest.skip("the administrator may write everywhere")
        reader = Index(tmp_path / "index", WordsEmbedder())
        assert len(reader.search("pump", k=100)) == 40
        with pytest.raises(RetrievalError, match="the system refuses it"):
            reader.update(chunks("filter"), 1)
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
