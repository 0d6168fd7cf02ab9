"""What was measured on the desk's needs, read from the stored rows: scores with intervals, costs, and where each number stands.

Nothing here is typed in. A technique without rows is left out, and who asks for it is told the command that measures it. Lesson 01.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from helpers import data, evaluation, results
from helpers.evaluation import Interval

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
NEEDS = ("extract", "answer", "reply", "tone")
GIVEN = "few-shot, right article given"
LONGER = "LoRA trained longer"
PROMPTED, TUNED = ("zero-shot", "few-shot", GIVEN, "RAG"), ("LoRA", "QLoRA", "full", LONGER, "DoRA", "RAG + LoRA")
MATRIX = {"zero-shot": "zero-shot", "few-shot": "few-shot", "rag": "RAG", "lora": "LoRA", "qlora": "QLoRA", "full": "full", "dora": "DoRA",
          "rag+lora": "RAG + LoRA"}
NAMES = {"lora": "LoRA", "qlora": "QLoRA", "full": "full", "dora": "DoRA"}
SHOWN = ("need", "technique", "method", "split", "chunks", "k", "choice", "epochs", "learning_rate", "rows", "model", "what")


@dataclass(frozen=True)
class Cite:
    """A stored row that a sentence rests on: its file in lessons/results, its recipe, and what was read from it, in words."""

    family: str
    recipe: Mapping[str, Any]
    value: str

    def __str__(self) -> str:
        knobs = ", ".join(f"{k} {self.recipe[k]}" for k in SHOWN if self.recipe.get(k) not in (None, "", "random"))
        knobs += f", seed {self.recipe['seed']}" if self.recipe.get("seed") else ""
        return f"{self.family}.jsonl ({knobs}): {self.value}"


@dataclass(frozen=True)
class Measured:
    """One technique on one need. `each`: the score of every test row (mean over `seeds`), for paired comparisons, or None. `cite`: its row,
    or its rows where only the seed differs.

    `prompt_tokens` per request, `seconds` per request in a batch, `minutes` of training, `memory_gb` at the peak of training. `by_seed`: the score
    of each seed, of what was trained with several.
    """

    technique: str
    need: str
    score: Interval
    rows: int
    seeds: int
    cite: Cite
    each: tuple[float, ...] | None = None
    prompt_tokens: float | None = None
    seconds: float | None = None
    minutes: float | None = None
    memory_gb: float | None = None
    by_seed: tuple[float, ...] = ()


@cache
def _read(stamps: tuple[tuple[str, int], ...]) -> dict[str, list[dict[str, Any]]]:
    return {name: results.read(family.path) for name, family in results.FAMILIES.items()}


def stored_rows() -> Rows:
    """All stored rows by family; read again when a file has changed."""
    return _read(tuple((name, f.path.stat().st_mtime_ns if f.path.exists() else 0) for name, f in results.FAMILIES.items()))


def remembered(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what was computed for the rows seen last, the last argument: rows are only read, and a bootstrap takes a moment."""
    last: list[Any] = [None, {}]

    @wraps(compute)
    def found(*arguments: Any) -> Any:
        *key, rows = arguments
        if last[0] is not rows:
            last[:] = [rows, {}]
        if tuple(key) not in last[1]:
            last[1][tuple(key)] = compute(*arguments)
        return last[1][tuple(key)]

    return found


def pick(rows: Rows, family: str, /, **wanted: Any) -> list[Mapping[str, Any]]:
    """The rows of a family whose recipe has all the wanted values."""
    return [row for row in rows.get(family, ()) if all(key in row["recipe"] and row["recipe"][key] == value for key, value in wanted.items())]


def command(family: str, need: str | None = None) -> str:
    """The command that makes the rows of a family."""
    return f"python -m helpers.results --family {family}" + (f" --need {need}" if need else "")


def measuring(need: str) -> str:
    """The command that measures the tuned models of a need."""
    return command("matrix" if need in ("answer", "reply") else "tuning", need)


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """An interval as it is stored: [estimate, low, high, rows]."""
    return Interval(values[0], values[1], values[2], level)


def cite(row: Mapping[str, Any], family: str, value: str) -> Cite:
    """A citation of a row."""
    return Cite(family, row["recipe"], value)


@remembered
def measured(need: str, rows: Rows) -> dict[str, Measured]:
    """What was measured on the test rows of a need, by technique; techniques without rows are not in it.

    Rows of the decision matrix, where it has them, stand in the place of others.
    """
    found = [_prompted(need, rows), _zero_shot(need, rows), _retrieved(need, rows), _longer(need, rows)]
    found += [_tuned(need, method, rows) for method in NAMES] + [_in_matrix(need, technique, rows) for technique in MATRIX]
    by_name = {one.technique: one for one in found if one}
    order = (*PROMPTED, *TUNED)
    return {name: by_name[name] for name in order if name in by_name}


