"""The worksheet: the questions to ask before any tuning, as a typed form. Explained in lesson 01.

The questions follow the lesson "Fine-tuning your LLM" of the source documents (use case, alternatives, costs, benefits) and their text on
retrieval against tuning (does the data change, must sources be shown, how good and how many are the rows).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Mapping, NamedTuple

from helpers.evaluation import Interval

from .errors import DecisionError

MISSING = {
    "format": "answers in a fixed form, such as a record or a call",
    "labels": "one of a few labels of your own",
    "style": "the wording and tone of your house",
    "facts": "facts that stand in your documents",
    "skill": "a skill that the model has only weakly, such as your code framework or a language pair",
}
HOSTS, DEVICES = ("own", "provider"), ("cpu", "gpu")
SMOLLM2 = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
           "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152, "tie_word_embeddings": True}


class Question(NamedTuple):
    """One question of the worksheet: the answer's name, the part of the source's checklist it belongs to, and the words."""

    name: str
    part: str
    text: str


QUESTIONS = (
    Question("use_case", "Use case", "What is the use case, in one sentence?"),
    Question("missing", "Use case", "Which aspect of the present model is to be improved?"),
    Question("target", "Use case", "Which share of right answers is good enough? (0 to 1)"),
    Question("prompt", "Alternatives", "Which share does the best prompt get right? (none: not measured)"),
    Question("rag", "Alternatives", "Which share is right with retrieved documents? (none: not measured)"),
    Question("test_rows", "Alternatives", "On how many held-out rows were they measured?"),
    Question("fact_changes", "RAG or tuning", "How often a year do the facts change?"),
    Question("show_sources", "RAG or tuning", "Must an answer show its source?"),
    Question("good_rows", "Costs: data", "How many good, checked training rows are there?"),
    Question("tokens_per_row", "Costs: data", "How many tokens has a row, prompt and answer?"),
    Question("row_minutes", "Costs: effort", "Minutes of a person to make one more row?"),
    Question("effort_hours", "Costs: effort", "Hours of a person to prepare, tune and evaluate once?"),
    Question("wage", "Costs: effort", "Price of an hour of that person?"),
    Question("owner", "Costs: effort", "Is there somebody who prepares data, evaluates and tunes again?"),
    Question("tunable", "Costs: tunability", "Can this model be tuned (open weights, or a provider that offers it)?"),
    Question("config", "Costs: compute", "The model's config.json"),
    Question("device", "Costs: compute", "Trained on a CPU or a GPU?"),
    Question("memory_gb", "Costs: compute", "Memory of that machine or GPU, in GB?"),
    Question("per_hour", "Costs: compute", "Price of an hour of that machine?"),
    Question("training_hours", "Costs: compute", "Hours of training, if known? (none: predicted, CPU only)"),
    Question("hosting", "Costs: hosting", "What does hosting a model of your own cost more per month?"),
    Question("host", "Costs: hosting", "Who hosts the model, you or a provider?"),
    Question("private", "Costs: hosting", "Must the data stay on your own machines?"),
    Question("requests", "Benefits: cost", "Requests per month?"),
    Question("prompt_tokens", "Benefits: cost", "Tokens of the best prompt, with its examples?"),
    Question("price", "Benefits: cost", "Price of a million prompt tokens? (0: own machine)"),
    Question("wait_seconds", "Benefits: quality", "How many seconds may an answer take? (none: any)"),
    Question("takes_seconds", "Benefits: quality", "How many does it take with the best prompt? (none: not measured)"),
    Question("tasks", "Benefits: extensibility", "How many tasks shall share this base model?"),
)


@dataclass(frozen=True)
class Answers:
    """The answers of one worksheet; `QUESTIONS` holds the words. Shares are from 0 to 1, prices in any one currency.

    `missing`: some of `MISSING`. `prompt` and `rag`: shares of right answers, None where nobody measured; or the measured `Interval`, which
    a mean of several rules needs: it is no share of rows. Raises DecisionError for an answer that cannot be. Explained in lesson 01.
    """

    use_case: str
    missing: tuple[str, ...] = ()
    target: float = 0.8
    prompt: float | Interval | None = None
    rag: float | Interval | None = None
    test_rows: int = 100
    fact_changes: float = 0
    show_sources: bool = False
    good_rows: int = 0
    tokens_per_row: int = 200
    row_minutes: float = 3.0
    effort_hours: float = 16.0
    wage: float = 30.0
    owner: bool = True
    tunable: bool = True
    config: Mapping[str, Any] = field(default_factory=lambda: dict(SMOLLM2))
    device: str = "cpu"
    memory_gb: float = 8.0
    per_hour: float = 0.1
    training_hours: float | None = None
    hosting: float = 0.0
    host: str = "own"
    private: bool = False
    requests: int = 1000
    prompt_tokens: int = 500
    price: float = 0.0
    wait_seconds: float | None = None
    takes_seconds: float | None = None
    tasks: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.use_case, str) or not self.use_case.strip():
            raise DecisionError(f"use_case: expected a sentence, got {self.use_case!r}. Fix: say who asks what, and what the answer is used for.")
        chosen = (self.missing,) if isinstance(self.missing, str) else tuple(self.missing)
        if unknown := [name for name in chosen if name not in MISSING]:
            raise DecisionError(f"missing: expected some of {', '.join(MISSING)}, got {', '.join(map(repr, unknown))}. Fix: choose what is nearest.")
        object.__setattr__(self, "missing", tuple(name for name in MISSING if name in chosen))
        for name, allowed in (("host", HOSTS), ("device", DEVICES)):
            if getattr(self, name) not in allowed:
                raise DecisionError(f"{name}: expected {' or '.join(allowed)}, got {getattr(self, name)!r}. Fix: {name}={allowed[0]!r}.")
        for name in ("show_sources", "owner", "tunable", "private"):
            if not isinstance(getattr(self, name), bool):
                raise DecisionError(f"{name}: expected True or False, got {getattr(self, name)!r}. Fix: {name}=True.")
        for name, (low, high, whole, optional) in LIMITS.items():
            value = getattr(self, name)
            for one in (value.low, value.estimate, value.high) if name in ("prompt", "rag") and isinstance(value, Interval) else (value,):
                _number(name, one, low, high, whole, optional)
        if not isinstance(self.config, Mapping):
            raise DecisionError(f"config: expected the dictionary of a config.json, got {type(self.config).__name__}. Fix: json.loads of the file's text.")

    @property
    def like(self) -> str:
        """The desk's need whose measured rows stand for this use case."""
        if "facts" in self.missing or (self.show_sources and not self.missing):
            return "reply" if set(self.missing) & {"style", "format", "labels", "skill"} else "answer"
        return "tone" if "labels" in self.missing else "reply" if "style" in self.missing and "format" not in self.missing else "extract"


