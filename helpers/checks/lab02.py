"""The exercises of lab 02: prompts, what they cost, and the baseline to beat. Lesson 02 explains them."""

from __future__ import annotations

import statistics
from collections import Counter
from functools import cache
from typing import Any, Mapping, Sequence

import numpy as np

from helpers import data, models, prompting

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab02"
Chat = list[dict[str, str]]

# ---------------------------------------------------------------- 1: a few-shot prompt


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _few_shot(instruction: str, shots: Sequence[tuple[str, str]], message: str) -> Chat:
    turns = [turn for asked, said in shots for turn in (_turn("user", asked), _turn("assistant", said))]
    return [_turn("system", instruction), *turns, _turn("user", message)]


def _one_turn(instruction: str, shots: Sequence[tuple[str, str]], message: str) -> Chat:
    return [_turn("system", instruction), _turn("user", "\n".join([f"{asked}\n{said}" for asked, said in shots] + [message]))]


def _turns(value: Any) -> Any:
    """Roles and contents alone: what else stands in a turn does not matter. A turn that is no dict raises, so it stays as it is."""
    return [_turn(turn["role"], turn["content"].strip()) for turn in plain(value)]


exercise_1 = Exercise(
    LAB, 1, 2,
    right=_few_shot,
    cases=lambda: {
        "two examples": ("Name the tone.", [("It leaks again!", "angry"), ("Thank you all.", "thankful")], "Is it safe?"),
        "no example": ("Name the tone.", [], "Where is my order?"),
        "one example": ("Name the tone: angry or neutral.", [("Great. Broken again.", "sarcastic")], "It hums."),
    },
    returns="the list of turns",
    read=_turns,
    mistakes=[
        Mistake(_one_turn,
                "You put the examples into one user turn. A chat model was trained on turns: give each example a user turn, and its label an "
                "assistant turn."),
        Mistake(lambda i, s, m: [turn if turn["role"] != "assistant" else _turn("user", turn["content"]) for turn in _few_shot(i, s, m)],
                "The labels of the examples stand in user turns. The model shall write the label, so in the examples the assistant wrote it."),
        Mistake(lambda i, s, m: _few_shot(i, s, m)[1:],
                "The instruction is missing. It is the first turn, with the role system; without one, this model's template writes its own.", credit=0.5),
        Mistake(lambda i, s, m: [_few_shot(i, s, m)[0], _turn("user", m), *_few_shot(i, s, m)[1:-1]],
                "The message in question stands before the examples. It must be the last turn, because the model answers the last turn.", credit=0.5),
        Mistake(lambda i, s, m: [*_few_shot(i, s, m), _turn("assistant", "")],
                "You end with an empty assistant turn. The prompt ends with the user's message; the chat template opens the answer by itself.", credit=0.5),
    ],
    after="Each label stands where the model's own answer will stand.",
)

# ---------------------------------------------------------------- 2: prompt tokens, predicted and counted


@cache
def _chats() -> dict[str, tuple]:
    """The chats of twelve validation messages, without and with eight examples."""
    parts = data.load_tone()
    rows = list(parts["validation"])[:12]
    shots = prompting.choose_by_label(list(parts["train"]), 8, lambda row: row["messages"][-1]["content"])
    tokenizer = models.load_tokenizer()
    return {
        "the short instruction alone": (tokenizer, [prompting.messages(row) for row in rows]),
        "with eight examples": (tokenizer, [prompting.messages(row, prompting.INSTRUCTIONS["tone"], shots) for row in rows]),
    }


def _tokens(tokenizer: Any, chats: Sequence[Chat]) -> float:
    return statistics.median(models.count_tokens(tokenizer, chat) for chat in chats)


def _two() -> dict[str, tuple]:
    """Two chats of different lengths: their median lies between."""
    tokenizer, chats = next(iter(_chats().values()))
    return {"two messages": (tokenizer, chats[:2])}


def _contents_only(tokenizer: Any, chats: Sequence[Chat]) -> float:
    return statistics.median(sum(len(tokenizer(turn["content"])["input_ids"]) for turn in chat) for chat in chats)


def _ratio() -> float:
    short, long = (_tokens(*arguments) for arguments in _chats().values())
    return long / short


