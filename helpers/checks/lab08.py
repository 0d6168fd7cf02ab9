"""The exercises of lab 08: scores that a sceptic accepts. Lesson 08 explains them."""

from __future__ import annotations

from functools import cache
from typing import Any, Sequence

import numpy as np

from .exercise import Exercise, Mistake, Prediction

LAB = "lab08"

# ---------------------------------------------------------------- 1: F1 of a field


def _counts(said: Sequence[Any], gold: Sequence[Any]) -> tuple[int, int, int]:
    tp = sum(s is not None and s == g for s, g in zip(said, gold))
    return tp, sum(s is not None for s in said) - tp, sum(g is not None for g in gold) - tp


def _f1(tp: float, fp: float, fn: float) -> float:
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0


def _mean_instead(said: Sequence[Any], gold: Sequence[Any]) -> float:
    tp, fp, fn = _counts(said, gold)
    return (tp / (tp + fp) + tp / (tp + fn)) / 2 if tp else _f1(tp, fp, fn)


def _wrong_value_once(said: Sequence[Any], gold: Sequence[Any]) -> float:
    tp = _counts(said, gold)[0]
    fp = sum(s is not None and s != g for s, g in zip(said, gold))
    return _f1(tp, fp, sum(s is None and g is not None for s, g in zip(said, gold)))


def _f1_cases() -> dict[str, tuple]:
    return {
        "a value missed and a value that is wrong": (["Rill", None, "Ember", None, "Rill"], ["Rill", "Rill", "Rill", None, "Rill"]),
        "a value where there is none": (["Sam", "Sam", None, "Asha", "Lee"], ["Sam", None, None, None, None]),
        "always the same value": (["Sam"] * 5, ["Asha", None, "Sam", "Lee", None]),
        "mostly empty": ([None] * 8 + ["E27"], [None] * 7 + ["E27", "E27"]),
        "nothing said": ([None, None, None], ["E27", None, "E28"]),
        "every field is empty": ([None, None, None], [None, None, None]),
        "False is a value, too": ([False, True, None, False, None], [False, False, None, None, True]),
    }


exercise_1 = Exercise(
    LAB, 1, 2,
    right=lambda said, gold: _f1(*_counts(said, gold)),
    cases=_f1_cases,
    returns="the F1, a number from 0 to 1",
    mistakes=[
        Mistake(lambda said, gold: 2 * (c := _counts(said, gold))[0] / (c[0] + sum(c)),
                "When every field is empty on both sides, all three counts are 0, and your function divides by 0. Ask for that first, and return 1: "
                "nothing was asked and nothing was said.", credit=0.5),
        Mistake(lambda said, gold: _f1(*c) if any(c := _counts(said, gold)) else 0,
                "You return 0 when all three counts are 0. Nothing was asked and nothing was said, so there is no error: return 1.", credit=0.5),
        Mistake(lambda said, gold: _f1(sum(s == g for s, g in zip(said, gold)), *_counts(said, gold)[1:]),
                "You count a field that both leave empty (None and None) as found. It is neither said nor there: leave it out, or a field "
                "that is mostly empty gets a high F1 for nothing."),
        Mistake(_wrong_value_once,
                "You count a wrong value once, as a false positive. It is two errors: something was said that is not there (FP), and what is "
                "there was missed (FN).", credit=0.5),
        Mistake(_mean_instead,
                "You take the arithmetic mean of precision and recall. F1 is their harmonic mean, 2TP / (2TP + FP + FN): it is low as soon as "
                "one of the two is low."),
        Mistake(lambda said, gold: float(np.mean([s == g for s, g in zip(said, gold)])),
                "You return the share of equal fields, the accuracy. It also counts the fields that both leave empty; F1 looks only at what "
                "was said and what is there."),
    ],
    after="A field that is mostly empty now flatters nobody.",
)

# ---------------------------------------------------------------- 2: the score of a script


TONES = ("sarcastic", "angry", "worried", "thankful", "confused", "neutral")


def _label(text: str) -> str:
    return text.strip().strip(".!").strip().lower()


def _accuracy(answers: Sequence[str], gold: Sequence[str]) -> float:
    return sum(_label(a) == g for a, g in zip(answers, gold)) / len(gold)