def lead(a: Measured, b: Measured) -> Interval | None:
    """How much better a is than b, row by row, with its interval; None where the rows of one are not stored."""
    if a.each is None or b.each is None or len(a.each) != len(b.each):
        return None
    return evaluation.compare_paired(a.each, b.each)


def best_prompt(need: str, rows: Rows) -> Measured | None:
    """The best prompt of a need, measured on its test rows."""
    found = measured(need, rows)
    return found.get("few-shot") or found.get(GIVEN) or found.get("zero-shot")


def best_tuned(need: str, rows: Rows) -> Measured | None:
    """The tuned model with the best score on a need; of equals, the one that trains less."""
    found = [one for name, one in measured(need, rows).items() if name in NAMES.values()]
    return max(found, key=lambda one: one.score.estimate, default=None)


@remembered
def learning_curve(rows: Rows) -> dict[int, Measured]:
    """Number of training rows -> the tuned model of `tone` with so many, over all measured seeds."""
    counts = sorted({row["recipe"]["rows"] for row in rows.get("tuning", ()) if row["recipe"].get("rows")})
    plain = {"need": "tone", "method": "lora", "split": "test", "noise": 0.0, "copies": 1}
    found = {count: pooled("LoRA", "tone", pick(rows, "tuning", rows=count, **plain)) for count in counts}
    return {count: one for count, one in found.items() if one}


@remembered
def enough_rows(rows: Rows) -> int | None:
    """The least measured number of training rows with which tuning beats the best prompt on `tone` (the paired interval excludes 0).

    None where no measured number does.
    """
    prompt = best_prompt("tone", rows)
    for count, one in learning_curve(rows).items():
        gain = lead(one, prompt) if prompt else None
        if gain and gain.low > 0:
            return count
    return None


def rivals(need: str, rows: Rows) -> tuple[Measured | None, Measured | None]:
    """What tuning is compared with on a need, without and with tuning: the best prompt or retrieval, and the best that is tuned."""
    return rivals_of(need, None, rows)


@remembered
def rivals_of(need: str, method: str | None, rows: Rows) -> tuple[Measured | None, Measured | None]:
    """As `rivals`, with one method (a key of NAMES) as the tuned one; the best tuned one where the method has no rows there, or is None."""
    found = measured(need, rows)
    if need == "answer":
        return found.get("RAG"), found.get("RAG + LoRA")
    if need == "reply":
        return found.get("RAG") or best_prompt(need, rows), found.get("RAG + LoRA")
    return best_prompt(need, rows), found.get(NAMES.get(method or "", "")) or best_tuned(need, rows)


@remembered
def gain(need: str, rows: Rows) -> tuple[str, Interval | None]:
    """What tuning gained on a need: "for", "against", "note" (within the interval) or "unknown", and the paired lead if there is one."""
    return gain_of(*rivals(need, rows))


def gain_of(plain: Measured | None, tuned: Measured | None) -> tuple[str, Interval | None]:
    """As `gain`, of two that are measured on the same need."""
    if not plain or not tuned:
        return "unknown", None
    found = lead(tuned, plain)
    low, high = (found.low, found.high) if found else (tuned.score.low - plain.score.high, tuned.score.high - plain.score.low)
    return "for" if low > 0 else "against" if high < 0 else "note", found


@remembered
def lead_of(first: str, second: str, need: str, rows: Rows) -> Interval | None:
    """The paired lead of one technique over another on a need; None where one of them is not measured."""
    found = measured(need, rows)
    return lead(found[first], found[second]) if first in found and second in found else None


@remembered
def facts_in(rows: Rows) -> tuple[Interval, Interval, Interval] | None:
    """Right answers of LoRA without documents and of retrieval, and the paired lead of LoRA, on the questions of `answer` that have an answer.

    A refusal is no knowledge, so unanswerable questions are left out. None where one of the two is not measured row by row.
    """
    found = measured("answer", rows)
    kinds = data.load_answer()["test"]["kind"]
    each = [found[name].each if name in found else None for name in ("LoRA", "RAG")]
    if any(one is None or len(one) != len(kinds) for one in each):
        return None
    tuned, read = ([score for score, kind in zip(one, kinds) if kind != "unanswerable"] for one in each)
    return evaluation.bootstrap(tuned), evaluation.bootstrap(read), evaluation.compare_paired(tuned, read)


