"""How retrieval behaves as it grows, from hundreds of chunks to a hundred thousand: distractors, latency, recall. Explained in lesson 03."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence, get_args

import numpy as np

from helpers import evaluation, models
from helpers.data import Product

from .chunks import Chunk
from .index import MODES, Embedder, Index, encode, unit

MAKER = "Pellwarth"
# Invented names are put together from these: 16 * 12 * 15 = 2,880 names that sound like no language's words.
PARTS = ("Vrum Zolv Gnar Thwe Skoz Brax Klim Drev Flont Quez Yarp Stulb Wrin Pluz Chov Grelt".split(),
         "ib ol un ek am uz of ip ad ug el ob".split(),
         "dwen gost plim frak zund mev tolb wisk hux rond vesk jart lumf bexa nirk".split())
WORDS = "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty".split()


# ---------------------------------------------------------------- distractors


def distractors(chunks: Sequence[Chunk], n: int, seed: int = 0) -> list[Chunk]:
    """`n` chunks as they might stand in other makers' manuals: near misses, and never a right answer.

    The chunks whose title names a product of the desk are repeated, once per *tile*. In each tile every product and the maker
    get another invented name, and every number another value of as many digits. Ids and articles begin with "distractor-",
    so no gold article is among them; edition and form are those of the original. Articles about no product (postage,
    returns) are left out: with other numbers they would contradict the desk's, and no question says whose are meant.

    The same arguments give the same chunks on every machine, and a smaller `n` gives the first of them. Raises ValueError
    when no title names a product. Explained in lesson 03.
    """
    names = (*get_args(Product), MAKER)
    named = re.compile(rf"\b({'|'.join(names)})\b")
    sources = [c for c in chunks if named.search(c.title)]
    if n and not sources:
        raise ValueError("distractors: expected chunks whose title names a product, found none. Fix: pass by_section(load_articles(edition)).")
    invented = ["".join(parts) for parts in itertools.product(*PARTS)]
    random.Random(f"names {seed}").shuffle(invented)
    made: list[Chunk] = []
    for tile in itertools.count():
        if len(made) >= n:
            return made[:n]
        rng = random.Random(f"{seed} {tile}")
        start = tile * len(names)
        new = {name: invented[(start + i) % len(invented)] for i, name in enumerate(names)}
        for chunk in rng.sample(sources, len(sources)):
            parts = {name: named.sub(lambda m: new[m[1]], _other_numbers(getattr(chunk, name), rng)) for name in ("title", "heading", "text")}
            made.append(replace(chunk, id=f"distractor-{tile}/{chunk.id}", article=f"distractor-{tile}-{chunk.article}", **parts))


def _other_numbers(text: str, rng: random.Random) -> str:
    """Each number with another value and as many digits; numbers of a list ("1. ") stay."""

    def other(match: re.Match[str]) -> str:
        old = match[0]
        if old[-1] == " ":
            return old
        if old.isdigit():
            low, high = 10 ** (len(old) - 1), 10 ** len(old) - 1
            new = rng.randint(low, high - 1)
            return str(new + (new >= int(old)) if int(old) >= low else new)  # any but the old one
        new = rng.choice([word for word in WORDS if word != old.lower()])
        return new.capitalize() if old[0].isupper() else new

    return re.sub(rf"^\d+\. |\d+|\b(?:{'|'.join(WORDS)})\b", other, text, flags=re.IGNORECASE | re.MULTILINE)


# ---------------------------------------------------------------- embed many texts


def embed(
    texts: Sequence[str], embedder: Embedder, cache_file: str | Path, *, batch: int = 1024, bf16: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Unit vectors of many texts, float32, shape (texts, dimensions), as a read-only memory map of `cache_file` (.npy).

    It may be stopped and called again: finished batches stay (`cache_file` with ".json" beside it counts them). `bf16`
    computes in bfloat16; by default where the processor is made for it (`models.has_fast_bf16`). `progress(done, all)` is called after
    each batch. Raises ValueError when the file belongs to other texts or another precision. Explained in lesson 03.
    """
    path = Path(cache_file)
    state_file = path.with_name(path.name + ".json")
    bf16 = models.has_fast_bf16() if bf16 is None else bf16
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    with _precision(bf16):
        width = encode(embedder, ["How wide is a vector?"]).shape[1]
    want = {"texts": digest, "shape": [len(texts), width], "bf16": bf16}
    state = json.loads(state_file.read_text()) if state_file.exists() else None
    if state and {k: state[k] for k in want} != want:
        raise ValueError(f"{path}: expected vectors of these {len(texts)} texts, found those of others, or in another precision. "
                         f"Fix: name another file, or delete this one and {state_file.name}.")
    if not state:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(texts), width)).flush()
        _write_state(state_file, state := want | {"done": 0})
    matrix = np.lib.format.open_memmap(path, mode="r+")
    for start in range(state["done"], len(texts), batch):
        end = min(start + batch, len(texts))
        with _precision(bf16):
            matrix[start:end] = encode(embedder, texts[start:end])
        matrix.flush()
        _write_state(state_file, state | {"done": end})
        if progress:
            progress(end, len(texts))
    return np.load(path, mmap_mode="r")


