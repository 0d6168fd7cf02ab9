"""A search index on disk: LanceDB holds the chunks, their vectors and a full-text index. Explained in lesson 03."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Iterable, Iterator, Literal, Protocol, Sequence

import numpy as np

from .chunks import Chunk

# Read when lancedb is imported, which happens in the functions below. Its own hybrid search warns about itself at each call.
os.environ.setdefault("LANCEDB_LOG", "error")

Mode = Literal["hybrid", "vector", "text"]
MODES = ("hybrid", "vector", "text")
TABLE = "chunks"
DEPTH = 40  # how many results of each kind are fetched, at least: hybrid search fuses them, and equal scores are ordered among them
KEEP = timedelta(hours=1)  # how long versions that were replaced stay readable
WAIT = 60  # seconds that a writer waits for another one
PROBE = "The pump hums, and the display shows how long the programme still takes."  # by its vector, an embedder is recognised
SAME = 0.01  # how far that vector may lie from the stored one: processors differ by 1e-6, another model by 0.1 or more
COLUMNS = [field.name for field in fields(Chunk)]


class RetrievalError(RuntimeError):
    """An index that cannot be opened, written or asked; the message says how to mend it."""


class Embedder(Protocol):
    """Anything that turns texts into vectors, such as `models.load_embedder()`."""

    def encode(self, sentences: list[str]) -> Any:
        """Texts -> array of shape (texts, dimensions)."""


@dataclass(frozen=True)
class Update:
    """What `Index.update` found and did, in chunks; `embedded` counts texts that went through the embedder."""

    added: int
    changed: int
    removed: int
    same: int
    embedded: int


@dataclass(frozen=True)
class Hit(Chunk):
    """A chunk that was found: a whole copy, which stays readable when the index changes.

    `rank` counts from 1. `score`: higher is better; the cosine for vector search, BM25 for full text, the fused score for hybrid.
    """

    score: float
    rank: int


class Index:
    """Chunks with their vectors in a folder, ready to be searched; made when it is not there. Explained in lesson 03.

    Opening embeds no chunk, only one fixed sentence: its vector tells whether the folder was made with this embedder.
    Any number of processes may read while one writes: a search sees the last whole state, and a second writer waits.
    Raises RetrievalError when the folder cannot be read or written, or belongs to another embedder. Nothing is ever deleted
    to mend it.
    """

    def __init__(self, folder: str | Path, embedder: Embedder) -> None:
        import lancedb

        self.folder, self.embedder = Path(folder), embedder
        probe = encode(embedder, [PROBE])[0]
        if self.folder.exists() and not self.folder.is_dir():
            raise RetrievalError(f"{self.folder}: expected a folder for the index, found a file. Fix: name another folder.")
        if not self._path.exists():
            with self._writing():
                if not self._path.exists():  # another process may have made it while this one waited
                    self._create(probe)
        with self._storage():
            # consistency 0: each search looks first whether another process has written
            self.table = lancedb.connect(str(self.folder), read_consistency_interval=timedelta(0)).open_table(TABLE)
            stored = json.loads((self.table.schema.metadata or {}).get(b"course", b"{}")).get("probe")
            self.table.count_rows()
        self._check_embedder(probe, stored)

    def __len__(self) -> int:
        with self._storage():
            return self.table.count_rows()

    def editions(self) -> list[int]:
        """The editions that have chunks, in order."""
        return sorted(set(self._read(["edition"])["edition"].to_pylist()))

    def chunks(self, edition: int | None = None) -> list[Chunk]:
        """All stored chunks (of one edition), ordered by id."""
        table = self._read(COLUMNS, None if edition is None else f"edition = {int(edition)}")
        return sorted((Chunk(**row) for row in table.to_pylist()), key=lambda chunk: chunk.id)

    # ------------------------------------------------------------ write

    def update(self, chunks: Sequence[Chunk], edition: int, vectors: np.ndarray | None = None) -> Update:
        """Make the stored chunks of `edition` exactly the given ones; other editions stay as they are.

        Only texts that no stored chunk has, of whatever edition, are embedded: what edition 2 shares with edition 1 costs
        nothing. `vectors`, shape (chunks, dimensions), are taken instead of embedding, if given. The change is one commit:
        who is killed in the middle leaves the old or the new state, both whole, and the next update does the rest. Then the
        full-text index is brought up to date; until then, new chunks are searched without it. States that were replaced are
        deleted an hour later, so that a search which is under way does not lose them.

        Raises RetrievalError when two chunks have one id, a chunk is of another edition, another process keeps writing for
        a minute, or the disk is full.
        """
        _check_chunks(chunks, edition)
        with self._writing():
            stored = self._read(["id", "edition", "hash"])
            owner = dict(zip(stored["id"].to_pylist(), stored["edition"].to_pylist()))
            known = dict(zip(stored["id"].to_pylist(), stored["hash"].to_pylist()))
            if foreign := next((c.id for c in chunks if owner.get(c.id, edition) != edition), None):
                raise RetrievalError(f"update: expected ids that belong to edition {edition}, found {foreign!r} stored for edition "
                                     f"{owner[foreign]}. Fix: let the id of a chunk say its edition, as by_section and by_size do.")
            hashes = [_hash(chunk) for chunk in chunks]
            new = {chunk.id: digest for chunk, digest in zip(chunks, hashes)}
            removed = sum(of == edition and i not in new for i, of in owner.items())
            added, same = len(new.keys() - known.keys()), sum(known.get(i) == digest for i, digest in new.items())
            fresh = [n for n, chunk in enumerate(chunks) if known.get(chunk.id) != hashes[n]]
            embedded = 0
            if fresh or removed:
                matrix, embedded = self._vectors([chunks[n] for n in fresh], [hashes[n] for n in fresh],
                                                 None if vectors is None else np.asarray(vectors)[fresh])
                self._commit(chunks, hashes, edition, dict(zip(fresh, matrix)))
            self._tidy()
        return Update(added, len(new) - added - same, removed, same, embedded)

    def remove(self, articles: Iterable[str], edition: int | None = None) -> int:
        """Delete all chunks of some articles (in one edition, or in all), in one commit; return how many chunks that were."""
        wanted = sorted(set(articles))
        if not wanted:
            return 0
        where = f"article IN ({', '.join(map(_quoted, wanted))})" + ("" if edition is None else f" AND edition = {int(edition)}")
        with self._writing():
            with self._storage():
                count = self.table.count_rows(where)
                if count:
                    self.table.delete(where)
            self._tidy()
        return count

    # ------------------------------------------------------------ search

    def search(
        self, query: str, k: int = 5, mode: Mode = "hybrid", edition: int | None = None, weight: float | None = None,
    ) -> list[Hit]:
        """The `k` best chunks for a question, best first; fewer when there are no more.

        `mode`: "vector" compares the question's vector with every chunk's (exact search, cosine); "text" is full-text search
        (BM25 over word stems, without English stop words; every sign in the query is text, there is no query language);
        "hybrid" fuses the two by reciprocal rank (Cormack et al. 2009, SIGIR; LanceDB's RRFReranker with K = 60), or with a
        `weight` of the vector side from 0 to 1 by the weighted sum of both scores (LinearCombinationReranker).
        `edition` is filtered before the search, so there are `k` hits of that edition wherever it has that many chunks.

        Full text may find nothing, such as for a question in Devanagari when all chunks are English. The embedder
        all-MiniLM-L6-v2 is an English model: it reads Devanagari nearly letter by letter, so that vector and hybrid search give
        hits of little meaning. Raises RetrievalError for a blank query, k below 1, an unknown mode or edition, an empty index.
        """
        return self.search_many([query], k, mode, edition, weight)[0]

    def search_many(
        self, queries: Sequence[str], k: int = 5, mode: Mode = "hybrid", edition: int | None = None, weight: float | None = None,
        vectors: np.ndarray | None = None,
    ) -> list[list[Hit]]:
        """`search` for many questions: they are embedded together, which is faster; one list of hits per question.

        `vectors`, shape (queries, dimensions), are taken instead of embedding the questions, if given.
        """
        _check_search(queries, k, mode, weight)
        if edition is not None and not isinstance(edition, int):
            raise RetrievalError(f"search: expected an edition as a whole number or None, got {edition!r}. Fix: {self._editions_text()}")
        if mode == "text":
            vectors = [None] * len(queries)
        elif vectors is None:
            vectors = encode(self.embedder, list(queries)) if len(queries) else []
        found = [self._one(query, vector, k, mode, edition, weight) for query, vector in zip(queries, vectors, strict=True)]
        if not all(found):  # a search that finds nothing may be right, but not in an empty place
            if not len(self):
                raise RetrievalError(f"{self.folder}: expected chunks to search, found an empty index. "
                                     "Fix: call update with the chunks of an edition first.")
            if edition is not None and edition not in self.editions():
                raise RetrievalError(f"search: expected an edition that is in the index, got {edition}. Fix: {self._editions_text()}")
        return found

    def _one(self, query: str, vector: np.ndarray | None, k: int, mode: Mode, edition: int | None, weight: float | None) -> list[Hit]:
        from lancedb.query import MatchQuery
        from lancedb.rerankers import LinearCombinationReranker, RRFReranker

        with self._storage():
            words = MatchQuery(query, "content")  # plain words: a string could be read as a query language one day
            if mode == "vector":
                search = self.table.search(vector, vector_column_name="vector").distance_type("cosine").bypass_vector_index()
            elif mode == "text":
                search = self.table.search(words, query_type="fts")
            else:
                rerank = RRFReranker(return_score="all") if weight is None else LinearCombinationReranker(weight, return_score="all")
                fuse = rerank.rerank_hybrid
                rerank.rerank_hybrid = lambda text, near, worded: fuse(text, _ordered(near, "_distance"), _ordered(worded, "_score"))
                search = self.table.search(query_type="hybrid", vector_column_name="vector").vector(vector).text(words)
                search = search.distance_type("cosine").bypass_vector_index().rerank(rerank)
            if edition is not None:
                search = search.where(f"edition = {edition}", prefilter=True)
            own = {"vector": ["_distance"], "text": ["_score"], "hybrid": []}[mode]
            rows = search.select(COLUMNS + own).limit(max(DEPTH, 4 * k)).to_arrow().to_pylist()
        score = {"vector": lambda r: 1 - r["_distance"], "text": lambda r: r["_score"], "hybrid": lambda r: r["_relevance_score"]}[mode]
        # equal scores are ordered by closeness, then by id: else the order would tell of how the table was written
        rows.sort(key=lambda r: (-score(r), 2.0 if r.get("_distance") is None else r["_distance"], r["id"]))
        return [Hit(**{name: row[name] for name in COLUMNS}, score=float(score(row)), rank=rank) for rank, row in enumerate(rows[:k], start=1)]

    # ------------------------------------------------------------ storage

    @property
    def _path(self) -> Path:
        return self.folder / f"{TABLE}.lance"

    def _create(self, probe: np.ndarray) -> None:
        """An empty table, made aside and moved in whole."""
        import lancedb
        import pyarrow as pa
        from lancedb.index import FTS

        number = {"edition": pa.int32()}
        schema = pa.schema(
            [pa.field(name, number.get(name, pa.string()), nullable=False) for name in COLUMNS]
            + [pa.field("content", pa.string(), nullable=False), pa.field("hash", pa.string(), nullable=False),
               pa.field("vector", pa.list_(pa.float32(), len(probe)), nullable=False)],
            metadata={"course": json.dumps({"probe": [round(float(x), 7) for x in probe]})},
        )
        aside = self.folder / "new"
        with self._storage():
            shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed here
            table = lancedb.connect(str(aside)).create_table(TABLE, schema=schema)
            table.create_index("content", config=FTS(with_position=False))
            (aside / self._path.name).rename(self._path)
            aside.rmdir()

    def _read(self, columns: list[str], where: str | None = None):
        with self._storage():
            search = self.table.search().select(columns)
            return (search.where(where) if where else search).to_arrow()

    def _vectors(self, chunks: Sequence[Chunk], hashes: Sequence[str], given: np.ndarray | None) -> tuple[np.ndarray, int]:
        """The vectors of some chunks, and how many texts were embedded for them."""
        if given is not None:
            return unit(given, len(chunks)), 0
        wanted = dict(zip(hashes, (chunk.content for chunk in chunks)))
        stored = self._read(["hash"])["hash"].to_pylist() if wanted else []
        have: dict[str, np.ndarray] = {}
        if shared := wanted.keys() & set(stored):
            table = self._read(["hash", "vector"])
            matrix = np.stack(table["vector"].to_numpy())
            have = {digest: matrix[n] for n, digest in enumerate(table["hash"].to_pylist()) if digest in shared}
        missing = [digest for digest in wanted if digest not in have]
        if missing:
            have |= zip(missing, encode(self.embedder, [wanted[digest] for digest in missing]))
        return np.array([have[digest] for digest in hashes], dtype=np.float32), len(missing)

    def _commit(self, chunks: Sequence[Chunk], hashes: Sequence[str], edition: int, vectors: dict[int, np.ndarray]) -> None:
        import pyarrow as pa

        schema = self.table.schema
        # Every chunk of the edition goes in, so that what is not among them is deleted; a row that is the same is left
        # as it is, and so the zeros that stand here for its vector are never written.
        flat = np.zeros((len(chunks), schema.field("vector").type.list_size), dtype=np.float32)
        for n, vector in vectors.items():
            flat[n] = vector
        texts = [asdict(c) | {"content": c.content, "hash": h} for c, h in zip(chunks, hashes)]
        rows = pa.Table.from_pylist(texts, schema=schema.remove(schema.get_field_index("vector")))
        rows = rows.append_column(schema.field("vector"), pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1]))
        with self._storage():
            if not chunks:
                self.table.delete(f"edition = {int(edition)}")
                return
            merge = self.table.merge_insert("id").when_matched_update_all(where="target.hash != source.hash").when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(f"edition = {int(edition)}").execute(rows)

    def _tidy(self) -> None:
        """Take new chunks into the full-text index, put small files together, forget states older than `KEEP`."""
        with self._storage():
            if self.table.index_stats("content_idx").num_unindexed_rows or len(self.table.list_versions()) > 20:
                self.table.optimize(cleanup_older_than=KEEP)

    def _check_embedder(self, probe: np.ndarray, stored: list[float] | None) -> None:
        fix = "Fix: open it with the embedder that it was made with, or give another folder and index again."
        if stored is None:
            raise RetrievalError(f"{self.folder}: expected an index made by this course, found a LanceDB table of another kind. "
                                 "Fix: name another folder.")
        if len(stored) != len(probe):
            raise RetrievalError(f"{self.folder}: expected an index of vectors with {len(probe)} numbers, as this embedder makes, "
                                 f"found {len(stored)}. {fix}")
        if (away := float(np.linalg.norm(probe - np.array(stored)))) > SAME:
            raise RetrievalError(f"{self.folder}: expected an index made with this embedder, found that of another one: the same sentence "
                                 f"has another vector (distance {away:.2f}). A fine-tuned embedder is another one, too. {fix}")

    def _editions_text(self) -> str:
        return f"the index holds {', '.join(f'edition {e}' for e in self.editions()) or 'no edition'}; call update for another one."

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time. The system frees the lock of a process that was killed."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "write.lock", timeout=WAIT):
                yield
        except Timeout:
            raise RetrievalError(f"{self.folder}: expected to be the only writer, but another process has been writing for {WAIT} "
                                 "seconds. Fix: wait until it is done, or stop it, and update again.") from None
        except OSError as error:
            raise _storage_error(self.folder, error) from None

    @contextmanager
    def _storage(self) -> Iterator[None]:
        """Turn what the storage engine says into one sentence with a fix; Ctrl-C and the like pass."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RetrievalError):
            raise
        except BaseException as error:  # a panic of the engine is no Exception
            raise _storage_error(self.folder, error) from None


def encode(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of texts, float32, shape (texts, dimensions). Raises RetrievalError when the embedder gives something else."""
    return unit(embedder.encode(list(texts)), len(texts))


def unit(vectors: Any, rows: int) -> np.ndarray:
    """`vectors` as float32 of length 1. Raises RetrievalError unless they are finite, not zero, and `rows` many."""
    matrix = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(matrix, axis=-1, keepdims=True) if matrix.ndim == 2 else np.zeros(1)
    if matrix.ndim != 2 or len(matrix) != rows or not np.isfinite(lengths).all() or (lengths == 0).any():
        raise RetrievalError(f"expected {rows} vectors of finite numbers other than zero, got an array of shape {matrix.shape}. "
                             "Fix: check what the embedder's encode returns.")
    return matrix / lengths


def _storage_error(folder: Path, error: BaseException) -> RetrievalError:
    said = " ".join(str(error).split())
    low = said.lower()
    if any(words in low for words in ("no space left", "os error 28", "file too large", "os error 27", "quota")):
        return RetrievalError(f"{folder}: expected to write, but the disk is full. "
                              "Fix: free some space and update again; the index still holds its last whole state.")
    if any(words in low for words in ("permission denied", "read-only file system", "os error 13", "os error 30")):
        return RetrievalError(f"{folder}: expected a folder that can be read and written, but the system refuses it. "
                              "Fix: change its permissions, or name another folder.")
    if "conflict" in low:
        return RetrievalError(f"{folder}: another program changed the table at the same time. Fix: update again.")
    return RetrievalError(f"{folder}: expected an index that can be read, found files that are missing or damaged ({said[:100]}). "
                          "Fix: delete the folder yourself and index again; nothing was deleted.")


def _ordered(results: Any, by: str) -> Any:
    """Search results (an Arrow table), best first, equal ones by id: the engine leaves the order of equal ones open."""
    direction = "ascending" if by == "_distance" else "descending"
    return results.sort_by([(by, direction), ("id", "ascending")]) if len(results) else results


def _hash(chunk: Chunk) -> str:
    return hashlib.sha256(chunk.content.encode()).hexdigest()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _check_chunks(chunks: Sequence[Chunk], edition: int) -> None:
    if other := next((c for c in chunks if c.edition != edition), None):
        raise RetrievalError(f"update: expected chunks of edition {edition}, found {other.id!r} of edition {other.edition}. "
                             "Fix: update each edition by itself.")
    seen: set[str] = set()
    if twice := next((c.id for c in chunks if c.id in seen or seen.add(c.id)), None):
        raise RetrievalError(f"update: expected each id once, found {twice!r} twice. Fix: give every article one id, and cut in one way only.")


def _check_search(queries: Sequence[str], k: int, mode: str, weight: float | None) -> None:
    if isinstance(queries, str):
        raise RetrievalError("search_many: expected a list of questions, got one text. Fix: put it into a list, or call search.")
    if blank := [n for n, query in enumerate(queries) if not isinstance(query, str) or not query.strip()]:
        raise RetrievalError(f"search: expected a question in words, got {queries[blank[0]]!r}. Fix: ask something, or leave the search out.")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise RetrievalError(f"search: expected k of at least 1, got {k!r}. Fix: say how many chunks you want, such as 5.")
    if mode not in MODES:
        raise RetrievalError(f"search: expected a mode of {', '.join(MODES)}, got {mode!r}. Fix: choose one of them.")
    if weight is not None and (mode != "hybrid" or not 0 <= weight <= 1):
        raise RetrievalError(f"search: expected a weight from 0 to 1 with mode 'hybrid', got {weight!r} with {mode!r}. "
                             "Fix: leave it out, or search hybrid.")
