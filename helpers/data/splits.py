"""Split rows alike, describe the splits, and find rows that are nearly the same. Explained in lesson 04."""

from __future__ import annotations

import random
import re
import statistics
from collections import Counter, defaultdict
from typing import Any, Callable, Hashable, Mapping, NamedTuple, Sequence

import pandas as pd

from .contract import DataError, Row

SPLITS = ("train", "validation", "test")


def stratified_split(
    rows: Sequence[Row],
    by: Callable[[Row], Any],
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> dict[str, list[Row]]:
    """Split rows into train, validation and test so that each stratum `by(row)` is shared out alike.

    Each stratum is shuffled; its rows go, one at a time, to the split that is furthest behind its share, first of
    this stratum and then of the whole. So a stratum of any size is shared within two rows, and the totals hold as well.
    Raises DataError for fractions that are not three positive numbers with sum 1. Explained in lesson 04.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"fractions: expected three positive numbers with sum 1, found {tuple(fractions)}. "
                        "Fix: for example (0.7, 0.1, 0.2).")
    strata: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        strata[str(by(row))].append(index)
    rng = random.Random(seed)
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    done = 0
    for key in sorted(strata, key=lambda k: (-len(strata[k]), k)):
        indices = strata[key]
        rng.shuffle(indices)
        here = [0, 0, 0]
        for taken, index in enumerate(indices, start=1):
            done += 1
            behind = [
                (round(fractions[s] * taken - here[s], 9) > 0, fractions[s] * done - len(chosen[SPLITS[s]]), -s)
                for s in range(3)
            ]
            best = max(range(3), key=lambda s: behind[s])
            here[best] += 1
            chosen[SPLITS[best]].append(index)
    return {name: [rows[i] for i in sorted(indices)] for name, indices in chosen.items()}


def describe(splits: Mapping[str, Any], label: Callable[[Row], Any] | None = None) -> pd.DataFrame:
    """One row per split: rows, words per prompt (median, longest), characters per answer, and the label counts.

    `splits`: name -> rows in the chat contract; `label`: what to count, one value per row. The picture of it is
    `plots.split_bars`. Raises DataError for rows without `messages`.
    """
    table = {}
    for name, rows in splits.items():
        if any("messages" not in row for row in rows):
            raise DataError(f"describe: expected rows with `messages`, found the keys {', '.join(rows[0])} in {name}. "
                            "Fix: give it rows in the chat contract; of a preference pair, the prompt and the chosen reply.")
        prompts = [sum(len(m["content"].split()) for m in r["messages"][:-1] if m["role"] == "user") for r in rows]
        answers = [len(r["messages"][-1]["content"]) for r in rows]
        table[name] = {
            "rows": len(prompts),
            "words per prompt (median)": int(statistics.median(prompts or [0])),
            "words per prompt (longest)": max(prompts, default=0),
            "characters per answer (median)": int(statistics.median(answers or [0])),
        }
        if label:
            table[name].update({str(k): v for k, v in sorted(Counter(map(label, rows)).items(), key=lambda kv: str(kv[0]))})
    return pd.DataFrame.from_dict(table, orient="index").fillna(0).astype(int)


# ---------------------------------------------------------------- near duplicates


class Pair(NamedTuple):
    """Two rows that are nearly the same: their ids and the Jaccard likeness of their word n-grams, 0 to 1."""

    first: str
    second: str
    likeness: float


def prompt_of(row: Row) -> str:
    """What is asked in a row: the text of its user turns."""
    return "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")


def near_duplicates(
    rows: Sequence[Row], threshold: float = 0.5, *, text: Callable[[Row], str] = prompt_of, n: int = 4
) -> list[Pair]:
    """All pairs of rows whose texts share more than `threshold` of their word n-grams (Jaccard), the likest first.

    Candidates come from MinHash with locality-sensitive hashing (Broder 1997; the library datasketch), so a large file does
    not need every pair; each candidate is then compared exactly. A pair over the threshold is missed with a chance of at
    most 1 in 500. Raises DataError for a threshold below 0.05 or from 1 on, and for rows without an id of their own.
    Explained in lesson 04.
    """
    from datasketch import MinHash, MinHashLSH

    if not 0.05 <= threshold < 1:
        raise DataError(f"threshold: expected a share from 0.05 to below 1, found {threshold}. Fix: 0.5 finds rewritten copies, 0.9 exact ones.")
    grams: dict[str, set[tuple[str, ...]]] = {}
    for number, row in enumerate(rows, start=1):
        key = str(row.get("id", ""))
        if not key or key in grams:
            raise DataError(f"row {number}: expected an id of its own, found {row.get('id')!r}{' a second time' if key else ''}. Fix: number the rows first.")
        grams[key] = word_ngrams(text(row), n)
    permutations = 128
    per_band = max(r for r in range(1, 17) if r == 1 or (1 - threshold**r) ** (permutations // r) < 1e-3)
    index = MinHashLSH(num_perm=permutations, params=(permutations // per_band, per_band))
    keys = list(grams)
    hashes = MinHash.bulk(([" ".join(g).encode() for g in grams[key]] for key in keys), num_perm=permutations)
    found: list[Pair] = []
    for key, signature in zip(keys, hashes):
        for other in index.query(signature):
            if (likeness := jaccard(grams[key], grams[other])) > threshold:
                found.append(Pair(other, key, likeness))
        index.insert(key, signature)
    return sorted(found, key=lambda pair: -pair.likeness)


def leaks(
    splits: Mapping[str, Sequence[Row]], threshold: float = 0.35, *, text: Callable[[Row], str] = prompt_of, n: int = 4
) -> list[Pair]:
    """Near-duplicates whose two rows stand in different splits: what the model saw in training would be asked in the test.

    As `near_duplicates`. Raises DataError when one id stands in two splits, since that is a leak by itself.
    """
    home: dict[str, str] = {}
    for name, rows in splits.items():
        for row in rows:
            if str(row["id"]) in home:
                raise DataError(f"splits: expected each id once, found {row['id']!r} in {home[str(row['id'])]} and in {name}. Fix: split the rows again.")
            home[str(row["id"])] = name
    everything = [row for rows in splits.values() for row in rows]
    return [p for p in near_duplicates(everything, threshold, text=text, n=n) if home[p.first] != home[p.second]]


def word_ngrams(text: str, n: int = 4) -> set[tuple[str, ...]]:
    """The word n-grams of a text, lower case; a text of fewer words than n is one n-gram by itself."""
    words = re.findall(r"[\w\u0900-\u097f]+", text.lower())  # Devanagari vowel signs belong to their word
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def jaccard(a: set[Hashable], b: set[Hashable]) -> float:
    """Shared elements over all elements of two sets, 0 to 1; 0 when both are empty."""
    return len(a & b) / len(a | b) if a or b else 0.0