def _precision(bf16: bool):
    import torch

    return torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext()


def _write_state(file: Path, state: dict[str, Any]) -> None:
    fresh = file.with_name(file.name + ".part")
    fresh.write_text(json.dumps(state))
    os.replace(fresh, file)


# ---------------------------------------------------------------- latency


def latency(index: Index, questions: Sequence[str], vectors: np.ndarray | None = None, k: int = 5, least: int = 2000) -> dict[str, Any]:
    """How long one question takes, in milliseconds, on this index: by each way of searching, and by plain numpy beside it.

    `vectors`: those of the questions, shape (questions, dimensions), if made earlier. Each entry has `median_ms` and `p95_ms` over
    the questions, one question at a time, after a warm-up. `embed` is the embedder alone (not measured when `vectors` are given);
    the others do not count it:

    - `exact`: LanceDB's vector search that compares with every chunk; its `recall` against numpy must be 1
    - `approximate`: LanceDB's index IVF-PQ (inverted lists, product quantisation; Jégou et al. 2011, IEEE TPAMI 33): 1 % of the
      vectors are compared, short codes first, the best 10 k again in full. `recall` is the share of its k that are as close as numpy's k best; `build_s` the seconds to build it. From `least` chunks on: fewer are too few to learn the lists from. It is dropped again
    - `text`, `hybrid`: as `Index.search` does them, whole
    - `numpy`: a matrix of all vectors in memory, `matrix @ question`, then `argpartition`

    Raises ValueError without questions. Explained in lesson 03.
    """
    if not len(questions):
        raise ValueError("latency: expected questions, got none. Fix: pass those of a split of load_answer.")
    result: dict[str, Any] = {"chunks": len(index), "questions": len(questions), "k": k}
    if vectors is None:
        found, result["embed"] = _timed(lambda q, _: encode(index.embedder, [q])[0], questions, questions)
        vectors = np.stack(found)
    vectors = unit(vectors, len(questions))
    stored = index.table.search().select(["id", "vector"]).to_arrow()
    matrix, ids = np.stack(stored["vector"].to_numpy()), np.array(stored["id"].to_pylist())

    def brute(_: str, vector: np.ndarray) -> list[str]:
        scores = matrix @ vector
        best = np.argpartition(-scores, min(k, len(scores) - 1))[:k]
        return list(ids[best[np.argsort(-scores[best])]])

    def vector_search(approximate: bool):
        def search(_: str, vector: np.ndarray) -> list[str]:
            query = index.table.search(vector, vector_column_name="vector").distance_type("cosine").select(["id", "_distance"]).limit(k)
            query = query.minimum_nprobes(probes).maximum_nprobes(probes).refine_factor(10) if approximate else query.bypass_vector_index()
            return query.to_arrow()["id"].to_pylist()

        return search

    row_of = {name: row for row, name in enumerate(ids)}

    def recall(found: list[list[str]]) -> float:  # by closeness, not by id: equal texts are equally good
        scores = [matrix[[row_of[name] for name in names]] @ vector for names, vector in zip(found, vectors)]
        last = [matrix[[row_of[name] for name in names]] @ vector for names, vector in zip(truth, vectors)]
        return float(np.mean([(s > t.min() - 1e-5).sum() / len(t) for s, t in zip(scores, last)]))

    truth, result["numpy"] = _timed(brute, questions, vectors)
    found, result["exact"] = _timed(vector_search(False), questions, vectors)
    result["exact"]["recall"] = recall(found)
    if len(index) >= least:
        lists = max(1, round(len(index) ** 0.5))
        probes = max(4, round(lists * 0.05))
        start = time.perf_counter()
        _build_approximate(index, lists)
        result["approximate"] = {"build_s": time.perf_counter() - start, "lists": lists, "probes": probes}
        try:
            found, times = _timed(vector_search(True), questions, vectors)
        finally:
            index.table.drop_index("vector_idx")
        result["approximate"] |= times | {"recall": recall(found)}
    for mode in ("text", "hybrid"):
        _, result[mode] = _timed(lambda q, v: index.search_many([q], k, mode, vectors=v[None]), questions, vectors)
    return result


