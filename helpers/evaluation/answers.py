"""Scores of the need `answer`: is a short answer right, and does the model say so when the documents do not. Explained in lessons 03 and 08."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any, Mapping, Sequence

import numpy as np

from helpers.data import NOT_IN_DOCUMENTS, load_facts

from .intervals import Interval, proportion, same_length

SMALL = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
         "nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
# the one way to write a unit -> other ways (patterns); a unit counts only right after a number
UNITS = {
    "rpm": r"revolutions per minute|r/min", "°c": r"degrees? celsius|degrees? c|° ?c|degrees?|°", "%": r"per ?cent|%", "h": r"hours?|hrs?",
    "min": r"minutes?|mins?", "s": r"seconds?|secs?", "day": r"days", "week": r"weeks", "month": r"months|mo", "year": r"years?|yrs?",
    "ml": r"millilit(?:re|er)s?", "l": r"lit(?:re|er)s?", "mm": r"millimet(?:re|er)s?", "cm": r"centimet(?:re|er)s?",
    "m": r"met(?:re|er)s?", "kg": r"kilogram(?:me)?s?|kilos?", "g": r"gram(?:me)?s?", "v": r"volts?", "ghz": "", "bar": "",
}
STOP = frozenset("a an the and or of for in to at on is are it its with from by then after but as be".split())


def answer_right(answers: Sequence[str], rows: Sequence[Mapping[str, Any]], anywhere: bool = False) -> np.ndarray:
    """Per row of `data.load_answer`, 1.0 if the short answer is right, else 0.0; shape (rows,).

    Both sides are normalised: case, spaces (thin ones too), punctuation, a leading article, thousands commas, final zeros
    of decimals, number words up to 99, the ways to write a unit after a number ("5 min", "5 minutes") and a price ("€5",
    "5 euros"). Then

    - `fact`: the answer is the gold answer or an accepted variant, whole. With `anywhere`, one of them may also stand
      inside a longer answer: what the model knows, whether or not it keeps to the few words that were asked for.
    - `two_articles`: the answer holds every word and value of one of these forms, in any order; or every value that the
      row requires: what all forms share, and each value of its `facts` (in `data.load_facts`, of the row's edition) that
      the gold answer names. Where a sum is asked, that is the sum; its parts alone are wrong. It may not say yes for no.
      What else is said, and which value is said of which thing, is not checked.
    - `unanswerable`: the answer abstains (`abstains`). On other rows, an answer that abstains is wrong whatever else it says.

    Raises ValueError when answers and rows differ in number, or rows are not of `load_answer`. The comparison after
    normalisation follows SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250). Explained in lessons 03 and 08.
    """
    _check_rows(answers, rows)
    return np.array([_right(answer, row, anywhere) for answer, row in zip(answers, rows)], dtype=float)


def abstains(answer: str) -> bool:
    """Whether an answer says `data.NOT_IN_DOCUMENTS`, in any case and punctuation, alone or inside a longer answer."""
    return _stands_in(_tokens(NOT_IN_DOCUMENTS), _tokens(answer))


def abstention(answers: Sequence[str], rows: Sequence[Mapping[str, Any]], level: float = 0.95) -> dict[str, Interval]:
    """How often the model abstains: `unanswerable` (where it should) and `answerable` (where it should not, *false abstention*).

    Both are shares of the rows of that kind, 0 to 1, with Wilson's interval. One without the other says little: who always
    abstains has 1.0 in both. Raises ValueError when one of the two kinds has no row. Kinds as in SQuAD 2.0 (Rajpurkar et
    al. 2018, arXiv:1806.03822). Explained in lessons 03 and 08.
    """
    _check_rows(answers, rows)
    said = np.array([abstains(answer) for answer in answers], dtype=float)
    nowhere = np.array([row["kind"] == "unanswerable" for row in rows])
    if nowhere.all() or not nowhere.any():
        raise ValueError(f"abstention: expected unanswerable and answerable rows, got {nowhere.sum()} and {(~nowhere).sum()}. "
                         "Fix: score a whole split of load_answer.")
    return {"unanswerable": proportion(said[nowhere], level), "answerable": proportion(said[~nowhere], level)}


def stands_in(answer: str, text: str) -> bool:
    """Whether the words of an answer stand in a text, side by side and in order, after the normalisation of `answer_right`."""
    return _stands_in(_tokens(answer), _tokens(text))


def _right(answer: str, row: Mapping[str, Any], anywhere: bool) -> bool:
    if row["kind"] == "unanswerable" or abstains(answer):
        return row["kind"] == "unanswerable" and abstains(answer)
    said, forms = _tokens(answer), [_tokens(form) for form in (row["messages"][-1]["content"], *row["accepted"])]
    if said in forms:
        return True
    if row["kind"] == "fact":
        return anywhere and any(_stands_in(form, said) for form in forms)
    verdicts = {form[0] for form in forms} & {"yes", "no"}
    if verdicts and said and said[0] in {"yes", "no"} - verdicts:
        return False
    wanted = [_content(form) for form in forms] + [_required(row, forms)]
    return any(words and words <= set(said) for words in wanted)


def _required(row: Mapping[str, Any], forms: list[list[str]]) -> set[str]:
    """The words and values that a right answer to a two-article question cannot do without."""
    facts = [_tokens(value) for fact in row["facts"] if (value := _facts(row["edition"]).get(fact))]
    shared = set.intersection(*map(_content, forms))
    for fact in facts:
        if _values(fact):
            shared |= _values(fact) & set(forms[0])
        elif _stands_in(fact, forms[0]):
            shared |= _content(fact)
    return shared if len(shared) > 1 else set()  # "both 19 hours": one value alone does not say that it holds for both


@cache
def _facts(edition: int) -> dict[str, str | None]:
    return {fact["id"]: fact[f"edition_{edition}"] for fact in load_facts()}


def _check_rows(answers: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    same_length(answers, rows)
    needed = {"messages", "kind", "accepted", "facts", "edition"}
    if lacking := needed - set(rows[0]):
        raise ValueError(f"expected rows of data.load_answer, got a row without {', '.join(sorted(lacking))}. Fix: pass a split of load_answer.")


# ---------------------------------------------------------------- normalisation


def _tokens(text: str) -> list[str]:
    """The words and values of a text in their one way to be written: "The price: 13 euros." -> ["price", "13€"]."""
    text = re.sub(r"(?<=\d)[,\u00a0\u2009\u202f](?=\d{3}(?!\d))", "", text)  # 1,100 and 1 100 (thin space) -> 1100
    text = unicodedata.normalize("NFKC", text).casefold()
    text = " ".join("".join(_plain(c) for c in text).split())
    text = re.sub(rf"\b({'|'.join(TENS)})(?:[ -]({'|'.join(SMALL[1:10])}))?\b|\b({'|'.join(SMALL)})\b", _number, text)
    text = re.sub(r"\d+\.\d+(?![.\d])", lambda m: m.group().rstrip("0").rstrip("."), text)
    text = re.sub(r"(\d[\d.]*) ?(?:€|euros?\b|eur\b)|(?:€|\beuros?\b|\beur\b) ?(\d+(?:\.\d+)?)", lambda m: f"{m[1] or m[2]}€ ", text)
    for unit, others in UNITS.items():
        text = re.sub(rf"(?<!\w)(-?\d[\d.]*)[ -]?(?:{others}{'|' if others else ''}{unit})(?!\w)", rf"\1{unit} ", text)
    text = re.sub(r"(?<!\d)[.:]|[.:](?!\d)|(?<=\w)-|-(?!\d)", " ", text)  # a point, colon or minus stays inside a number only
    words = text.split()
    return words[1:] if words[:1] and words[0] in ("a", "an", "the") else words


def _plain(c: str) -> str:
    """A character as normalisation leaves it: digits of any script as ASCII, letters, marks, and the signs that values need."""
    kind = unicodedata.category(c)
    if kind == "Nd":
        return str(unicodedata.decimal(c))
    if c in "−–—‐‑":
        return "-"
    if kind == "Cf" or c in "'’":
        return ""  # joiners, zero-width spaces, apostrophes
    return c if kind[0] in "LMN" or c in "°%€.:-/" else " "


def _number(match: re.Match[str]) -> str:
    tens, ones, small = match.groups()
    return str(SMALL.index(small) if small else 20 + 10 * TENS.index(tens) + (SMALL.index(ones) if ones else 0))


def _values(words) -> set[str]:
    """Those of `words` that are numbers, with or without a unit."""
    return {word for word in words if re.match(r"-?\d", word)}


def _content(words: Sequence[str]) -> set[str]:
    return set(words) - STOP


def _stands_in(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the words of `part` stand in `whole`, side by side and in order."""
    return bool(part) and any(list(whole[i : i + len(part)]) == list(part) for i in range(len(whole) - len(part) + 1))
