"""The rules of the general probe, which measures what tuning forgets. Explained in lessons 07 and 08."""

from __future__ import annotations

import re
from typing import Any, Mapping


def passes(reply: str, check: Mapping[str, Any]) -> bool:
    """Whether a reply to an item of the general probe (`data.load_probe`) is right by the item's rule.

    Rules by `check["type"]`: contains (one of `any` as a whole word), contains_all, exact (one of `any`; case, spaces and end
    punctuation ignored), starts, number (the last number is `value`), words (from `low` to `high`), items (`count` parts
    between commas or lines), lacks (none of the letters or words), upper (no small letter). Prose is measured by perplexity,
    so its rule raises ValueError, as does an unknown one. Explained in lesson 07.
    """
    text, kind = reply.strip(), check.get("type")
    if kind in ("contains", "contains_all"):
        return (any if kind == "contains" else all)(_has_word(text, w) for w in check["any" if kind == "contains" else "all"])
    if kind == "exact":
        return _bare(text) in map(_bare, check["any"])
    if kind == "starts":
        return any(re.match(rf"{re.escape(_bare(w))}(?!\w)", _bare(text)) for w in check["any"])
    if kind == "number":
        numbers = re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text))
        return bool(numbers) and float(numbers[-1]) == check["value"]
    if kind == "words":
        return check["low"] <= len(text.split()) <= check["high"]
    if kind == "items":
        return len([part for part in re.split(r"[,\n]", text) if part.strip()]) == check["count"]
    if kind == "lacks":
        return bool(text) and not any(letters in text.lower() for letters in check["none"])
    if kind == "upper":
        return bool(re.search("[A-Z]", text)) and text == text.upper()
    if kind == "perplexity":
        raise ValueError("check: expected a rule that a reply can pass, found prose. Fix: leave rows of kind prose out, and measure their perplexity.")
    raise ValueError(f"check: expected a type that the docstring lists, found {kind!r}. Fix: correct the item's rule.")


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags=re.IGNORECASE) is not None


def _bare(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .!?\"'")