exercise_2 = Exercise(
    LAB, 2, 3,
    right=_tokens,
    cases=lambda: {**_chats(), **_two()},
    returns="the median number of prompt tokens",
    prediction=Prediction(
        "how many times as many tokens a prompt with eight examples and the long instruction has", 1, 100, lambda: round(_ratio(), 1),
        typical=[
            (1, 4, "Each example costs a whole message and its marks, in every request."),
            (15, 100, "A message of this desk is short, so an example is cheaper than you thought; but it is paid for in every request."),
        ]),
    mistakes=[
        Mistake(lambda tokenizer, chats: 2.0,
                "You counted the keys. `apply_chat_template` gives back a mapping with input_ids and attention_mask, and `len` of that is 2. Take "
                "`[\"input_ids\"]` first."),
        Mistake(_contents_only,
                "You count the contents only. The chat template adds marks and role names to every turn, and they are paid for as well: use "
                "`apply_chat_template`.", credit=0.5),
        Mistake(lambda tokenizer, chats: statistics.median(len(tokenizer.apply_chat_template(chat)["input_ids"]) for chat in chats),
                "You left out the generation prompt: the mark and the word `assistant` that open the answer. The model reads them, too: "
                "`add_generation_prompt=True`.", credit=0.5),
        Mistake(lambda tokenizer, chats: statistics.median(len(models.render(tokenizer, chat)) for chat in chats),
                "You count characters of the text. The model reads tokens: pieces of about four characters in English.", credit=0.25),
        Mistake(lambda tokenizer, chats: sum(models.count_tokens(tokenizer, chat) for chat in chats),
                "This is the sum over all chats. One request has one prompt: take the median.", credit=0.5),
        Mistake(lambda tokenizer, chats: statistics.mean(models.count_tokens(tokenizer, chat) for chat in chats),
                "You take the mean. One very long message moves it, and not the median: the value in the middle, `np.median`.", credit=0.5),
    ],
    after="Examples are paid for in every request; tuned weights are not.",
)

# ---------------------------------------------------------------- 3: take the pull of the prompt off


def _scores(seed: int, rows: int) -> np.ndarray:
    """Made-up log-likelihoods, shape (rows, 3): the second label is probable after every message."""
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(0, 1, (rows, 3)) + np.array([-6.0, -2.5, -5.0]), 3)


def _six(seed: int, rows: int) -> np.ndarray:
    """Made-up log-likelihoods of six labels, some of which vary more than others, shape (rows, 6)."""
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(0, 1, (rows, 6)) * [0.4, 2.0, 1.0, 3.0, 0.7, 1.5] + np.array([-6.0, -2.5, -5.0, -7.0, -4.0, -9.0]), 3)


def _pick(scores: Any, others: Any) -> list[int]:
    return (np.asarray(scores) - np.asarray(others).mean(axis=0)).argmax(axis=1).tolist()


def _indices(value: Any) -> Any:
    """Label numbers as whole numbers, also when they came as floats."""
    value = plain(value)
    return [int(item) if isinstance(item, float) and item.is_integer() else item for item in value] if isinstance(value, list) else value


exercise_3 = Exercise(
    LAB, 3, 3,
    right=_pick,
    cases=lambda: {**{f"{rows} messages": (_scores(rows, rows), _scores(99, 40)) for rows in (6, 24, 60)}, "six labels": (_six(6, 30), _six(99, 40))},
    returns="one label number per message",
    read=_indices,
    mistakes=[
        Mistake(lambda scores, others: np.asarray(scores).argmax(axis=1),
                "You take the most probable label as it is, or take the same number off every label. The prompt pulls to one label whatever the "
                "message says: first take off each label's own average over the other messages (the mean over axis 0).", credit=0.25),
        Mistake(lambda scores, others: (np.asarray(scores) + np.asarray(others).mean(axis=0)).argmax(axis=1),
                "You add the average. That doubles the pull of the prompt; take it off."),
        Mistake(lambda scores, others: (np.asarray(scores) / np.asarray(others).mean(axis=0)).argmax(axis=1),
                "You divide by the average. These are logarithms: dividing probabilities is subtracting their logarithms.", credit=0.25),
        Mistake(lambda scores, others: (np.asarray(scores) - np.asarray(scores).mean(axis=0)).argmax(axis=1),
                "You take the average over the messages that you score. Then an answer depends on which other messages are in the same file: use the other "
                "messages, the second argument.", credit=0.5),
        Mistake(lambda scores, others: (np.asarray(scores) - np.asarray(others).mean(axis=1)).argmax(axis=1),
                "The shapes don't fit, so numpy stops. Take off one number per label: the mean of `others` over its messages, `mean(axis=0)`. Over axis 1 "
                "you get one per message.", credit=0.25),
    ],
    after="No gold answer was used, and no model was trained.",
)

# ---------------------------------------------------------------- 4: choose and report


