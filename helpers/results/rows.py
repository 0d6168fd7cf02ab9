"""Rows of results in files: with what they were measured, which are out of date, stored whole."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable, Sequence

import torch

from helpers import data, evaluation, models

FOLDER = Path(__file__).parents[2] / "lessons" / "results"
LIBRARIES = ("torch", "transformers", "peft", "trl")
FILES = {
    "extract": ("extract/tickets.jsonl",), "tone": ("tone/messages.jsonl",), "reply": ("reply/replies.jsonl", "knowledge/articles.jsonl"),
    "answer": ("answer/questions.jsonl", "knowledge/articles.jsonl", "knowledge/facts.jsonl"),
    "random": (),  # random token ids, made by the run
}


@dataclass(frozen=True)
class Family:
    """Rows that stand in one file and are made in one way. `runs` are its recipes: frozen dataclasses with a `need`."""

    name: str
    runs: Sequence[Any]
    measure: Callable[[Any], dict[str, Any]]
    minutes: str

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.jsonl"

    def find(self, recipe: Any, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """The row of a recipe, if it was measured with this model on today's data. Library versions are not compared."""
        now = {"model": models.model_name(), "data": data_hash(recipe.need)}
        same = [r for r in rows if r["recipe"] == asdict(recipe) and now.items() <= r["provenance"].items()]
        return same[-1] if same else None

    def due(self, rows: Sequence[dict[str, Any]], need: str | None = None, force: bool = False) -> list[int]:
        """Which of the runs, by number, have no row for this model and today's data; with `force`, all of the need."""
        return [n for n, recipe in enumerate(self.runs) if need in (None, recipe.need) and (force or self.find(recipe, rows) is None)]

    def stored(self, recipe: Any) -> dict[str, Any]:
        """The stored row of a recipe for today's data. Raises LookupError that says how to make it when there is none."""
        if (row := self.find(recipe, read(self.path))) is None:
            raise LookupError(f"{self.path}: expected a row of {recipe} measured on today's data, found none. "
                              f"Fix: python -m helpers.results --family {self.name} --need {recipe.need} ({self.minutes}), or check out the file with git.")
        return row


def read(path: Path) -> list[dict[str, Any]]:
    """The stored rows, in order; none when the file is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def store(row: dict[str, Any], path: Path) -> None:
    """Add a row in the place of the one with the same recipe and model; the file is replaced whole.

    Rows of the same need that were measured on other data than this one go: nobody can compare with them any more.
    """
    key = lambda r: (r["recipe"], r["provenance"]["model"])
    stale = lambda r: r["recipe"]["need"] == row["recipe"]["need"] and r["provenance"]["data"] != row["provenance"]["data"]
    rows = [r for r in read(path) if key(r) != key(row) and not stale(r)] + [row]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8", newline="\n")
    os.replace(part, path)


def data_hash(need: str) -> str:
    """SHA-256 of the files that hold a need's rows, line ends as on Linux: another data set, another hash."""
    return hashlib.sha256(b"".join((data.HERE / name).read_bytes().replace(b"\r\n", b"\n") for name in FILES[need])).hexdigest()


def provenance(need: str) -> dict[str, Any]:
    """With what and on what a row was measured: versions, processor, threads, data, commit, day (UTC)."""
    return {
        **{name: version(name) for name in LIBRARIES}, "python": platform.python_version(), "model": models.model_name(),
        "cpu": _cpu(), "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "data": data_hash(need), "commit": _commit(), "day": datetime.now(timezone.utc).date().isoformat(),
    }


def listed(found: evaluation.Interval, rows: int) -> list[float]:
    """An interval as it stands in a row: [estimate, low, high, rows]."""
    return [round(float(x), 3) for x in (found.estimate, found.low, found.high)] + [rows]


def interval(stored: Sequence[float]) -> evaluation.Interval:
    """The interval of a stored [estimate, low, high, rows]."""
    return evaluation.Interval(*stored[:3])


def share(right: Sequence[float]) -> list[float]:
    """[share of ones, low, high, rows] with Wilson's interval."""
    return listed(evaluation.proportion(right), len(right))


def _commit() -> str | None:
    """The commit of the course, marked `-dirty` when tracked files other than stored rows differ from it; None outside a git checkout."""
    root = FOLDER.parents[1]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short", "HEAD")
    if not commit:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!lessons/results")
    return commit + ("-dirty" if changed else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()
