"""The house style of a reply as rules that a program can check. The guide is `helpers/data/reply/GUIDE.md`; lesson 08 uses it."""

from __future__ import annotations

import re
from typing import NamedTuple

SHORTEST, LONGEST = 40, 110  # words of a reply, greeting and sign-off included
TOO_LITTLE = 20  # fewer words keep most rules by silence, so they score 0
MOST_STEPS = 4
SIGN_OFF = "Take care,\nThe Pellwarth desk"
NEXT_STEP = "Next step: "

# what the house says -> what it does not say
TERMS = {
    "specialist": ("technician", "engineer", "mechanic", "repairman", "repairmen"),
    "care visit": ("repair visit", "service call", "call-out", "callout", "home visit"),
    "the desk": ("customer service", "support team", "helpdesk", "help desk", "hotline"),
    "care plan": ("extended warranty", "insurance"),
    "Hearth": ("the app", "our app"),
}
PHRASES = ("unfortunately", "inconvenience", "kindly", "please be advised", "as per", "valued customer", "hesitate", "rest assured",
           "apologise", "apologize", "apologies", "obviously", "simply", "as soon as possible", "asap", "you should have", "you failed",
           "your fault")
PROMISES = ("guarantee", "promise", "immediately", "right away", "today", "tomorrow", "free", "no cost", "refund",
            "reimburse", "compensation", "compensate", "voucher", "discount", "replace", "replacement", "exception", "always", "never")
RULES = ("greeting", "sign_off", "next_step", "length", "one_question", "plain", "terms", "phrases", "promise", "figures")


class StyleReport(NamedTuple):
    """`score`: share of the ten rules kept, 0 to 1. `broken`: rule -> what is wrong with it, empty for a perfect reply."""

    score: float
    broken: dict[str, str]


def check_style(reply: str, *, name: str | None = None, product: str | None = None, known: str = "") -> StyleReport:
    """Score a reply by the ten rules of the style guide.

    `name`: the customer's name if the ticket gives it. `product`: the product's name if the ticket is about one.
    `known`: the ticket and the documents, in one text: figures and promises in the reply must come from there.
    A text of fewer than `TOO_LITTLE` words scores 0. A longer one in no style at all still keeps about half of the rules,
    those that only forbid; and a program sees form only, so a reply can score 1.0 and be wrong. Rules and reasons:
    `helpers/data/reply/GUIDE.md`; explained in lesson 08.
    """
    text = reply.strip()
    if len(text.split()) < TOO_LITTLE:
        return StyleReport(0.0, dict.fromkeys(RULES, f"{len(text.split())} words are too little to judge"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    broken = {
        "greeting": _greeting(lines, name),
        "sign_off": "" if "\n".join(lines[-2:]) == SIGN_OFF else f"the last two lines are not {SIGN_OFF!r}",
        "next_step": _next_step(lines),
        "length": _length(text),
        "one_question": "" if text.count("?") <= 1 else f"{text.count('?')} question marks",
        "plain": _plain(text, known),
        "terms": _terms(text, product),
        "phrases": _phrases(text),
        "promise": _listed("promised, but not in the ticket or the documents", [w for w in _found(PROMISES, text) if not _found([w], known)]),
        "figures": _listed("not in the ticket or the documents", _new_figures(text, known)),
    }
    broken = {rule: why for rule, why in broken.items() if why}
    return StyleReport(1 - len(broken) / len(RULES), broken)


def _greeting(lines: list[str], name: str | None) -> str:
    wanted = f"Hello {name}," if name else "Hello,"
    found = lines[0] if lines else ""
    return "" if found == wanted else f"the first line is {found!r}, not {wanted!r}"


def _next_step(lines: list[str]) -> str:
    count = sum(line.startswith(NEXT_STEP.strip()) for line in lines)
    if count != 1:
        return f"{count} lines begin with {NEXT_STEP.strip()!r}, not 1"
    return "" if len(lines) >= 3 and lines[-3].startswith(NEXT_STEP) else "the next step does not stand right before the sign-off"


def _length(text: str) -> str:
    words = len(text.split())
    return "" if SHORTEST <= words <= LONGEST else f"{words} words, not {SHORTEST} to {LONGEST}"


def _plain(text: str, known: str) -> str:
    if "!" in text:
        return "an exclamation mark"
    if re.search(r"[\U0001F000-\U0001FAFF\u2600-\u27BF]", text):
        return "an emoji"
    shouted = [w for w in re.findall(r"\b[A-Z]{4,}\b", text) if w not in known]
    if shouted:
        return f"capitals: {', '.join(shouted)}"
    if "**" in text or re.search(r"^\s*[-*•]\s", text, flags=re.M):
        return "bold or bullets"
    steps = len(re.findall(r"^\s*\d+\.\s", text, flags=re.M))
    return "" if steps <= MOST_STEPS else f"{steps} steps, more than {MOST_STEPS}"


def _terms(text: str, product: str | None) -> str:
    if product and not _found([product], text):
        return f"the product's name, {product}, is missing"
    wrong = [(bad, good) for good, bads in TERMS.items() for bad in _found(bads, text)]
    return "; ".join(f"{bad!r}, where the house says {good!r}" for bad, good in wrong)


def _phrases(text: str) -> str:
    regrets = len(re.findall(r"\bsorry\b", text, flags=re.I))
    return _listed("never said", _found(PHRASES, text)) or ("" if regrets <= 1 else f"sorry {regrets} times")


def _found(words, text: str) -> list[str]:
    """Those of `words` that stand in the text as whole words, in any case and with a plain ending (-s, -d, -ed, -ing)."""
    forms = lambda w: rf"\b(?:{re.escape(w)}(?:s|d|ed|ing)?|{re.escape(w[:-1])}ing)\b" if w.endswith("e") else rf"\b{re.escape(w)}(?:s|ed|ing)?\b"
    return [w for w in words if re.search(forms(w), text, flags=re.I)]


def _new_figures(text: str, known: str) -> list[str]:
    """Numbers, prices and codes of the reply that do not stand so in `known`; the numbers of numbered steps do not count."""
    figure = r"[€$£]?(?:[A-Za-z]{1,3}-?)?\d+(?:[.,:]\d+)*"
    said = re.findall(figure, re.sub(r"^\s*\d+\.\s", "", text, flags=re.M))
    there = {f.lower() for f in re.findall(figure, known)}
    return [f for f in dict.fromkeys(said) if f.lower() not in there]


def _listed(what: str, items: list[str]) -> str:
    return f"{what}: {', '.join(items)}" if items else ""
