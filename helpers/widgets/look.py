"""Views on weights and on stored curves: ranks, 4-bit levels, learning rates, early stopping, answers side by side. Lessons 05 to 10."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

from helpers import plots
from helpers.decisions import evidence

from .view import Shown, View, choice, number, table

RANKS, BLOCKS = (1, 2, 4, 8, 16, 32, 64, 128, 256), (32, 64, 128, 256, 1024)


# ---------------------------------------------------------------- weights


def rank_explorer(weight: Any) -> View:
    """How much of a weight matrix, or of an update, its largest singular values hold. `weight`: shape (rows, columns). Lesson 05."""
    matrix = np.asarray(weight, dtype=float)
    if matrix.ndim != 2 or min(matrix.shape) < 2:
        raise ValueError(f"rank_explorer: expected a matrix of at least 2 x 2, got shape {matrix.shape}. Fix: pass a layer's weight, as numbers.")
    spectrum = np.linalg.svd(matrix, compute_uv=False)
    ranks = [rank for rank in RANKS if rank <= len(spectrum)]
    return View("Which rank holds half of this matrix, which nine tenths? Then look at an update B A instead of a weight: what is the difference?",
                {"rank": choice("Rank", ranks, ranks[len(ranks) // 2])}, lambda rank: spectrum_shown(spectrum, matrix.shape, rank))


def spectrum_shown(spectrum: Sequence[float], shape: tuple[int, int], rank: int) -> Shown:
    """What the first `rank` singular values hold of a matrix: the share of its squared size, and of its numbers.

    Eckart and Young 1936: no matrix of this rank comes nearer. Raises ValueError for a rank outside 1 to the number of values.
    """
    values = np.asarray(spectrum, dtype=float)
    if not 1 <= rank <= len(values):
        raise ValueError(f"rank: expected 1 to {len(values)}, got {rank}. Fix: choose a rank that the matrix has.")
    total = float((values**2).sum()) or 1.0
    kept, numbers = float((values[:rank] ** 2).sum()) / total, rank * sum(shape) / (shape[0] * shape[1])
    where = sorted({1, rank, *np.unique(np.geomspace(1, len(values), 24).round().astype(int)).tolist()})
    title = f"Rank {rank} holds {kept:.2f} of this matrix"
    figure = plots.loss_curves({"singular value": (where, [values[i - 1] for i in where])}, title, "number of the singular value, largest first",
                               "singular value", log=True)
    return Shown(f"Rank {rank} of {len(values)}: {kept:.3f} of the matrix (its squared size), stored with {numbers:.3f} of its numbers.", figure)


def nf4_explorer(weights: Any) -> View:
    """How 16 levels and blocks of weights make rounding errors, and what one outlier does. `weights`: any shape. Lesson 06."""
    values = np.asarray(weights, dtype=np.float32).ravel()
    if len(values) < 64 or not np.isfinite(values).all():
        raise ValueError(f"nf4_explorer: expected at least 64 finite weights, got {len(values)}. Fix: pass a layer's weight, as numbers.")
    controls = {"scheme": choice("Levels", ("NF4", "FP4", "evenly spaced")), "block": choice("Weights in a block", BLOCKS, 64),
                "outlier": number("One weight, times the largest", 1.0)}
    return View("Which levels have the smallest error? Make one weight ten times as large as the largest: which block size suffers least?", controls,
                lambda **knobs: rounded_shown(values, **knobs))


def levels(scheme: str) -> np.ndarray:
    """The 16 levels of a scheme from -1 to 1, ascending: the library's NF4 and FP4, or evenly spaced ones."""
    if scheme == "evenly spaced":
        return np.linspace(-1, 1, 16)
    from bitsandbytes import functional

    return np.sort(functional.get_4bit_type(scheme.lower(), device="cpu").numpy())


