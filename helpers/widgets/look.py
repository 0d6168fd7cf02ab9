"""Views on weights and on stored curves: ranks, 4-bit levels, learning rates, early stopping, answers side by side. Lessons 05 to 10."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

from helpers import plots
from helpers.decisions import evidence
from helpers.evaluation import Interval

from .view import Shown, View, choice, number, table

RATED = {"lora": "LoRA", "full": "all weights"}  # what the rate explorer compares
RANKS, BLOCKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), (32, 64, 128, 256, 1024)


# ---------------------------------------------------------------- weights


def rank_explorer(weight: Any | Mapping[str, Any]) -> View:
    """How much of a weight matrix, or of an update, its largest singular values hold. `weight`: one matrix, or name -> matrix to compare
    several; each of shape (rows, columns). Lesson 05.

    Raises ValueError for what is no matrix of at least 2 x 2.
    """
    spectra = {name: _spectrum(name, one) for name, one in (weight if isinstance(weight, Mapping) else {"the matrix": weight}).items()}
    ranks = [rank for rank in RANKS if rank <= min(len(values) for values, _ in spectra.values())]
    start = 16 if 16 in ranks else ranks[len(ranks) // 2]
    return View("Choose a rank. Which share of the matrix does it hold, and with which share of its numbers?",
                {"matrix": choice("Matrix", list(spectra)), "rank": choice("Rank", ranks, start)},
                lambda matrix, rank: spectrum_shown(*spectra[matrix], rank, matrix))


def _spectrum(name: str, weight: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """The singular values of a matrix, largest first, and its shape."""
    matrix = np.asarray(weight, dtype=float)
    if matrix.ndim != 2 or min(matrix.shape) < 2:
        raise ValueError(f"rank_explorer: expected a matrix of at least 2 x 2, got shape {matrix.shape} for {name}. "
                         "Fix: pass a layer's weight, as numbers.")
    return np.linalg.svd(matrix, compute_uv=False), matrix.shape


def spectrum_shown(spectrum: Sequence[float], shape: tuple[int, int], rank: int, name: str = "the matrix") -> Shown:
    """What the first `rank` singular values hold of a matrix: the share of its squared size, and of its numbers.

    Eckart and Young 1936: no matrix of this rank comes nearer. Raises ValueError for a rank outside 1 to the number of values.
    """
    values = np.asarray(spectrum, dtype=float)
    if not 1 <= rank <= len(values):
        raise ValueError(f"rank: expected 1 to {len(values)}, got {rank}. Fix: choose a rank that the matrix has.")
    total = float((values**2).sum()) or 1.0
    kept, numbers = float((values[:rank] ** 2).sum()) / total, rank * sum(shape) / (shape[0] * shape[1])
    where = sorted({1, rank, *np.unique(np.geomspace(1, len(values), 24).round().astype(int)).tolist()})
    title = f"Rank {rank} holds {kept:.2f} of {name}"
    figure = plots.loss_curves({"singular value": (where, [values[i - 1] for i in where])}, title, "number of the singular value, largest first",
                               "singular value", log=True)
    return Shown(f"Rank {rank} of {len(values)} holds {kept:.3f} of {name} (share of its squared size), stored with {numbers:.3f} of its numbers.",
                 figure)


def nf4_explorer(weights: Any) -> View:
    """How 16 levels and blocks of weights make rounding errors, and what one outlier does. `weights`: any shape. Lesson 06."""
    values = np.asarray(weights, dtype=np.float32).ravel()
    if len(values) < 64 or not np.isfinite(values).all():
        raise ValueError(f"nf4_explorer: expected at least 64 finite weights, got {len(values)}. Fix: pass a layer's weight, as numbers.")
    controls = {"scheme": choice("Levels", ("NF4", "FP4", "evenly spaced")), "block": choice("Weights in a block", BLOCKS, 64),
                "outlier": number("Largest weight, times (1: as it is)", 1.0)}
    return View("Make the largest weight ten times as large. How much does the error of the others grow in small blocks, how much in large ones?",
                controls, lambda **knobs: rounded_shown(values, **knobs))


def levels(scheme: str) -> np.ndarray:
    """The levels of a scheme from -1 to 1, ascending: the library's 16 of NF4 and of FP4, or 15 evenly spaced ones, of which zero is one."""
    if scheme == "evenly spaced":
        return np.linspace(-1, 1, 15)
    from bitsandbytes import functional

    return np.sort(functional.get_4bit_type(scheme.lower(), device="cpu").numpy())


