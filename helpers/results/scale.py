"""Search as the documents grow: the desk's sections among distractors, from hundreds of chunks to 100,000. Read in lesson 03."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from helpers import data, fetch, models, retrieval, training

from .rows import Family, provenance

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)


@dataclass(frozen=True)
class ScaleRecipe:
    """Sections of one edition and distractors up to `largest` chunks; the test questions of that edition are asked."""

    need: str = "answer"
    edition: int = 1
    largest: int = 100_000
    seed: int = 0


def measure(recipe: ScaleRecipe) -> dict[str, Any]:
    """One row of results: under `sizes`, what `retrieval.grow` measures at each size up to the largest, rounded.

    Times are of this machine and change with what else it does; recall does not. Vectors are kept in the course's cache folder
    until the row is done, so that an interrupted run goes on where it was.
    """
    source = provenance(recipe.need)
    chunks = retrieval.by_section(data.load_articles(recipe.edition))
    rows = list(data.load_answer(recipe.edition)["test"])
    cache = fetch.cache_dir() / "distractors.npy"
    sizes = [len(chunks), *(n for n in SIZES if len(chunks) < n <= recipe.largest)]
    steps = [_rounded(step) for step in retrieval.grow(sizes, chunks, rows, models.load_embedder(), cache, seed=recipe.seed, progress=_say)]
    for file in (cache, cache.with_name(cache.name + ".json")):
        file.unlink(missing_ok=True)
    return {"recipe": asdict(recipe), "sizes": steps, "questions": sum(bool(r["articles"]) for r in rows),
            "bf16": models.has_fast_bf16(), "memory_gb": round(training.peak_memory_gb(), 1), "provenance": source}


def _say(done: int, whole: int) -> None:
    print(f"   embedded {done:,} of {whole:,}", flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


SCALE = Family("scale", (ScaleRecipe(),), measure, "about half an hour")