def _prompted(need: str, rows: Rows) -> Measured | None:
    found = pick(rows, "prompts", need=need, split="test")
    if not found:
        return None
    row = found[-1]
    return Measured(GIVEN if need == "reply" else "few-shot", need, interval(row["score"]), row["rows"], 1,
                    cite(row, "prompts", str(interval(row["score"]))),
                    tuple(row["each"]), row["prompt_tokens"], row["seconds"])


def _zero_shot(need: str, rows: Rows) -> Measured | None:
    """The base model with the data's short instruction, on test rows: rows of a run without training."""
    if found := pick(rows, "tuning", need=need, method="none", split="test"):
        return pooled("zero-shot", need, found[-1:])
    for row in pick(rows, "difficulty", need=need, epochs=0):
        return Measured("zero-shot", need, interval(row["exact"]), row["rows"], 1, cite(row, "difficulty", str(interval(row["exact"]))),
                        (0.0,) * row["rows"] if row["exact"][0] == 0 else None)
    return None


def _retrieved(need: str, rows: Rows) -> Measured | None:
    for row in rows.get("reading", ()) if need == "answer" else ():
        one = row["1"]["retrieved"]
        return Measured("RAG", need, interval(one["right"]), one["right"][3], 1, cite(row, "reading", f"right {interval(one['right'])}"),
                        tuple(one["each"]), None, one["seconds"])
    return None


def _tuned(need: str, method: str, rows: Rows) -> Measured | None:
    """All seeds of a method on all rows of a need, trained equally long: of several lengths, that with the most seeds; of equals, the longest.

    For LoRA without such rows, the longer run of lesson 05's recipe."""
    plain = {"need": need, "method": method, "split": "test", "rows": None, "noise": 0.0, "copies": 1, "start": "pretrained", "rank": 16}
    found = pick(rows, "tuning", **plain)
    lengths = [row["recipe"]["epochs"] for row in found]
    if found:
        chosen = max(lengths, key=lambda epochs: (lengths.count(epochs), epochs))
        return pooled(NAMES[method], need, [row for row in found if row["recipe"]["epochs"] == chosen])
    return _difficulty("LoRA", need, rows) if method == "lora" else None


def _longer(need: str, rows: Rows) -> Measured | None:
    """The longer run of lesson 05's recipe, where the runs that compare the methods had fewer epochs."""
    short, long = _tuned(need, "lora", rows), _difficulty(LONGER, need, rows)
    return long if short and long and long.cite.recipe["epochs"] > short.cite.recipe["epochs"] else None


def _difficulty(technique: str, need: str, rows: Rows) -> Measured | None:
    longer = [row for row in pick(rows, "difficulty", need=need) if row["recipe"]["epochs"]]
    if not longer:
        return None
    row = longer[-1]
    return Measured(technique, need, interval(row["exact"]), row["rows"], 1, cite(row, "difficulty", str(interval(row["exact"]))),
                    minutes=row["minutes"], memory_gb=row["memory_gb"])


def _in_matrix(need: str, technique: str, rows: Rows) -> Measured | None:
    """All seeds of a cell of the decision matrix; of several numbers of sections, the one that was best on validation rows."""
    found = pick(rows, "matrix", need=need, technique=technique, split="test", edition=1)
    if len({row["recipe"].get("chunks") for row in found}) > 1:
        chosen = pick(rows, "matrix", need=need, technique=technique, split="validation", edition=1)
        if not chosen:
            return None
        best = max(chosen, key=lambda row: (row["score"][0], -row["prompt_tokens"]))["recipe"]["chunks"]
        found = [row for row in found if row["recipe"]["chunks"] == best]
    return pooled(MATRIX[technique], need, found, "matrix")


def pooled(technique: str, need: str, found: Sequence[Mapping[str, Any]], family: str = "tuning") -> Measured | None:
    """Rows that differ in their seed only, as one: every test row's score is its mean over the seeds."""
    if not found:
        return None
    found = sorted(found, key=lambda row: row["recipe"].get("seed", 0))
    each = np.mean([row.get("hits") or row["each"] for row in found], axis=0)
    score = interval(found[0]["score"]) if len(found) == 1 else evaluation.bootstrap(each)
    mean = lambda key: round(float(np.mean(values)), 3) if (values := [row[key] for row in found if row.get(key) is not None]) else None
    recipe = {key: value for key, value in found[0]["recipe"].items() if key != "seed" or len(found) == 1}
    source = Cite(family, recipe, str(score) + (f", mean of {len(found)} seeds" if len(found) > 1 else ""))
    return Measured(technique, need, score, len(each), len(found), source, tuple(map(float, each)), mean("prompt_tokens"), mean("seconds"),
                    mean("minutes"), mean("memory_gb"), tuple(row["score"][0] for row in found) if len(found) > 1 else ())