def _build_approximate(index: Index, lists: int) -> None:
    from lancedb.index import IvfPq

    width = index.table.schema.field("vector").type.list_size
    codes = next(n for n in (width // 8, width // 4, width // 2, 1) if n and width % n == 0)
    index.table.create_index("vector", config=IvfPq(distance_type="cosine", num_partitions=lists, num_sub_vectors=codes), name="vector_idx")


def _timed(call: Callable[[Any, Any], Any], questions: Sequence[str], vectors: Sequence[Any]) -> tuple[list[Any], dict[str, float]]:
    call(questions[0], vectors[0])
    found, milliseconds = [], []
    for question, vector in zip(questions, vectors):
        start = time.perf_counter()
        found.append(call(question, vector))
        milliseconds.append((time.perf_counter() - start) * 1000)
    return found, {"median_ms": float(np.median(milliseconds)), "p95_ms": float(np.quantile(milliseconds, 0.95))}


# ---------------------------------------------------------------- growth


def grow(
    sizes: Sequence[int], chunks: Sequence[Chunk], rows: Sequence[Mapping[str, Any]], embedder: Embedder, cache_file: str | Path, *,
    k: int = 5, seed: int = 0, folder: str | Path | None = None, progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """For each size, an index of the desk's chunks and as many distractors as it takes; one dictionary of measurements each.

    `chunks`: of one edition; `rows`: of `data.load_answer` in that edition, such as the test split (unanswerable questions are left
    out). Vectors come from `cache_file` (see `embed`), which is filled for the largest size first. Indexes are made in `folder`
    (by default a temporary one) and deleted again.

    Keys: chunks, index_s (seconds to store and index, embedding aside), megabytes (of the folder), recall (mode -> [estimate,
    low, high] of recall@k of the gold articles, bootstrap over rows), latency (see `latency`). Raises ValueError for sizes
    below the number of chunks. Explained in lesson 03.
    """
    if not sizes or min(sizes) < len(chunks):
        raise ValueError(f"grow: expected sizes of at least {len(chunks)}, the desk's own chunks, got {list(sizes)}. "
                         f"Fix: start with {len(chunks)}.")
    rows = [row for row in rows if row["articles"]]
    questions, gold = [row["messages"][1]["content"] for row in rows], [row["articles"] for row in rows]
    everything = [*chunks, *distractors(chunks, max(sizes) - len(chunks), seed)]
    matrix = embed([c.content for c in everything], embedder, cache_file, progress=progress)
    asked = encode(embedder, questions)
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            index = Index(Path(place) / "index", embedder)
            start = time.perf_counter()
            index.update(everything[:size], chunks[0].edition, vectors=matrix[:size])
            seconds = time.perf_counter() - start
            megabytes = sum(f.stat().st_size for f in index.folder.rglob("*") if f.is_file()) / 1e6
            recall = {}
            for mode in MODES:
                found = index.search_many(questions, k, mode, vectors=None if mode == "text" else asked)
                score = evaluation.bootstrap(evaluation.recall_at_k([[hit.article for hit in hits] for hits in found], gold, k))
                recall[mode] = [score.estimate, score.low, score.high]
            yield {"chunks": size, "index_s": seconds, "megabytes": megabytes, "recall": recall, "latency": latency(index, questions, k=k)}
