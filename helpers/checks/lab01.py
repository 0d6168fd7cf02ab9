"""The exercises of lab 01: whether to fine-tune, from measured shares, rows and prices. Lesson 01 explains them."""

from __future__ import annotations

import math
from typing import Any, Callable, Mapping

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab01"
Given = Mapping[str, Any]

# ---------------------------------------------------------------- 1: reached, missed, or not known


def _wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share, as `evaluation.proportion` has it."""
    z, share = 1.959964, right / rows
    middle, half = share + z * z / (2 * rows), z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return (middle - half) / (1 + z * z / rows), (middle + half) / (1 + z * z / rows)


def _wald(right: int, rows: int) -> tuple[float, float]:
    """The simple interval: the share, and 1.96 standard errors to both sides."""
    share = right / rows
    half = 1.96 * math.sqrt(share * (1 - share) / rows)
    return share - half, share + half


def _word(low: float, high: float, target: float) -> str:
    return "reached" if low >= target else "missed" if high < target else "not known"


def _as_word(value: Any) -> Any:
    value = plain(value)
    return value.strip().lower() if isinstance(value, str) else value


exercise_1 = Exercise(
    LAB, 1, 2,
    right=lambda right, rows, target: _word(*_wilson(right, rows), target),
    cases=lambda: {
        "475 of 500, target 0.8": (475, 500, 0.8),
        "59 of 128, target 0.8": (59, 128, 0.8),
        "47 of 60, target 0.8": (47, 60, 0.8),
        "1,560 of 2,000, target 0.8": (1560, 2000, 0.8),
        "50 of 60, target 0.8": (50, 60, 0.8),
        "10 of 10, target 0.8": (10, 10, 0.8),
        "0 of 5, target 0.3": (0, 5, 0.3),
        "54 of 60, target 0.8": (54, 60, 0.8),
        "55 of 60, target 0.8": (55, 60, 0.8),
        "16 of 16, target 1": (16, 16, 1.0),  # with 16 rows these ends are exactly 1 and 0, however the interval is computed
        "0 of 16, target 0": (0, 16, 0.0),
    },
    returns="one of the words reached, missed, not known",
    read=_as_word,
    mistakes=[
        Mistake(lambda right, rows, target: _word(*_wald(right, rows), target),
                "Your interval is too narrow. The simple one, the share and 1.96 standard errors, has no width at all where all answers are right, and ten of "
                "ten does not prove 100 %. Use `evaluation.proportion`, which holds with few rows, too.", credit=0.5),
        Mistake(lambda right, rows, target: "reached" if right / rows >= target else "missed",
                "You hold the share against the target. With few rows the share is partly luck, so there is a third answer: *not known*, when the target "
                "lies inside the interval."),
        Mistake(lambda right, rows, target: "reached" if _wilson(right, rows)[0] >= target else "missed",
                "You never say *not known*. A target inside the interval is not missed: the true share may be above it. Missed means that the high end is "
                "below the target.", credit=0.5),
        Mistake(lambda right, rows, target: "reached" if _wilson(right, rows)[1] >= target else "missed",
                "You ask whether the interval reaches up to the target. That says: it may be reached. Reached for sure means that the *low* end is not "
                "below the target."),
        Mistake(lambda right, rows, target: "reached" if _wilson(right, rows)[0] >= target else "not known" if right / rows >= target else "missed",
                "You use the interval for *reached* and the share for *missed*. For *missed*, too, the whole interval must lie on one side: ask its high end.",
                credit=0.5),
        Mistake(lambda right, rows, target: "not known" if _wilson(right, rows)[0] == target else _word(*_wilson(right, rows), target),
                "An interval that begins exactly at the target has reached it: *at the target or above it* means `>=`, not `>`.", credit=0.5),
        Mistake(lambda right, rows, target: "missed" if _wilson(right, rows)[1] == target else _word(*_wilson(right, rows), target),
                "An interval that ends exactly at the target does not lie below it. The target may still be met: *missed* means `<`, not `<=`.", credit=0.5),
    ],
    after="Three answers, and the third one is common with few rows.",
)

# ---------------------------------------------------------------- 2: when a training is paid


def _months(once: float, before: float, after: float, price: float, requests: float, hosting: float) -> float:
    saved = requests * (before - after) * price / 1e6 - hosting
    return once / saved if saved > 0 else math.inf


exercise_2 = Exercise(
    LAB, 2, 3,
    right=_months,
    cases=lambda: {
        "20,000 requests a month, no hosting": (500, 1400, 150, 0.5, 20_000, 0),
        "2,000,000 requests a month, hosting 300": (800, 900, 120, 0.8, 2_000_000, 300),
        "hosting costs more than is saved": (500, 1400, 150, 0.5, 20_000, 40),
        "prompts don't get shorter": (500, 400, 400, 0.5, 50_000, 0),
        "prompts get longer": (500, 300, 350, 2.0, 10_000, 0),
    },
    returns="a number of months, `math.inf` where it is never paid",
    prediction=Prediction(
        "the months until 500 are saved", 0, 1000, lambda: _months(500, 1400, 150, 0.5, 20_000, 0),
        typical=[
            (0, 12, "A prompt token is so cheap that twenty thousand long prompts cost little, and the saving is a part of that."),
            (12, 36, "Longer than you thought: 12.50 a month are saved."),
            (48, 1000, "So pessimistic one need not be, but the direction is right: saved tokens alone rarely pay for a small service."),
        ]),
    mistakes=[
        Mistake(lambda once, before, after, price, requests, hosting: _months(once, before, after, price, requests, 0),
                "Hosting is missing. To host a model of your own costs something every month: take it off what a month saves.", credit=0.5),
        Mistake(lambda once, before, after, price, requests, hosting: _months(once + hosting, before, after, price, requests, 0),
                "You add hosting to the training, as if it were paid once. It is paid every month: take it off what a month saves.", credit=0.25),
        Mistake(lambda once, before, after, price, requests, hosting: _months(once, before, after, price * 1e6, requests, hosting),
                "The price is for a *million* tokens: divide by 1e6.", credit=0.5),
        Mistake(lambda once, before, after, price, requests, hosting: once / (requests * (before - after) * price / 1e6 - hosting),
                "Where a month saves nothing, you return a negative number of months or divide by zero. Such a training is never paid: return `math.inf`.",
                credit=0.5),
        Mistake(lambda once, before, after, price, requests, hosting: _months(once, before, 0, price, requests, hosting),
                "You count the whole prompt as saved. The tuned model has a prompt, too, a shorter one: before minus after.", credit=0.25),
        Mistake(lambda once, before, after, price, requests, hosting: _months(once, before, after, price, requests, hosting) * requests,
                "This is the number of requests. Asked are months: leave out the last multiplication.", credit=0.5),
    ],
    after="`math.inf` is an honest answer: never.",
)

# ---------------------------------------------------------------- 3: from how many rows on

Lead = tuple[float, float, float]


def _from_on(curve: Mapping[int, Lead], better: Callable[[Lead], bool] = lambda lead: lead[1] > 0) -> float:
    """The least number of rows from which on every measured number is better."""
    found = math.inf
    for count in sorted(curve, reverse=True):
        if not better(curve[count]):
            return found
        found = count
    return found


def _first(curve: Mapping[int, Lead], better: Callable[[Lead], bool] = lambda lead: lead[1] > 0) -> float:
    return next((count for count in sorted(curve) if better(curve[count])), math.inf)


def _last_bad(curve: Mapping[int, Lead]) -> float:
    return max((count for count, lead in curve.items() if not lead[1] > 0), default=0)


def _as_measured(curve: Mapping[int, Lead]) -> float:
    """Upwards in the order of the dict, which may be another than that of the numbers."""
    found = math.inf
    for count, lead in curve.items():
        found = min(found, count) if lead[1] > 0 else math.inf
    return found


def _curves() -> dict[str, tuple]:
    return {
        "worse, not told apart, better": ({25: (-0.2, -0.3, -0.1), 50: (-0.1, -0.2, -0.02), 100: (0.03, -0.05, 0.1), 200: (0.16, 0.08, 0.25)},),
        "a lucky start": ({25: (0.1, 0.01, 0.2), 50: (-0.05, -0.1, -0.01), 100: (0.12, 0.05, 0.2), 200: (0.2, 0.1, 0.3)},),
        "never": ({50: (-0.1, -0.2, -0.01), 100: (-0.02, -0.1, 0.1), 200: (0.05, 0.0, 0.1)},),
        "better from the first on": ({25: (0.1, 0.03, 0.2), 100: (0.2, 0.1, 0.3)},),
        "measured in another order": ({200: (0.2, 0.1, 0.3), 50: (0.04, -0.02, 0.1), 100: (0.1, 0.02, 0.2)},),
        "measured from the largest down": ({800: (0.3, 0.2, 0.4), 400: (0.15, 0.08, 0.2), 200: (0.2, 0.1, 0.3), 100: (0.22, 0.05, 0.4), 50: (-0.1, -0.2, 0.01)},),
        "lucky twice": ({25: (0.1, 0.01, 0.2), 50: (0.09, 0.02, 0.2), 100: (-0.02, -0.1, 0.1), 200: (0.2, 0.1, 0.3)},),
        "it falls back": ({50: (0.06, 0.02, 0.1), 100: (0.12, 0.05, 0.2), 200: (0.03, -0.05, 0.1)},),
    }


exercise_3 = Exercise(
    LAB, 3, 3,
    right=_from_on,
    cases=_curves,
    returns="a number of rows, `math.inf` where there is none",
    mistakes=[
        Mistake(lambda curve: _from_on(curve, lambda lead: lead[0] > 0),
                "You look at the estimate of the lead. It is better only where the whole interval lies above 0: ask the low end.", credit=0.25),
        Mistake(_first,
                "You take the first number of rows that is better. With a lucky draw of rows one point can stick out: from there on *every* larger number "
                "must be better, too.", credit=0.5),
        Mistake(lambda curve: min(count for count, lead in curve.items() if lead[1] > 0),
                "You take the least number that is better, and where none is, `min` stops with an error. Say `math.inf` there; and a lucky small number "
                "does not count unless all larger ones are better, too.", credit=0.25),
        Mistake(lambda curve: [count for count in sorted(curve) if curve[count][1] > 0],
                "You return all numbers of rows that are better. Asked is one: the least from which on all are better, or `math.inf`.", credit=0.25),
        Mistake(lambda curve: _first(curve, lambda lead: lead[0] > 0),
                "You take the first number of rows whose estimate is above 0. Ask the low end of the interval, and ask it of all larger numbers, too."),
        Mistake(lambda curve: _from_on(curve, lambda lead: lead[2] > 0),
                "You ask the high end. Then *maybe better* counts as better: the whole interval must lie above 0, so ask the low end.", credit=0.25),
        Mistake(_last_bad,
                "You return the last number of rows that is *not* better. Asked is the next one, from which on all are better.", credit=0.5),
        Mistake(lambda curve: max(curve, key=lambda count: curve[count][0]),
                "You return the number of rows with the largest lead. Asked is the least number that is enough: rows cost money."),
        Mistake(lambda curve: _from_on(curve, lambda lead: lead[1] >= 0),
                "A lead whose interval begins at 0 may be no lead: the low end must be above 0.", credit=0.5),
        Mistake(_as_measured,
                "You go through the numbers in the order in which they stand in the dict. They may have been measured in any order: sort them first.", credit=0.5),
        Mistake(lambda curve: max((count for count, lead in curve.items() if lead[1] > 0), default=math.inf),
                "You return the largest number of rows that is better. Asked is the least from which on all are better: go on downwards until one is not.",
                credit=0.25),
    ],
    after="The low end decides, and it decides for all larger numbers too.",
)

# ---------------------------------------------------------------- 4: a rule that tunes too soon

WORDS = ("prompt", "rag")  # the answers that hold one of the three words, or None


def _decide(a: Given) -> str:
    best = a["rag"] if a["facts"] else a["prompt"]
    if a["prompt"] is None or best is None or best == "not known":
        return "measure first"
    if best == "reached":
        return "RAG" if a["facts"] else "prompt"
    if a["good_rows"] < a["enough"]:
        return "RAG" if a["facts"] else "measure first"
    return "RAG + tuning" if a["facts"] else "tuning"


def _rows_first(a: Given) -> str:
    """The broken rule that stands in the notebook."""
    if a["good_rows"] >= a["enough"]:
        return "tuning"
    return "prompt" if "reached" in (a["prompt"], a["rag"]) else "measure first"


def _sheets() -> dict[str, tuple]:
    def sheet(facts: bool, prompt: str | None, rag: str | None, good_rows: int, enough: int = 200) -> tuple:
        return ({"facts": facts, "prompt": prompt, "rag": rag, "good_rows": good_rows, "enough": enough},)

    return {
        "many rows, nothing measured": sheet(False, None, None, 5000),
        "many rows, the prompt reaches the target": sheet(False, "reached", None, 5000),
        "many rows, the prompt falls short": sheet(False, "missed", None, 450),
        "few rows, the prompt falls short": sheet(False, "missed", None, 60),
        "many rows, the prompt is not known": sheet(False, "not known", None, 900),
        "facts, documents not measured": sheet(True, "missed", None, 900),
        "facts, documents reach the target": sheet(True, "missed", "reached", 900),
        "facts, documents fall short": sheet(True, "missed", "missed", 900),
        "facts, documents fall short, few rows": sheet(True, "missed", "missed", 60),
        "facts, documents not known": sheet(True, "missed", "not known", 900),
        "exactly enough rows": sheet(False, "missed", None, 200),
        "450 rows, but 1,000 are enough": sheet(False, "missed", None, 450, 1000),
        "few rows, the prompt reaches the target": sheet(False, "reached", None, 60),
        "no facts, the prompt falls short, documents reach the target": sheet(False, "missed", "reached", 900),
        "no facts, the prompt falls short, documents not known": sheet(False, "missed", "not known", 900),
        "facts, the prompt not measured, documents reach the target": sheet(True, None, "reached", 900),
        "facts, the prompt not known, documents reach the target": sheet(True, "not known", "reached", 900),
        "facts, the prompt reaches the target, documents fall short": sheet(True, "reached", "missed", 900),
        "facts, documents not known, few rows": sheet(True, "missed", "not known", 60),
        "facts, documents reach the target, few rows": sheet(True, "missed", "reached", 60),
    }


exercise_4 = Exercise(
    LAB, 4, 3,
    right=_decide,
    cases=_sheets,
    returns="one of: measure first, prompt, RAG, tuning, RAG + tuning",
    mistakes=[
        Mistake(_rows_first,
                "Nothing has changed: rows in plenty decide before anybody asked what a prompt can do, and facts are never looked at."),
        Mistake(lambda a: _decide({**a, "facts": False}),
                "You don't look at `facts`, or not everywhere. Where facts are needed, the baseline is `rag`, and the answers are RAG and RAG + tuning.", credit=0.25),
        Mistake(lambda a: _decide({**a, **{name: a[name] or "missed" for name in WORDS}}),
                "A baseline that nobody measured counts as missed in your rule. None means: not measured. Then no gain can be claimed, so measure first.", credit=0.5),
        Mistake(lambda a: _decide({**a, **{name: "missed" if a[name] == "not known" else a[name] for name in WORDS}}),
                "You treat *not known* like *missed*, and tune. The target may be reached already: measure on more rows first.", credit=0.5),
        Mistake(lambda a: _decide({**a, "good_rows": 10**9}),
                "You don't hold `good_rows` against `enough`. With fewer rows than that tuning was worse than a prompt: stay with RAG, or measure first.", credit=0.5),
        Mistake(lambda a: _decide({**a, "good_rows": a["good_rows"] - 1}),
                "Exactly `enough` rows are enough: too few means fewer, `<` and not `<=`.", credit=0.5),
        Mistake(lambda a: "measure first" if a["good_rows"] < a["enough"] and _decide(a) == "RAG" and a["rag"] == "missed" else _decide(a),
                "Facts, documents that fall short, and few rows: without documents it would be worse. Stay with RAG and mend it.", credit=0.5),
        Mistake(lambda a: _decide({**a, "prompt": a["prompt"] or "missed"} if a["facts"] else a),
                "Where facts are needed, you never ask whether the prompt was measured. The first line of the table asks for both: `prompt` *or* the "
                "baseline None means measure first.", credit=0.5),
        Mistake(lambda a: _decide({**a, **{name: a[name] and "reached" for name in WORDS if "reached" in (a["prompt"], a["rag"])}}),
                "You are content when `prompt` or `rag` reaches the target, whichever it is. Only the baseline counts: `rag` where facts are needed, else "
                "`prompt`.", credit=0.25),
    ],
    after="Baselines first, then rows: rows in plenty are no reason to tune.",
)

# ---------------------------------------------------------------- 5: what would overturn it


def _alone(decide: Callable[[Given], Any], answers: Given, changes: Mapping[str, Given]) -> list[str]:
    return [name for name, change in changes.items() if decide({**answers, **change}) != decide(answers)]


def _piled_up(decide: Callable[[Given], Any], answers: Given, changes: Mapping[str, Given]) -> list[str]:
    """Each change stays when the next one comes."""
    first, now, found = decide(answers), dict(answers), []
    for name, change in changes.items():
        now.update(change)
        found += [name] if decide(now) != first else []
    return found


def _step_by_step(decide: Callable[[Given], Any], answers: Given, changes: Mapping[str, Given]) -> list[str]:
    """Compared with the change before instead of with the answers."""
    before, found = decide(answers), []
    for name, change in changes.items():
        now = decide({**answers, **change})
        found += [name] if now != before else []
        before = now
    return found


def _only_the_change(decide: Callable[[Given], Any], answers: Given, changes: Mapping[str, Given]) -> list[str]:
    return [name for name, change in changes.items() if decide(change) != decide(answers)]


def _what_if() -> dict[str, tuple]:
    tone = {"facts": False, "prompt": "missed", "rag": None, "good_rows": 448, "enough": 200}
    shop = {"facts": True, "prompt": "missed", "rag": "reached", "good_rows": 60, "enough": 200}
    return {
        "a need of form": (_decide, tone, {"60 good rows": {"good_rows": 60}, "5,000 good rows": {"good_rows": 5000}, "a prompt that reaches": {"prompt": "reached"},
                                           "a prompt not measured": {"prompt": None}, "100 rows are enough": {"enough": 100}}),
        "a need of facts": (_decide, shop, {"5,000 good rows": {"good_rows": 5000}, "documents fall short": {"rag": "missed"},
                                            "no facts needed": {"facts": False}, "the prompt reaches": {"prompt": "reached"}}),
        "changes of two answers": (_decide, tone, {"rows for a harder task": {"good_rows": 300, "enough": 400}, "facts, documented": {"facts": True, "rag": "reached"},
                                                   "more of both": {"good_rows": 900, "enough": 400}}),
        "another rule": (_rows_first, tone, {"a prompt not measured": {"prompt": None}, "60 good rows": {"good_rows": 60}}),
        "nothing overturns it": (_decide, tone, {"5,000 good rows": {"good_rows": 5000}, "400 rows are enough": {"enough": 400}}),
    }


def _as_names(value: Any) -> Any:
    value = plain(value)
    return list(value) if isinstance(value, dict) else value


exercise_5 = Exercise(
    LAB, 5, 2,
    right=_alone,
    cases=_what_if,
    returns="the names of the changes that overturn the decision, in their order",
    read=_as_names,
    mistakes=[
        Mistake(_piled_up,
                "Your changes pile up: each one stays when the next one comes. Make a fresh copy of the answers for each change, such as {**answers, **change}.",
                credit=0.25),
        Mistake(_step_by_step,
                "You compare each decision with the one before. Compare it with the decision on the unchanged answers.", credit=0.5),
        Mistake(lambda decide, answers, changes: [name for name in changes if name not in _alone(decide, answers, changes)],
                "You return the changes that leave the decision as it is. Return those that overturn it.", credit=0.5),
        Mistake(lambda decide, answers, changes: _alone(decide, answers, changes)[:1],
                "You stop at the first one. Look at all changes.", credit=0.25),
        Mistake(lambda decide, answers, changes: len(_alone(decide, answers, changes)),
                "You return how many there are. Return their names: each one is a question to ask again.", credit=0.5),
        Mistake(_only_the_change,
                "You decide on the change alone, so all other answers are missing. Put the change on top of the answers: {**answers, **change}."),
        Mistake(lambda decide, answers, changes: [],
                "Your list is always empty, where names are expected. Is the change put into `answers` itself (`changed = answers` makes no copy), or does it "
                "stand first and is overwritten? Write {**answers, **change}, the change last."),
        Mistake(lambda decide, answers, changes: _alone(_decide, answers, changes),
                "You ask your own rule. The decision of another rule may turn elsewhere: ask `decide`, the first argument.", credit=0.5),
    ],
    after="These are the answers to measure most carefully, and to ask again in a year.",
)
