"""The exercises of lab 11: a learner's own data, from the decision to the card. Lessons 01, 04, 05 and 08 explain them."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from helpers import data, evaluation, models

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab11"
MASKED = -100
Row = Mapping[str, Any]

# ---------------------------------------------------------------- 1: what the test rows can tell


def _p(wins: int, losses: int, sides: int = 2) -> float:
    """The exact p value of the permutation test on rows that differ: wins one way, losses the other."""
    tail = sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1)) / 2 ** (wins + losses)
    return min(1.0, sides * tail)


def _least(losses: int, enough: Callable[[int], bool]) -> int:
    return next(wins for wins in range(losses + 1, 200) if enough(wins))


def _wins_needed(losses: int) -> int:
    return _least(losses, lambda wins: _p(wins, losses) < 0.05)


def _by_interval(losses: int) -> int:
    return _least(losses, lambda wins: evaluation.compare_paired([1] * wins + [0] * losses, [0] * wins + [1] * losses).low > 0)


exercise_1 = Exercise(
    LAB, 1, 3,
    right=_wins_needed,
    cases=lambda: {"no row is lost": (0,), "one row is lost": (1,), "two rows are lost": (2,), "three rows are lost": (3,), "five rows are lost": (5,)},
    returns="the least number of rows that must be won, a whole number",
    prediction=Prediction(
        "the rows that must be won when none is lost", 0, 30, lambda: _wins_needed(0),
        typical=[
            (0, 3, "So few can be luck: two equal systems win three rows and lose none in one of eight such cases, and as often the other way round."),
            (4, 5, "Nearly: five of five comes by luck in 1 of 32 cases, and the test counts the other direction, too."),
            (7, 30, "It takes fewer than you thought, if no row is lost. Each lost row costs more than one won row."),
        ]),
    mistakes=[
        Mistake(lambda losses: _least(losses, lambda wins: _p(wins, losses, 1) < 0.05),
                "You ask for luck in one direction only. Before you measured, the baseline could as well have been the better one: count both directions.", credit=0.5),
        Mistake(lambda losses: _wins_needed(losses) - 1,
                "You return the last number that is not enough. Asked is the first one whose p value is below 0.05.", credit=0.5),
        Mistake(lambda losses: _wins_needed(losses) - losses,
                "You return the lead, wins minus losses. Asked are the wins: the losses are given.", credit=0.5),
        Mistake(lambda losses: _p(_wins_needed(losses), losses),
                "This is the p value. Return the number of won rows for which it first falls below 0.05.", credit=0.25),
        Mistake(_by_interval,
                "You use the bootstrap interval. With a handful of rows that differ it is too sure (lesson 08): take the exact permutation test.", credit=0.5),
        Mistake(lambda losses: losses + 1,
                "You ask whether the tuned model is ahead at all. One row more is what luck alone gives every second time: ask the p value."),
    ],
    after="The number of test rows is not in it: more rows only make it easier to find so many wins.",
)

# ---------------------------------------------------------------- 2: right or wrong


def _label(text: str) -> str:
    return text.strip().strip(".!?\"'").strip().lower()


def _same_json(answer: str, gold: str, same: Callable[[Any, Any], bool] = lambda a, b: json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)) -> bool:
    said, record = evaluation.parse_record(answer), evaluation.parse_record(gold)
    return said is not None and same(said, record)


def _is_right(answer: str, gold: str, clean: Callable[[str], str] = _label, clean_gold: Callable[[str], str] | None = None) -> bool:
    return _same_json(answer, gold) if evaluation.parse_record(gold) is not None else clean(answer) == (clean_gold or clean)(gold)


def _repaired(answer: str, gold: str) -> bool:
    """The object is cut out of the text around it."""
    if evaluation.parse_record(gold) is None or "{" not in answer:
        return _is_right(answer, gold)
    return _same_json(answer[answer.index("{"): answer.rindex("}") + 1], gold)


def _loads_all(answer: str, gold: str) -> bool:
    if evaluation.parse_record(gold) is None:
        return _label(answer) == _label(gold)
    return _same_json(json.dumps(json.loads(answer)), gold)


def _yes_or_no(value: Any) -> Any:
    found = plain(value)
    found = found[0] if isinstance(found, list) and len(found) == 1 else found  # a score of one row
    return bool(found) if found in (0, 1) else found


def _answers() -> dict[str, tuple]:
    ticket = '{"bike": "city", "job": "service", "urgent": true}'
    return {
        "the same word": ("loans", "loans"), "another word": ("rooms", "loans"),
        "a word with a full stop and a capital": ("Loans.", "loans"),
        "a word in quotes, spaces around it": (' "Loans!" ', "loans"), "gold with a full stop and a capital": ("loans", "Loans."),
        "a full stop within the text": ("35 days", "3.5 days"), "a space within the text": ("every day", "everyday"),
        "a sentence that holds the word": ("not loans, but rooms", "loans"), "nothing": ("", "loans"),
        "gold is a list, not an object": ('["a","b"]', '["a", "b"]'), "the same record": (ticket, ticket),
        "the record without spaces": ('{"bike":"city","job":"service","urgent":true}', ticket),
        "the record in another order": ('{"urgent": true, "job": "service", "bike": "city"}', ticket),
        "one field is wrong": ('{"bike": "city", "job": "chain", "urgent": true}', ticket), "another letter is large": ('{"job": "service", "bike": "City", "urgent": true}', ticket),
        "a field is missing": ('{"bike": "city", "job": "service"}', ticket), "a field too many": ('{"bike": "city", "job": "service", "urgent": true, "size": 2}', ticket),
        "1 instead of true": ('{"bike": "city", "job": "service", "urgent": 1}', ticket),
        "a full stop behind the record": ('{"urgent": true, "job": "service", "bike": "city"}.', ticket), "the record in capitals": (ticket.upper(), ticket),
        "a text around the record": (f"Here is the ticket: {ticket}", ticket), "a record that breaks off": (ticket[:-9], ticket),
    }


exercise_2 = Exercise(
    LAB, 2, 3,
    right=_is_right,
    cases=_answers,
    returns="True or False",
    read=_yes_or_no,
    mistakes=[
        Mistake(lambda answer, gold: _is_right(answer, gold, lambda text: text.strip().strip(".").lower()),
                "You don't take off all that doesn't matter: spaces and each of the marks .!?\"' at both ends, so that ' \"Loans!\" ' is loans.", credit=0.75),
        Mistake(lambda answer, gold: _is_right(answer, gold, _label, str.strip),
                "You prepare the answer, but not gold. Gold may be written `Loans.`, too: treat both sides the same way.", credit=0.75),
        Mistake(lambda answer, gold: answer == gold,
                "You compare letter by letter. `Loans.` is the label loans, and a record may have its keys in another order or no spaces.", credit=0.25),
        Mistake(lambda answer, gold: _label(answer) == _label(gold),
                "Labels are compared well, records as text. A record may have its keys in another order: when gold is JSON, compare the two objects.", credit=0.5),
        Mistake(lambda answer, gold: _label(gold) in _label(answer),
                "You look for gold inside the answer. 'not loans, but rooms' then counts as loans. The answer itself must be it.", credit=0.25),
        Mistake(lambda answer, gold: _same_json(answer, gold, lambda a, b: a == b) if evaluation.parse_record(gold) is not None else _label(answer) == _label(gold),
                "Python says 1 == True, JSON does not: 1 is a wrong value for a field that takes true or false. Compare `json.dumps(…, sort_keys=True)` of both.",
                credit=0.75),
        Mistake(_loads_all,
                "An answer that is no JSON stops your function, and with it the whole evaluation. Such an answer is wrong: `evaluation.parse_record` gives None.",
                credit=0.5),
        Mistake(_repaired,
                "You cut the record out of the text around it. The program behind the model gets the whole answer: only an answer that is one object and nothing "
                "else is right.", credit=0.5),
        Mistake(lambda answer, gold: not _is_right(answer, gold), "You return True for wrong answers. Turn it round.", credit=0.25),
        Mistake(lambda answer, gold: _is_right(answer, gold, str),
                "Records are compared well, labels letter by letter. `Loans.` with a capital and a full stop is the label loans.", credit=0.75),
    ],
    after="One rule for all systems, written before any of them answered.",
)

# ---------------------------------------------------------------- 3: what may join the training rows


def _key(text: str) -> str:
    return " ".join(text.lower().split())


def _word(line: str, asked: set[str], key: Callable[[Row], str], answer: Callable[[Mapping[str, Any]], bool]) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return "not JSON"
    if not isinstance(row, dict) or not row.get("messages"):
        return "no messages"
    if not answer(row["messages"][-1]):
        return "no answer"
    return "in test" if key(row) in asked else "good"


def _sorted_out(lines: Sequence[str], test: Sequence[Row], key: Callable[[Row], str] = lambda row: _key(data.prompt_of(row)),
                answer: Callable[[Mapping[str, Any]], bool] = lambda turn: turn["role"] == "assistant" and bool(turn["content"].strip())) -> list[str]:
    return [_word(line, {key(row) for row in test}, key, answer) for line in lines]


def _until_the_first(lines: Sequence[str], test: Sequence[Row]) -> list[str]:
    """A `try` around the whole loop."""
    words = _sorted_out(lines, test)
    return words[: words.index("not JSON") + 1] if "not JSON" in words else words


def _chat(number: int, question: str, answer: str) -> dict[str, Any]:
    turns = [("system", "Name the desk."), ("user", question), ("assistant", answer)]
    return {"id": f"r{number}", "messages": [{"role": role, "content": text} for role, text in turns]}


def _deliveries() -> dict[str, tuple]:
    test = [_chat(n, text, "rooms") for n, text in enumerate(("Is the small room free on Friday?", "My locker does not open.", "Where can I print a form?"))]
    good = [_chat(n, text, "loans") for n, text in enumerate(("May I keep the atlas a week longer?", "Please reserve the new one for me.", "I bring it back on Monday."), 10)]
    unanswered = _chat(20, "How long may I keep a film?", "loans")
    return {
        "all are good": ([json.dumps(row) for row in good], test),
        "a line that breaks off, then a good one": ([json.dumps(good[0])[:50], json.dumps(good[1])], test),
        "other columns, a list, a number": ([json.dumps({"prompt": "Where is it?", "completion": "rooms"}), json.dumps([1, 2]), "7", json.dumps(good[2])], test),
        "no answer in five forms": ([json.dumps(unanswered | {"messages": unanswered["messages"][:2]}), json.dumps(_chat(21, "How much is a copy?", "")),
                                     json.dumps(_chat(22, "And a colour copy?", "  ")), json.dumps(_chat(23, "Where can I print a form?", "")),
                                     json.dumps({"messages": [*good[0]["messages"], good[1]["messages"][1]]})], test),
        "questions of the test part": ([json.dumps(test[0]), json.dumps(_chat(30, "MY LOCKER  does not open.", "rooms")), json.dumps(_chat(31, "Where can I print a form?", "account")),
                                        json.dumps(good[0])], test),
        "some of each": ([json.dumps(good[0]), '{"messages"', json.dumps({"messages": []}), json.dumps(_chat(40, "Is it open?", "")),
                           json.dumps(_chat(41, "My locker does not open.", "rooms")), json.dumps(good[1])], test),
    }


exercise_3 = Exercise(
    LAB, 3, 3,
    right=_sorted_out,
    cases=_deliveries,
    returns="a list with one of the five words per line",
    mistakes=[
        Mistake(lambda lines, test: _sorted_out(lines, test, key=data.prompt_of),
                "A question in capital letters, or with one more space, is still the question of the test part. Compare `key(row)`.", credit=0.5),
        Mistake(lambda lines, test: _sorted_out(lines, test, key=lambda row: json.dumps([turn["content"] for turn in row["messages"]])),
                "You compare questions and answers together. A question of the test part with another answer is a leak, too, and its label contradicts the test.",
                credit=0.5),
        Mistake(lambda lines, test: _sorted_out(lines, test, key=lambda row: json.dumps(row)),
                "You compare whole rows. A copy of a test question has another id, and perhaps another answer: compare the questions, `key(row)`.", credit=0.5),
        Mistake(lambda lines, test: _sorted_out(lines, [], key=lambda row: row["id"]),
                "You let questions of the test part in. Then the test asks what was trained, and its score says nothing about new questions.", credit=0.5),
        Mistake(lambda lines, test: _sorted_out(lines, test, answer=lambda turn: turn["role"] == "assistant"),
                "An answer without text passes. It would teach the model to say nothing: ask whether something is left after `.strip()`.", credit=0.5),
        Mistake(lambda lines, test: _sorted_out(lines, test, answer=lambda turn: turn["role"] == "assistant" and bool(turn["content"])),
                "An answer of spaces passes. Ask whether something is left after `.strip()`.", credit=0.75),
        Mistake(lambda lines, test: _sorted_out(lines, test, answer=lambda turn: bool(turn["content"].strip())),
                "A row that ends with the user's question passes as answered. Look at the role of the last turn.", credit=0.5),
        Mistake(lambda lines, test: [word for word in _sorted_out(lines, test) if word == "good"],
                "You leave out what is not good. Nothing is dropped in silence: give every line its word, so that somebody can mend it.", credit=0.25),
        Mistake(_until_the_first,
                "You stop at the first line that is no JSON. Put `try` inside the loop, around one line.", credit=0.5),
    ],
    after="Every line has its word, so that it can be mended or sent back.",
)

# ---------------------------------------------------------------- 4: a mask that searches


def _ids(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    return tokenizer.apply_chat_template(messages)["input_ids"]


def _from(ids: list[int], start: int) -> list[int]:
    return [MASKED] * start + ids[start:]


def _labels(tokenizer: Any, messages: Sequence[Mapping[str, str]], opened: bool = True) -> list[int]:
    return _from(_ids(tokenizer, messages), len(tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=opened)["input_ids"]))


def _without_end(tokenizer: Any, labels: list[int]) -> list[int]:
    return [MASKED if label == tokenizer.pad_token_id else label for label in labels]


def _searched(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Trained from the first place on where the answer's text stands; the broken script of the notebook has `_without_end` besides."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    coded = tokenizer(text, return_offsets_mapping=True)
    start = text.index(messages[-1]["content"])
    return [token if begin >= start else MASKED for token, (begin, _) in zip(coded["input_ids"], coded["offset_mapping"])]


@cache
def _mask_rows() -> dict[str, tuple]:
    tokenizer = models.load_tokenizer()
    said = [{"role": "system", "content": "Answer yes or no."}, {"role": "user", "content": "Is it true? I say no."}, {"role": "assistant", "content": "no"}]
    library, bicycles = (data.load_own(name)["train"][0]["messages"] for name in ("library", "bicycles"))
    return {"a row of library": (tokenizer, library), "a row of bicycles": (tokenizer, bicycles), "the question holds the answer": (tokenizer, said),
            "two questions, two answers": (tokenizer, [*said, said[1] | {"content": "Is it new?"}, said[2] | {"content": "yes"}])}


exercise_4 = Exercise(
    LAB, 4, 3,
    right=_labels,
    also_right=[lambda t, m: [*_labels(t, m)[:-1], MASKED]],  # the line break after the end mark is not trained
    cases=lambda: dict(_mask_rows()),
    returns="a list of labels, one per token of the row",
    mistakes=[
        Mistake(lambda t, m: _without_end(t, _searched(t, m)),
                "Nothing has changed: the labels still begin where the answer's text stands for the first time, and the end mark is still masked."),
        Mistake(_searched,
                "The end mark is learned now. But the labels still begin at the first place of the answer's text, and that may be in the instruction. "
                "Don't search: count the tokens of the prompt.", credit=0.5),
        Mistake(lambda t, m: _without_end(t, _labels(t, m)),
                "The labels begin in the right place now. But the end mark is still masked: it is the same token as padding, and one row has no padding.", credit=0.5),
        Mistake(lambda t, m: _labels(t, m, opened=False),
                "Your labels begin a few tokens too early: the mark and the word that open the answer are trained. Make the prompt with `add_generation_prompt=True`.",
                credit=0.5),
        Mistake(lambda t, m: _without_end(t, _labels(t, m, opened=False)),
                "Two things are left: the mark that opens the answer is trained (use `add_generation_prompt=True`), and the end mark is masked.", credit=0.25),
        Mistake(_ids, "Every token is trained. Then most of the loss is the prompt: mask what comes before the answer."),
        Mistake(lambda t, m: _labels(t, m)[1:] + [MASKED],
                "Your labels are shifted by one. The model shifts them itself: the label of a position is the token of the same position."),
        Mistake(lambda t, m: [label for label in _labels(t, m) if label != MASKED],
                f"You return the trained tokens alone. Labels are as long as the row: {MASKED} for each token before the answer.", credit=0.25),
        Mistake(lambda t, m: _from(_ids(t, m), len(_ids(t, m)) - len(t(m[-1]["content"])["input_ids"])),
                "You count the answer's tokens back from the end of the row. But behind the answer stand the end mark and a line break. Count the prompt.", credit=0.25),
        Mistake(lambda t, m: [MASKED, MASKED],
                "You took the length of what the template gives back, which is 2: it holds input_ids and attention_mask. Take its `[\"input_ids\"]`.", credit=0.25),
    ],
    after="The mask follows from the template, not from what the text happens to say.",
)

# ---------------------------------------------------------------- 5: what goes on the card

Scores = Mapping[str, Sequence[float]]


def _baselines(scores: Scores) -> list[str]:
    return [name for name in scores if name != "tuned"]


def _best(scores: Scores) -> Sequence[float]:
    return scores[max(_baselines(scores), key=lambda name: np.mean(scores[name]))]


def _card(scores: Scores, leaks: int, tokens: float, against: Callable[[Scores], Sequence[float]] = _best, **changed: Any) -> dict[str, Any]:
    tuned, other = np.asarray(scores["tuned"], float), np.asarray(against(scores), float)
    return {"right": evaluation.proportion(tuned), "lead": evaluation.compare_paired(tuned, other), "luck": evaluation.permutation_test(tuned, other),
            "clean": leaks, "cost": tokens} | changed


def _unpaired(scores: Scores) -> list[float]:
    rng, means = np.random.default_rng(0), []
    for values in (np.asarray(scores["tuned"], float), np.asarray(_best(scores), float)):
        means.append(values[rng.integers(0, len(values), size=(10_000, len(values)))].mean(axis=1))
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return [float(np.mean(scores["tuned"]) - np.mean(_best(scores))), float(low), float(high)]


def _subtracted(scores: Scores) -> list[float]:
    a, b = evaluation.proportion(scores["tuned"]), evaluation.proportion(_best(scores))
    return [a.estimate - b.estimate, a.low - b.low, a.high - b.high]


def _systems(rows: int, tuned: int, **baselines: int) -> dict[str, list[float]]:
    """So many right rows for each system, mostly the same ones; the tuned one loses two that the others win."""
    order, made = np.random.default_rng(5).permutation(rows), {}
    for name, right in [*baselines.items(), ("tuned", tuned)]:
        each, first = np.zeros(rows), 2 if name == "tuned" and right < rows else 0
        each[order[first: right + first]] = 1
        made[name.replace("_", "-")] = each.tolist()
    return made


@cache
def _runs() -> dict[str, tuple]:
    return {
        "few-shot is the better baseline": (_systems(40, 22, always_the_same=8, zero_shot=12, few_shot=19), 0, 61.0),
        "zero-shot is the better baseline": (_systems(60, 33, always_the_same=15, zero_shot=31, few_shot=22), 3, 84.0),
        "a guess is the better baseline": (_systems(50, 24, few_shot=20, zero_shot=6, always_the_same=33), 0, 240.0),
        "all are right": (dict(reversed(_systems(30, 30, zero_shot=12, few_shot=21).items())), 0, 55.5),
    }


def _three(value: Any) -> Any:
    """An interval as its estimate, low and high end; all else as it is."""
    return {name: [item.estimate, item.low, item.high] if hasattr(item, "low") else (found[:3] if isinstance(found := plain(item), list) else found)
            for name, item in value.items()}


def _against(choose: Callable[[Scores], Sequence[float]]) -> Callable[..., dict[str, Any]]:
    return lambda scores, leaks, tokens: _card(scores, leaks, tokens, choose)


exercise_5 = Exercise(
    LAB, 5, 3,
    right=_card,
    cases=lambda: dict(_runs()),
    returns="a dict with right, lead, luck, clean and cost",
    read=_three,
    rtol=0, atol=0.03,
    mistakes=[
        Mistake(_against(lambda s: s["few-shot"]),
                "You compare with few-shot whatever the others reach. Take the baseline with the most right rows; sometimes that is a guess.", credit=0.5),
        Mistake(_against(lambda s: s["zero-shot"]),
                "You compare with zero-shot whatever the others reach. Whoever can write a prompt starts from the best baseline: take that one.", credit=0.5),
        Mistake(_against(lambda s: s[min(_baselines(s), key=lambda name: np.mean(s[name]))]),
                "You compare with the weakest baseline. A lead over it is easy and says little: take the best one.", credit=0.5),
        Mistake(_against(lambda s: max(s.values(), key=np.mean)),
                "You look for the best among all systems, the tuned one too. Where it is the best it then leads itself by 0: leave it out.", credit=0.5),
        Mistake(lambda s, leaks, tokens: _card(s, leaks, tokens, lead=evaluation.compare_paired(_best(s), s["tuned"])),
                "The sign of lead is turned: this is the baseline minus the tuned model. Give the tuned scores first.", credit=0.5),
        Mistake(lambda s, leaks, tokens: _card(s, leaks, tokens, lead=_unpaired(s)),
                "You draw the rows of both systems separately. Both answered the same rows: `evaluation.compare_paired` draws them once.", credit=0.5),
        Mistake(lambda s, leaks, tokens: _card(s, leaks, tokens, lead=_subtracted(s)),
                "You subtract the ends of two intervals. That is no interval of the difference: `evaluation.compare_paired` makes it from the rows.", credit=0.5),
        Mistake(lambda s, leaks, tokens: _card(s, leaks, tokens, right=evaluation.bootstrap(s["tuned"])),
                "`right` is a share of ones: take `evaluation.proportion`. The bootstrap calls 30 of 30 exactly 1, without any doubt.", credit=0.75),
        Mistake(lambda s, leaks, tokens: _card(s, leaks, tokens, right=float(np.mean(s["tuned"]))),
                "`right` has no interval. The rule asks for its low end: `evaluation.proportion` gives the share with its interval.", credit=0.5),
        Mistake(lambda s, leaks, tokens: _card(s, leaks, tokens, lead=float(np.mean(s["tuned"]) - np.mean(_best(s)))),
                "`lead` has no interval. The rule asks for its low end: `evaluation.compare_paired` gives the difference with its interval.", credit=0.5),
    ],
    after="The card decides now, and no longer anybody's hope.",
)