Tried = Mapping[str, Mapping[str, Sequence[float]]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _winner(tried: Tried, part: str) -> str:
    return max(tried, key=lambda name: _mean(tried[name][part]))


def _report(tried: Tried) -> list[Any]:
    name = _winner(tried, "validation")
    return [name, _mean(tried[name]["test"])]


def _tried_cases() -> dict[str, tuple]:
    rng = np.random.default_rng(72)  # arrays, as in the lab; no winner is the best on its first or last rows alone
    ones = lambda k, n: rng.permutation([1.0] * k + [0.0] * (n - k))
    return {
        "the lucky one loses on test rows": ({
            "zero-shot": {"validation": ones(2, 20), "test": ones(5, 40)},
            "8 shots": {"validation": ones(12, 20), "test": ones(12, 40)},
            "long": {"validation": ones(11, 20), "test": ones(19, 40)},
            "nearest": {"validation": ones(9, 20), "test": ones(20, 40)}},),
        "the same winner on both": ({
            "short": {"validation": ones(6, 10), "test": ones(22, 40)}, "long": {"validation": ones(8, 10), "test": ones(25, 40)}},),
        "one prompt": ({"only": {"validation": ones(3, 10), "test": ones(10, 40)}},),
    }


exercise_4 = Exercise(
    LAB, 4, 3,
    right=_report,
    cases=_tried_cases,
    returns="the name of the chosen prompt and the score to report",
    mistakes=[
        Mistake(lambda tried: [_winner(tried, "test"), _mean(tried[_winner(tried, "test")]["test"])],
                "You choose on the test rows. The best of several is partly the luckiest on these rows, and nothing is left to tell you by how much: "
                "choose on validation rows."),
        Mistake(lambda tried: [_winner(tried, "validation"), _mean(tried[_winner(tried, "validation")]["validation"])],
                "You report the validation score of the winner. It won on these rows, so its luck is in the number: report its score on the test rows.",
                credit=0.5),
        Mistake(lambda tried: [_winner(tried, "validation"), max(_mean(parts["test"]) for parts in tried.values())],
                "The name and the number belong to different prompts: you report the best test score of all. Report the test score of the prompt that you "
                "chose.", credit=0.25),
        Mistake(lambda tried: [(name := max(tried, key=lambda n: _mean([*tried[n]["validation"], *tried[n]["test"]]))), _mean(tried[name]["test"])],
                "You choose on validation and test rows together. Then the test rows helped to choose, and their score is too good."),
    ],
    after="The test rows were looked at once, for one prompt.",
)

# ---------------------------------------------------------------- 5: the sceptic's baseline


def _common(labels: Sequence[str]) -> str:
    return Counter(labels).most_common(1)[0][0]


exercise_5 = Exercise(
    LAB, 5, 2,
    right=lambda train, test: test.count(_common(train)) / len(test),
    cases=lambda: {
        "other shares in test": (["angry"] * 5 + ["neutral"] * 9 + ["worried"] * 3, ["angry"] * 6 + ["neutral"] * 4 + ["worried"] * 2),
        "a label that is rare in test": (["worried"] * 4 + ["angry"] * 3, ["angry", "neutral", "neutral", "worried"]),
        "a label that test does not have": (["thankful"] * 4 + ["angry"] * 3, ["angry", "neutral"]),
        "another label in the lead in test": (["worried"] + ["angry"] * 3 + ["neutral"] * 4, ["angry"] * 6 + ["neutral"] * 2 + ["worried"] * 3),
    },
    returns="the share of test rows, a number from 0 to 1",
    mistakes=[
        Mistake(lambda train, test: test.count(_common(test)) / len(test),
                "You take the most common label of the test rows. A system may not look at the test answers, and neither may a baseline: find it in train.",
                credit=0.5),
        Mistake(lambda train, test: train.count(_common(train)) / len(train),
                "This is its share in train. The baseline is scored like every system: on the test rows.", credit=0.25),
        Mistake(lambda train, test: 1 / len(set(train)),
                "This is guessing: one of the labels by chance. Whoever always says the most common label does better when labels are not equally common."),
        Mistake(lambda train, test: test.count(_common(train)),
                "This is a number of rows. Divide by the number of test rows.", credit=0.5),
        Mistake(lambda train, test: test.count(_common(train + test)) / len(test),
                "You count the labels of train and test together. Then the test answers help to choose the label: find it in train alone.", credit=0.5),
        Mistake(lambda train, test: sum(label == Counter(train).most_common(1)[0] for label in test) / len(test),
                "You find no right row at all: you compare each test label with something that is no label. `most_common(1)` gives a list of pairs (label, "
                "count): take `[0][0]`.", credit=0.5),
    ],
    after="A score that is not clearly above this number has learned nothing about the messages.",
)
