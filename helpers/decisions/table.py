"""The technique table of the document "Fine-tuning scenarios", and the same table recomputed from measured rows. Explained in lesson 09."""

from __future__ import annotations

import pandas as pd

from . import evidence
from .claims_costs import cost
from .evidence import Rows
from .claims import Pending

COLUMNS = ("LoRA", "QLoRA", "PEFT", "DeepSpeed", "ZeRO", "DoRA")
ORIGINAL = {  # as the Marathi translation prints it; the newest original has been corrected
    "adapt a model to a task or field": "yes yes yes yes yes yes",
    "tasks such as classification and extraction": "yes yes yes yes yes yes",
    "answering questions": "yes yes yes yes yes yes",
    "replies like a person's": "yes yes yes yes yes yes",
    "music, art, creative texts": "yes yes yes yes yes yes",
    "reduce compute and money": "yes yes no yes yes no",
    "reduce memory": "no yes no yes yes yes",
    "fewer trained parameters": "no yes yes no no yes",
    "data parallel, memory of all devices together": "no no no yes yes yes",
}
UNTESTED = "not tested"
PENDING = "not measured yet"


def original_table() -> pd.DataFrame:
    """The document's table: one line per scenario, "yes" or "no" per technique."""
    return pd.DataFrame({name: dict(zip(COLUMNS, words.split())) for name, words in ORIGINAL.items()}).T[list(COLUMNS)]


def measured_table(rows: Rows | None = None) -> pd.DataFrame:
    """The same table from stored rows: "yes", "no", "not tested" or "not measured yet" in every cell.

    A method adapts to a task where it leads the best way without training (RAG on `answer` and `reply`, else the best prompt), on the desk's
    need that is like the line; "no" means no proven lead. Compute is the time
    of a step and memory its peak, both against full tuning. PEFT is LoRA, QLoRA and DoRA: it can what one of them can.
    """
    rows = evidence.stored_rows() if rows is None else rows
    lines = {}
    for name, needs in zip(ORIGINAL, (("extract", "tone"), ("extract", "tone"), ("answer",), ("reply",))):
        lines[name] = {method: _beats_prompt(method, needs, rows) for method in ("LoRA", "QLoRA", "DoRA")}
    lines["music, art, creative texts"] = dict.fromkeys(("LoRA", "QLoRA", "DoRA"), UNTESTED)
    for name, (key, model) in (("reduce compute and money", ("seconds", "135M")), ("reduce memory", ("peak_gb", "374M")),
                               ("fewer trained parameters", ("trained", "374M"))):
        lines[name] = {evidence.NAMES[method]: _below_full(method, key, model, rows) for method in ("lora", "qlora", "dora")}
    lines["data parallel, memory of all devices together"] = dict.fromkeys(("LoRA", "QLoRA", "DoRA"), UNTESTED)
    for line in lines.values():
        line["PEFT"] = next(word for word in ("yes", PENDING, "no", UNTESTED) if word in line.values())
        line |= {"DeepSpeed": UNTESTED, "ZeRO": UNTESTED}
    return pd.DataFrame(lines).T[list(COLUMNS)]


def _beats_prompt(method: str, needs: tuple[str, ...], rows: Rows) -> str:
    """Whether the method beats the best way without training on all those needs; PENDING where one of them has no rows of it."""
    words = []
    for need in needs:
        found = evidence.measured(need, rows)
        tuned = found.get(method) or (found.get("RAG + LoRA") if method == "LoRA" else None)
        plain = evidence.rivals(need, rows)[0]
        if not tuned or not plain:
            return PENDING
        lead = evidence.lead(tuned, plain)
        words.append("yes" if (lead.low > 0 if lead else tuned.score.low > plain.score.high) else "no")
    return "yes" if set(words) == {"yes"} else "no"


def _below_full(method: str, key: str, model: str, rows: Rows) -> str:
    try:
        return "yes" if cost(rows, method, model)[key] < cost(rows, "full", model)[key] else "no"
    except Pending:
        return PENDING