LIMITS = {  # name: (lowest, highest, whole number, may be None)
    "target": (1e-9, 1, False, False), "prompt": (0, 1, False, True), "rag": (0, 1, False, True), "test_rows": (1, 1e9, True, False),
    "fact_changes": (0, 1e6, False, False), "good_rows": (0, 1e9, True, False), "tokens_per_row": (2, 1e6, True, False),
    "row_minutes": (0, 1e4, False, False), "effort_hours": (0, 1e5, False, False), "wage": (0, 1e6, False, False),
    "memory_gb": (1e-9, 1e6, False, False), "per_hour": (0, 1e6, False, False),
    "training_hours": (0, 1e6, False, True), "hosting": (0, 1e9, False, False), "requests": (0, 1e12, True, False),
    "prompt_tokens": (1, 1e7, True, False), "price": (0, 1e6, False, False), "wait_seconds": (1e-9, 1e6, False, True),
    "takes_seconds": (0, 1e6, False, True), "tasks": (1, 1e4, True, False),
}


def _number(name: str, value: Any, low: float, high: float, whole: bool, optional: bool) -> None:
    if value is None and optional:
        return
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high and (not whole or value == int(value))
    if not good:
        kind = "a whole number" if whole else "a number"
        least = "above 0" if low == 1e-9 else f"from {low:g}"
        raise DecisionError(f"{name}: expected {kind} {least} to {high:g}{', or None' if optional else ''}, got {value!r}. "
                            f"Fix: {dict((q.name, q.text) for q in QUESTIONS)[name]}")


def answers_from(given: Mapping[str, Any]) -> Answers:
    """Answers from a dictionary, such as a form's or a JSON file's; `config` may be the text of a config.json.

    Raises DecisionError for names that the worksheet does not have, for a missing use case, and as `Answers` does.
    """
    known = {f.name for f in fields(Answers)}
    if unknown := sorted(set(given) - known):
        raise DecisionError(f"answers: expected names among {', '.join(sorted(known))}, got {', '.join(unknown)}. Fix: see decisions.QUESTIONS.")
    values = dict(given)
    if isinstance(values.get("config"), str):
        try:
            values["config"] = json.loads(values["config"])
        except json.JSONDecodeError as error:
            raise DecisionError(f"config: expected the JSON text of a config.json, got a text that ends at character {error.pos}: {error.msg}. "
                                "Fix: paste the whole file.") from None
    return Answers(**{"use_case": "", **values})