def _over_valid(answers: Sequence[str], gold: Sequence[str]) -> float:
    pairs = [(_label(a), g) for a, g in zip(answers, gold) if _label(a) in TONES]
    return sum(a == g for a, g in pairs) / len(pairs)


def _shifted(answers: Sequence[str], gold: Sequence[str], all_rows: bool) -> float:
    valid = [_label(a) for a in answers if _label(a) in TONES]
    return sum(a == g for a, g in zip(valid, gold)) / (len(gold) if all_rows else len(valid))


def _accuracy_cases() -> dict[str, tuple]:
    return {
        "answers that are no label": (["angry", "I am sorry to hear that.", "neutral", "", "worried"], ["angry", "worried", "neutral", "confused", "worried"]),
        "other ways to write a label": ([" Angry", "neutral.", "Worried!", "confused", "sarcastic"], ["angry", "neutral", "worried", "thankful", "angry"]),
        "a label within a sentence": (["not angry, but worried", "neutral", "I am confused", "?", "angry and tired"], ["angry", "neutral", "confused", "angry", "angry"]),
        "a mixture": (["angry", "?", "neutral", "angry", "Neutral.", "thankful"], ["angry", "neutral", "angry", "neutral", "neutral", "thankful"]),
    }


exercise_2 = Exercise(
    LAB, 2, 3,
    right=_accuracy,
    cases=_accuracy_cases,
    returns="the share of right answers, a number from 0 to 1",
    mistakes=[
        Mistake(lambda a, g: _shifted(a, g, all_rows=False),
                "Answers and gold have slipped against each other: you drop answers that are no label, and then the second valid answer is compared "
                "with the second gold row, whose answer may be the one you dropped. Go through the rows together."),
        Mistake(lambda a, g: _shifted(a, g, all_rows=True),
                "Answers and gold have slipped against each other: you divide by all rows, which is right, but compare the list of valid answers with "
                "the list of all gold rows. Go through the rows together.", credit=0.25),
        Mistake(_over_valid,
                "You divide by the valid answers only. A model that says nothing usable on half of the rows, and is right on the rest, would get 1.0. "
                "An answer that is no label is a wrong answer.", credit=0.5),
        Mistake(lambda a, g: float(np.mean([x == y for x, y in zip(a, g)])),
                "You ask for the same letters. 'Angry' and 'neutral.' are right answers in another spelling: remove spaces and end marks, and write "
                "both sides small, before you compare.", credit=0.5),
        Mistake(lambda a, g: float(np.mean([y in x.lower() for x, y in zip(a, g)])),
                "You look for the gold label anywhere in the answer. 'not angry, but worried' then counts as angry. The answer itself must be the label.",
                credit=0.5),
    ],
    after="No error message pointed to the two mistakes; a small example with a known result did.",
)

# ---------------------------------------------------------------- 3: the best of many


def _draws(systems: int, rows: int, share: float, repeats: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).binomial(rows, share, size=(repeats, systems)) / rows


exercise_3 = Exercise(
    LAB, 3, 3,
    right=lambda systems, rows, share: float(_draws(systems, rows, share).max(axis=1).mean()),
    cases=lambda: {"20 systems, 60 rows, share 0.5": (20, 60, 0.5), "5 systems, 400 rows, share 0.8": (5, 400, 0.8), "one system": (1, 60, 0.5),
                   "5 systems, 60 rows, share 0.01": (5, 60, 0.01)},
    returns="the mean score of the best system, a share from 0 to 1",
    atol=0.004,
    prediction=Prediction(
        "the score of the best of 20 equal systems", 0, 1, lambda: float(_draws(20, 60, 0.5).max(axis=1).mean()),
        typical=[
            (0.495, 0.505, "The true share of each is 0.5, but you look at the luckiest of twenty. Its luck is in the score; on new rows it is 0.5 again."),
            (0.505, 0.6, "You expected a gain by luck. It is larger than most people think: every further try adds some."),
            (0.65, 1.0, "So much luck would need fewer rows, or more tries."),
        ]),
    mistakes=[
        Mistake(lambda systems, rows, share: float(_draws(systems, rows, share).mean()),
                "You take the mean over all systems. Somebody who tries twenty prompts reports the best one: take the maximum over the systems of one "
                "experiment, then the mean over the experiments."),
        Mistake(lambda systems, rows, share: float(_draws(systems, rows, share).max()),
                "You take the maximum over everything: the luckiest system of all experiments together. One experiment has one winner; take the maximum "
                "in each experiment, then the mean.", credit=0.5),
        Mistake(lambda systems, rows, share: float(_draws(systems, rows, share).max(axis=1).mean() * rows),
                "You return the number of right rows. Divide by the rows, so that it is a share.", credit=0.5),
        Mistake(lambda systems, rows, share: float(_draws(systems, rows, share).max(axis=0).mean()),
                "The axes are exchanged: you look for the best experiment of each system. You want the best system of each experiment."),
    ],
    after="Twenty equal systems, and the best one looks clearly better. That is why you choose on validation rows and report on test rows.",
)