def rounded(weights: np.ndarray, marks: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights divided by the largest of their block, and what they are after rounding to the nearest level; both shape (weights,)."""
    padded = np.pad(weights, (0, -len(weights) % block)).reshape(-1, block)
    scale = np.abs(padded).max(axis=1, keepdims=True)
    scaled = padded / np.where(scale == 0, 1, scale)
    nearest = marks[np.abs(scaled[..., None] - marks).argmin(axis=-1)]
    return scaled.ravel()[: len(weights)], (nearest * scale).ravel()[: len(weights)]


def rounded_shown(weights: np.ndarray, scheme: str, block: int, outlier: float) -> Shown:
    """The relative error of rounding, for levels, a block size, and one weight made `outlier` times the largest. Raises ValueError below 1."""
    if not 1 <= outlier <= 1e6:
        raise ValueError(f"outlier: expected 1 to 1,000,000 times the largest weight, got {outlier:g}. Fix: 1 leaves the weights as they are.")
    changed, marks = weights.copy(), levels(scheme)
    largest = np.abs(changed).argmax()
    changed[largest] *= outlier
    scaled, back = rounded(changed, marks, block)
    others = np.arange(len(changed)) != largest
    error = float(np.linalg.norm((changed - back)[others]) / max(np.linalg.norm(changed[others]), 1e-30))
    text = f"{scheme}, blocks of {block}: relative error {error:.3f} over all weights but the largest one; {4 + 32 / block:.2f} bits a weight with 32-bit scales."
    return Shown(text, plots.levels_over_weights(scaled, marks, f"{scheme}, blocks of {block}: error {error:.3f}"))


# ---------------------------------------------------------------- stored curves


def rate_explorer(rows: evidence.Rows | None = None) -> View:
    """Scores over learning rates, from stored rows. Lesson 07."""
    rows = evidence.stored_rows() if rows is None else rows
    return View("Which learning rate would you take for LoRA, and which for all weights? How far are they apart?",
                {"method": choice("Method", [("LoRA", "lora"), ("all weights", "full")])}, lambda method: rates_shown(rows, method))


def rates_shown(rows: evidence.Rows, method: str) -> Shown:
    """The stored scores of a method over its learning rates, validation rows of `tone`. Raises ValueError where none is stored."""
    found = evidence.pick(rows, "tuning", need="tone", method=method, split="validation", rank=16, targets="all-linear", loss_on="answer",
                          start="pretrained")
    points = sorted((row["recipe"]["learning_rate"], evidence.interval(row["score"])) for row in found)
    if not points:
        raise ValueError(f"{evidence.NAMES.get(method, method)}: not measured yet. Fix: {evidence.command('tuning', 'tone')}.")
    rate, best = max(points, key=lambda point: point[1].estimate)
    name = evidence.NAMES[method]
    figure = plots.score_curves({name: points}, f"{name}: best at a learning rate of {rate:g}", "learning rate",
                                "right tones, share of validation rows", log=True)
    worst = min(points, key=lambda point: point[1].estimate)
    return Shown(f"{name}: {len(points)} runs; best {best} at {rate:g}, worst {worst[1]} at {worst[0]:g}.", figure)


def stopping_explorer(rows: evidence.Rows | None = None) -> View:
    """When early stopping stops, on stored validation losses. Lesson 10."""
    rows = evidence.stored_rows() if rows is None else rows
    runs = {_run_name(row): row for row in rows.get("overfit", ())}
    if not runs:
        raise ValueError(f"stopping_explorer: expected stored runs, found none. Fix: {evidence.command('overfit')}.")
    controls = {"run": choice("Run", list(runs)), "patience": choice("Looks without a better loss that are allowed (patience)", (1, 2, 3, 4))}
    return View("Which patience would have kept the best moment of each run? What does a larger one cost?", controls,
                lambda run, patience: stopped_shown(run, runs[run], patience))


def stop_at(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The look at which training stops, and the look whose checkpoint is kept, both from 0: it stops after `patience` looks in a row without
    a lower loss. Raises ValueError for no losses or a patience below 1."""
    if not len(losses) or patience < 1:
        raise ValueError(f"stop_at: expected losses and a patience of 1 or more, got {len(losses)} and {patience}. Fix: patience=2.")
    best = 0
    for now, loss in enumerate(losses):
        if loss < losses[best]:
            best = now
        if now - best >= patience:
            return now, best
    return len(losses) - 1, best


def stopped_shown(name: str, row: Mapping[str, Any], patience: int) -> Shown:
    """Where a stored run would have stopped."""
    losses, every = row["validation"], row["every"]
    steps = [every * (n + 1) for n in range(len(losses))]
    end, best = stop_at(losses, patience)
    lowest = int(np.argmin(losses))
    verdict = "the best moment of the whole run" if best == lowest else f"not the best moment, which came at step {steps[lowest]} with {losses[lowest]:.3f}"
    text = f"{name}: stops after step {steps[end]} of {steps[-1]} and keeps step {steps[best]} with a validation loss of {losses[best]:.3f}: {verdict}."
    series = {"training": (steps, row["training"]), "validation": (steps, losses), "kept": ([steps[best]], [losses[best]]),
              "stops": ([steps[end]], [losses[end]])}
    return Shown(text, plots.loss_curves(series, f"Patience {patience} stops after step {steps[end]} and keeps step {steps[best]}"))


def _run_name(row: Mapping[str, Any]) -> str:
    knobs = row["recipe"]
    return f"{knobs['rows']} rows, rank {knobs['rank']}" + "".join(f", {k.replace('_', ' ')} {knobs[k]:g}" for k in ("dropout", "weight_decay") if knobs[k])


# ---------------------------------------------------------------- answers


def side_by_side(questions: Sequence[str], answers: Mapping[str, Sequence[str]], gold: Sequence[str]) -> View:
    """The answers of several systems to the same rows, one row at a time, beside the right one. Lesson 09.

    Raises ValueError where the systems did not answer the same rows.
    """
    if not answers or not len(questions) or any(len(said) != len(questions) for said in (*answers.values(), gold)):
        raise ValueError(f"side_by_side: expected as many answers of each system as questions, got {[len(said) for said in answers.values()]} for {len(questions)}. "
                         "Fix: answer the same rows with every system.")
    controls = {"row": number(f"Row, 1 to {len(questions)}", 1, whole=True)}
    return View("Find a row where the cheapest system is as good as the best one, and one where it is not.", controls,
                lambda row: answers_shown(questions, answers, gold, row))


def answers_shown(questions: Sequence[str], answers: Mapping[str, Sequence[str]], gold: Sequence[str], row: int) -> Shown:
    """One row: the question, the right answer, and every system's. Raises ValueError for a row that is not there."""
    if not 1 <= row <= len(questions):
        raise ValueError(f"row: expected 1 to {len(questions)}, got {row}. Fix: type a number in between.")
    said = {name: texts[row - 1] for name, texts in answers.items()}
    same = [name for name, text in said.items() if text.strip() == gold[row - 1].strip()]
    text = f"Row {row} of {len(questions)}: answered as the right answer by {', '.join(same) if same else 'no system'}."
    return Shown(text, None, table(["who", "text"], [["question", questions[row - 1]], ["right answer", gold[row - 1]],
                                                     *([name, one] for name, one in said.items())]))