def rounded(weights: np.ndarray, marks: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights divided by the largest of their block, and what they are after rounding to the nearest level; both shape (weights,)."""
    padded = np.pad(weights, (0, -len(weights) % block)).reshape(-1, block)
    scale = np.abs(padded).max(axis=1, keepdims=True)
    scaled = padded / np.where(scale == 0, 1, scale)
    nearest = marks[np.searchsorted((marks[:-1] + marks[1:]) / 2, scaled)]  # the middles are the borders
    return scaled.ravel()[: len(weights)], (nearest * scale).ravel()[: len(weights)]


def rounded_shown(weights: np.ndarray, scheme: str, block: int, outlier: float) -> Shown:
    """The relative error of rounding, for levels, a block size, and the largest weight made `outlier` times as large. Raises ValueError below 1."""
    if not 1 <= outlier <= 1e6:
        raise ValueError(f"outlier: expected 1 to 1,000,000 times the largest weight, got {outlier:g}. Fix: type 1 to leave the weights as they are.")
    changed, marks = weights.copy(), levels(scheme)
    largest = np.abs(changed).argmax()
    changed[largest] *= outlier
    scaled, back = rounded(changed, marks, block)
    others = np.arange(len(changed)) != largest
    error = float(np.linalg.norm((changed - back)[others]) / max(np.linalg.norm(changed[others]), 1e-30))
    size = "as it is" if outlier == 1 else f"{outlier:g} times as large"
    text = (f"{scheme}, blocks of {block}, the largest weight {size}: relative error {error:.3f} over all other weights; "
            f"{4 + 32 / block:.2f} bits a weight with 32-bit scales.")
    return Shown(text, plots.levels_over_weights(scaled, marks, f"{scheme}, blocks of {block}: error {error:.3f}"))


# ---------------------------------------------------------------- stored curves


def rate_explorer(rows: evidence.Rows | None = None) -> View:
    """Scores of LoRA and of all weights over learning rates, from stored rows, side by side. Lesson 07.

    Raises ValueError where a method was not measured.
    """
    rows = evidence.stored_rows() if rows is None else rows
    points = {method: stored_rates(rows, method) for method in RATED}
    controls = {method: choice(f"Learning rate, {name}", [(f"{rate:g}", rate) for rate, _ in points[method]], _middle(points[method]))
                for method, name in RATED.items()}
    return View("Find the learning rate with the best score for LoRA and for all weights. How many times as large is LoRA's?", controls,
                lambda **rates: rates_shown(points, rates))


def stored_rates(rows: evidence.Rows, method: str) -> list[tuple[float, Interval]]:
    """Learning rate and score of every stored run of a method, on validation rows of `tone`. Raises ValueError where none is stored."""
    found = evidence.pick(rows, "tuning", need="tone", method=method, split="validation", rank=16, targets="all-linear", loss_on="answer",
                          start="pretrained")
    if not found:
        raise ValueError(f"rate_explorer: expected stored runs of {RATED[method]}, found none. Fix: {evidence.command('tuning', 'tone')}.")
    return sorted((row["recipe"]["learning_rate"], evidence.interval(row["score"])) for row in found)


def rates_shown(points: Mapping[str, Sequence[tuple[float, Interval]]], rates: Mapping[str, float]) -> Shown:
    """The score at the chosen rate of each method, whether it is the best measured one, and how far the rates lie apart."""
    lines, chosen = [], []
    for method, rate in rates.items():
        score, best = dict(points[method])[rate], max(one.estimate for _, one in points[method])
        verdict = "the best of its runs" if score.estimate == best else f"not the best of its {len(points[method])} runs"
        lines.append(f"{RATED[method][0].upper()}{RATED[method][1:]} at {rate:g}: {score} right, {verdict}.")
        chosen.append(f"{RATED[method]} at {rate:g}: {score.estimate:.2f}")
    times = rates["lora"] / rates["full"]
    lines.append(f"LoRA's rate is {times:.3g} times that of all weights." if times != 1 else "Both rates are the same.")
    figure = plots.score_curves({RATED[method]: some for method, some in points.items()}, ", ".join(chosen),
                                "learning rate", "right tones, share of validation rows", log=True)
    return Shown("\n".join(lines), figure)


def _middle(points: Sequence[tuple[float, Any]]) -> float:
    return points[len(points) // 2][0]


def stopping_explorer(rows: evidence.Rows | None = None) -> View:
    """When early stopping stops, on stored validation losses. Lesson 10."""
    rows = evidence.stored_rows() if rows is None else rows
    runs = {_run_name(row): row for row in rows.get("overfit", ())}
    if not runs:
        raise ValueError(f"stopping_explorer: expected stored runs, found none. Fix: {evidence.command('overfit')}.")
    controls = {"run": choice("Run", list(runs)), "patience": choice("Patience (looks without a lower loss)", (1, 2, 3, 4))}
    return View("Compare patience 1 and 2. In how many of the runs does each keep the best moment, and how many steps does the larger one cost?",
                controls, lambda run, patience: stopped_shown(run, runs[run], patience))


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


def side_by_side(
    questions: Sequence[str], answers: Mapping[str, Sequence[str]], gold: Sequence[str], right: Mapping[str, Sequence[bool]] | None = None,
    row: int = 1,
) -> View:
    """The answers of several systems to the same rows, one row at a time, beside the right one. Lesson 09.

    `right`: system -> for each row, whether its answer counts as right; by default an answer is right if it is the right one letter by letter.
    `row`: the one shown first.
    Raises ValueError where the systems did not answer the same rows, or `right` speaks of other systems or rows.
    """
    if not answers or not len(questions) or any(len(said) != len(questions) for said in (*answers.values(), gold)):
        raise ValueError(f"side_by_side: expected as many answers of each system as questions, got {[len(said) for said in answers.values()]} for {len(questions)}. "
                         "Fix: answer the same rows with every system.")
    if right is None:
        right = {name: [text.strip() == best.strip() for text, best in zip(said, gold)] for name, said in answers.items()}
    elif set(right) != set(answers) or any(len(marks) != len(questions) for marks in right.values()):
        raise ValueError(f"side_by_side: expected `right` for {', '.join(answers)} with {len(questions)} rows each, got "
                         f"{ {name: len(marks) for name, marks in right.items()} }. Fix: mark every answer of every system.")
    controls = {"row": number(f"Row, 1 to {len(questions)}", row, whole=True)}
    return View("Find a row where the cheapest system is as good as the best one, and one where it is not.", controls,
                lambda row: answers_shown(questions, answers, gold, right, row))


def answers_shown(
    questions: Sequence[str], answers: Mapping[str, Sequence[str]], gold: Sequence[str], right: Mapping[str, Sequence[bool]], row: int,
) -> Shown:
    """One row: the question, the right answer, every system's, and whether it is right. Raises ValueError for a row that is not there."""
    if not 1 <= row <= len(questions):
        raise ValueError(f"row: expected 1 to {len(questions)}, got {row}. Fix: type a number in between.")
    marks = {name: bool(right[name][row - 1]) for name in answers}
    names = [name for name, mark in marks.items() if mark]
    text = f"Row {row} of {len(questions)}: right by {', '.join(names) if names else 'no system'}."
    return Shown(text, None, table(["who", "text", "right"], [["question", questions[row - 1], ""], ["right answer", gold[row - 1], ""],
                                                              *([name, said[row - 1], "yes" if marks[name] else "no"] for name, said in answers.items())]))
