"""What tuning costs in a case, and what it saves: memory and hours predicted by `helpers.costs`, money, months until it is paid. Lesson 01."""

from __future__ import annotations

import math
from dataclasses import dataclass

from helpers import costs

from . import evidence
from .answers import Answers
from .breakeven import break_even, break_even_months, request_price
from .evidence import Cite, Rows

METHODS = ("lora", "qlora", "full")
EPOCHS = 2  # times through the rows, as in the measured runs of `tone`
SETUPS = ({"batch": 4}, {"batch": 1, "checkpointing": True})  # as the lessons train, and the smallest


@dataclass(frozen=True)
class Bill:
    """The costs of tuning by one method. Money in the currency of the answers.

    `peak_gb`: predicted peak memory of the setup; `fits`: whether the machine holds it. `hours` of training on as many rows as were enough
    on `tone`, `hours_all` on all good rows; None where nobody knows. `rows_to_make`: rows that lack to as many.
    `once`: money for the person's hours, for those rows and for training on them; None without `hours`.
    `tokens_before`, `tokens_after`: of a prompt; `requests` and `months` until the training is paid, infinite where nothing is saved.
    """

    method: str
    setup: costs.Setup
    peak_gb: float
    fits: bool
    hours: float | None
    hours_all: float | None
    rows_to_make: int
    once: float | None
    tokens_before: float
    tokens_after: float | None
    requests: float | None
    months: float | None
    cites: tuple[Cite, ...]

    @property
    def small(self) -> str:
        """The setup of the predicted peak in words."""
        return f"batch {self.setup.batch}" + (", checkpointing" if self.setup.checkpointing else "")

    def __str__(self) -> str:
        """The bill in a few lines."""
        lines = [f"{evidence.NAMES[self.method]}: predicted peak {self.peak_gb:.1f} GB ({self.small}), {'fits' if self.fits else 'does not fit'}"]
        lines.append("training time not known: measure a few steps" if self.hours is None else
                     f"training: about {self.hours:.1f} hours on as many rows as were enough here, {self.hours_all:.1f} on all good rows")
        lines.append(f"rows still to make: {self.rows_to_make:,}")
        if self.once is not None:
            lines.append(f"tuning once, people and machine: {self.once:,.2f}")
        if self.tokens_after is not None:
            lines.append(f"prompt tokens per request: {self.tokens_before:,.0f} now, about {self.tokens_after:,.0f} tuned")
        if self.months is not None:
            lines.append("never paid by saved tokens" if math.isinf(self.months) else
                         f"paid by saved tokens after {self.requests:,.0f} requests, {self.months:,.1f} months")
        return "\n".join(lines)


def bill(answers: Answers, method: str, rows: Rows) -> Bill:
    """The bill of tuning by a method: "lora", "qlora" or "full". Raises costs.CostsError for a config that cannot be read."""
    setup, peak = setup_for(answers, method)
    enough = evidence.enough_rows(rows) or answers.good_rows
    hours, hours_all = (training_hours(answers, setup, rows, count) for count in (enough, answers.good_rows))
    to_make = max(enough - answers.good_rows, 0)
    people = (answers.effort_hours + to_make * answers.row_minutes / 60) * answers.wage
    once = None if hours is None else costs.price(hours * 3600, answers.per_hour) + people
    ratio, cites = shrink(answers.like, method, rows)
    after = None if ratio is None else answers.prompt_tokens * ratio
    requests = months = None
    if once is not None and after is not None:
        now, then = (request_price(tokens, answers.price) for tokens in (answers.prompt_tokens, after))
        months = break_even_months(once, now, then, answers.requests, answers.hosting)
        requests = break_even(once, now, then) if math.isinf(months) or not answers.hosting else months * answers.requests
    return Bill(method, setup, peak, peak <= answers.memory_gb, hours, hours_all, to_make, once, answers.prompt_tokens, after, requests, months,
                cites)


def setup_for(answers: Answers, method: str) -> tuple[costs.Setup, float]:
    """The first setup of SETUPS that fits into the machine's memory, else the smallest; with its predicted peak in GB."""
    precision = "float32" if answers.device == "cpu" else "bfloat16"
    for knobs in SETUPS:
        found = costs.predict(answers.config, method=method, length=answers.tokens_per_row, precision=precision, **knobs)
        if found.peak_gb <= answers.memory_gb:
            break
    return found.setup, found.peak_gb


def training_hours(answers: Answers, setup: costs.Setup, rows: Rows, count: int) -> float | None:
    """Hours of training on so many rows: as answered, else predicted for a CPU like the one of the stored rows; None for a GPU, which nobody measured here."""
    if answers.training_hours is not None:
        return answers.training_hours
    machine = stored_machine(rows) if answers.device == "cpu" else None
    if machine is None:
        return None
    step = costs.predict(answers.config, setup, machine=machine)
    return count * EPOCHS * answers.tokens_per_row / step.tokens * step.seconds / 3600


@evidence.remembered
def stored_machine(rows: Rows) -> costs.Machine | None:
    """The machine on which the rows of `costs` were measured; None without rows."""
    found = [costs.Machine(**row["machine"]) for row in rows.get("costs", ()) if "machine" in row]
    return costs.middle(found) if found else None


@evidence.remembered
def shrink(need: str, method: str, rows: Rows) -> tuple[float | None, tuple[Cite, ...]]:
    """How long a tuned model's prompt is against the best prompt of a need, and the rows that say so; of `tone` where the need has none.

    Of the method's rows where there are some."""
    for name in dict.fromkeys((need, "tone")):
        prompt, tuned = evidence.rivals_of(name, method, rows)
        if name == "tone" and (tuned is None or tuned.prompt_tokens is None):
            tuned = next(iter(reversed(evidence.learning_curve(rows).values())), None)
        if prompt and tuned and prompt.prompt_tokens and tuned.prompt_tokens:
            return min(tuned.prompt_tokens / prompt.prompt_tokens, 1.0), (
                Cite(prompt.cite.family, prompt.cite.recipe, f"{prompt.prompt_tokens:.0f} prompt tokens per request"),
                Cite(tuned.cite.family, tuned.cite.recipe, f"{tuned.prompt_tokens:.0f} prompt tokens per request"))
    return None, ()