# ---------------------------------------------------------------- 4: a paired interval


def _boot(values: np.ndarray, level: float = 0.95) -> list[float]:
    picks = np.random.default_rng(1).integers(0, len(values), size=(10_000, len(values)))
    return [float(q) for q in np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])]


def _unpaired(a: Sequence[float], b: Sequence[float]) -> list[float]:
    rng = np.random.default_rng(1)
    a, b = np.asarray(a, float), np.asarray(b, float)
    means = [x[rng.integers(0, len(x), size=(10_000, len(x)))].mean(axis=1) for x in (a, b)]
    return [float(q) for q in np.quantile(means[0] - means[1], [0.025, 0.975])]


def _spread_of_rows(a: Sequence[float], b: Sequence[float]) -> list[float]:
    d = np.asarray(a, float) - np.asarray(b, float)
    return [float(d.mean() - 1.96 * d.std()), float(d.mean() + 1.96 * d.std())]


@cache
def _pairs() -> dict[str, tuple[list[float], list[float]]]:
    """Two systems that fail on mostly the same rows: b has a tenth of the rows other than a, for a gain or a loss."""
    rng, cases = np.random.default_rng(7), {}
    for name, rows, better, worse in (("400 rows, a better", 400, 0.12, 0.02), ("300 rows, no clear winner", 300, 0.06, 0.05)):
        b = rng.permutation(np.repeat([1.0, 0.0], rows // 2))
        a, order = b.copy(), rng.permutation(rows)
        a[[i for i in order if b[i] == 0][: int(better * rows)]] = 1
        a[[i for i in order if b[i] == 1][: int(worse * rows)]] = 0
        cases[name] = (a.tolist(), b.tolist())
    return cases


def _two_ends(value: Any) -> Any:
    from .compare import plain

    low_high = [value.low, value.high] if hasattr(value, "low") and hasattr(value, "high") else plain(value)
    return [low_high[k] for k in ("low", "high")] if isinstance(low_high, dict) else low_high


exercise_4 = Exercise(
    LAB, 4, 3,
    right=lambda a, b: _boot(np.asarray(a, float) - np.asarray(b, float)),
    cases=lambda: dict(_pairs()),
    returns="the two ends of the interval, low and high",
    read=_two_ends,
    atol=0.006, rtol=0,
    mistakes=[
        Mistake(_unpaired,
                "You draw the rows of a and of b separately. Then a hard row can stand in one sample and not in the other, and the interval is too wide. "
                "Both systems answered the same rows: draw the rows once, or take the differences first.", credit=0.5),
        Mistake(lambda a, b: _boot(np.asarray(a, float) - np.asarray(b, float), 0.90),
                "This is a 90 % interval: you cut 5 % off at each end. For 95 % cut 2.5 % off at each end.", credit=0.5),
        Mistake(_spread_of_rows,
                "You use the spread of single rows. The spread of a mean is smaller by the square root of the number of rows: draw whole samples and take "
                "the mean of each, or divide by sqrt(n)."),
        Mistake(lambda a, b: _boot(np.asarray(b, float) - np.asarray(a, float)),
                "The sign is turned: this is b minus a. A positive number shall mean that a is better.", credit=0.5),
    ],
    after="It excludes 0 for the first pair and holds it for the second. Pairing cost nothing and made the interval narrower.",
)

# ---------------------------------------------------------------- 5: ship or don't ship


def _met(need: str, value: float, interval: tuple[float, float, float] | None) -> bool:
    if interval is None:
        return False
    _, low, high = interval
    return {"at_least": low >= value, "better_than": low > value, "at_most": high <= value}[need]


def _by_estimate(need: str, value: float, interval: tuple[float, float, float] | None) -> bool:
    return _met(need, value, interval and (interval[0],) * 3)


def _always_low(need: str, value: float, interval: tuple[float, float, float] | None) -> bool:
    return _met(need, value, interval and (interval[0], interval[1], interval[1]))


def _decision(met: Any, rules: Any, measured: Any) -> list[str]:
    return [name for name, need, value in rules if not met(need, value, measured.get(name))]


def _rules_cases() -> dict[str, tuple]:
    rules = [("right", "at_least", 0.70), ("lead", "better_than", 0.0), ("forgotten", "at_most", 0.05), ("leaks", "at_most", 0.0)]
    good = {"right": (0.86, 0.79, 0.91), "lead": (0.2, 0.1, 0.3), "forgotten": (0.01, 0.0, 0.04), "leaks": (0.0, 0.0, 0.0)}
    others = [("leaks", "at_most", 0.0), ("agreed", "at_least", 0.9), ("lead", "better_than", 0.05), ("kept", "at_least", 0.6),
              ("right", "at_least", 0.70)]
    return {
        "all rules are kept": (rules, good),
        "good estimates, wide intervals": (rules, good | {"right": (0.75, 0.66, 0.82), "forgotten": (0.03, 0.0, 0.09)}),
        "a low end that is just the number": (rules, good | {"right": (0.78, 0.70, 0.85)}),
        "a lead whose interval begins at 0": (rules, good | {"lead": (0.1, 0.0, 0.2)}),
        "forgotten was not measured": (rules, {k: v for k, v in good.items() if k != "forgotten"}),
        "a clear loss": (rules, good | {"right": (0.5, 0.42, 0.58), "lead": (-0.1, -0.2, 0.0), "leaks": (3.0, 3.0, 3.0)}),
        "other rules, one of them not measured": (others, {"right": (0.72, 0.65, 0.78), "kept": (0.58, 0.5, 0.65), "lead": (0.1, 0.02, 0.2),
                                                           "leaks": (2.0, 2.0, 2.0)}),
    }


def _skips_unmeasured(rules: Any, measured: Any) -> list[str]:
    return _decision(_met, [rule for rule in rules if rule[0] in measured], measured)


exercise_5 = Exercise(
    LAB, 5, 3,
    right=lambda rules, measured: _decision(_met, rules, measured),
    cases=_rules_cases,
    returns="the names of the rules that are not met, in the order of the rules",
    mistakes=[
        Mistake(lambda rules, measured: _decision(_by_estimate, rules, measured),
                "You hold the estimate against the rule. With few rows an estimate is partly luck: the interval's worse end must keep the rule."),
        Mistake(lambda rules, measured: _decision(_always_low, rules, measured),
                "You take the low end for every rule. For `at_most` a large number is the bad one, so the worse end is the high one.", credit=0.5),
        Mistake(_skips_unmeasured,
                "You pass over a rule that was not measured. Then the easiest way to ship is not to measure: a rule without a value is not met.", credit=0.5),
        Mistake(lambda rules, measured: _decision(lambda need, value, i: _met("at_least" if need == "better_than" else need, value, i), rules, measured),
                "You treat `better_than` like `at_least`. A lead that may be exactly 0 is no lead: the low end must be more than the number.", credit=0.5),
        Mistake(lambda rules, measured: _decision(lambda need, value, i: _met("better_than" if need == "at_least" else need, value, i), rules, measured),
                "You treat `at_least` like `better_than`. It is met, too, when the low end is just the number: ask with `>=`.", credit=0.5),
        Mistake(lambda rules, measured: sorted(_decision(_met, rules, measured)),
                "The names are right, but a set has no order (or you sorted them). Collect them in a list, in the order of the rules.", credit=0.5),
        Mistake(lambda rules, measured: [name for name, *_ in rules if name not in _decision(_met, rules, measured)],
                "You return the rules that are met. Return those that are not.", credit=0.5),
    ],
    after="An empty list means: ship.",
)
