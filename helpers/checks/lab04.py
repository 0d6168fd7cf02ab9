"""The exercises of lab 04: from a row to the tokens that the loss sees, and splits without copies. Lesson 04 explains them."""

from __future__ import annotations

import random
from functools import cache
from typing import Any, Mapping, Sequence

from helpers import data, models

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab04"
MASKED = -100
Prepared = dict[str, list[int]]

# ---------------------------------------------------------------- 1: the labels of a row


def _parts(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[int]]:
    """The tokens of the prompt, up to where the answer begins, and those of the whole row."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    return prompt, tokenizer.apply_chat_template(messages)["input_ids"]


def _row(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Prepared:
    prompt, ids = _parts(tokenizer, messages)
    return {"input_ids": ids, "labels": [MASKED] * len(prompt) + ids[len(prompt):]}


def _cut(prepared: Prepared, tokens: int) -> Prepared:
    return {name: values[: len(values) - tokens] for name, values in prepared.items()}


def _header_trained(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Prepared:
    """The prompt was made without the generation prompt, so the mark and the word `assistant` are trained."""
    start = len(tokenizer.apply_chat_template(messages[:-1])["input_ids"])
    ids = _parts(tokenizer, messages)[1]
    return {"input_ids": ids, "labels": [MASKED] * start + ids[start:]}


def _shifted(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Prepared:
    right = _row(tokenizer, messages)
    return {"input_ids": right["input_ids"], "labels": [*right["labels"][1:], MASKED]}


@cache
def _rows() -> dict[str, tuple]:
    tokenizer, tone, extract = models.load_tokenizer(), data.load_tone(), data.load_extract()
    first, second = (tone["train"][n]["messages"] for n in (0, 1))
    return {"a row of tone": (tokenizer, first), "a row of extract": (tokenizer, extract["train"][3]["messages"]),
            "two questions, two answers": (tokenizer, [*first, *second[1:]])}


def _first_answer_on(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Prepared:
    """The prompt was made of the first two turns, however many there are."""
    start, ids = len(_parts(tokenizer, messages[:3])[0]), _parts(tokenizer, messages)[1]
    return {"input_ids": ids, "labels": [MASKED] * start + ids[start:]}


def _names(value: Any) -> Any:
    """Without the attention_mask that the tokenizer gives besides: one row has no padding, so it is 1 everywhere."""
    value = plain(value)
    return {name: item for name, item in value.items() if name != "attention_mask" or 0 in item}


def _prompt_trained(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    return (f"Your labels include the prompt: positions 0–{len(_parts(tokenizer, messages)[0]) - 1} should be {MASKED}. As it is, the model would "
            "mostly learn to write customers' messages.")


exercise_1 = Exercise(
    LAB, 1, 3,
    right=_row,
    also_right=[lambda t, m: _cut(_row(t, m), 1),  # without the line break after the end mark, or with its label masked: nothing is lost
                lambda t, m: (row := _row(t, m)) | {"labels": [*row["labels"][:-1], MASKED]}],
    cases=lambda: dict(_rows()),
    returns="a dict with input_ids and labels",
    read=_names,
    mistakes=[
        Mistake(lambda t, m: {"input_ids": _parts(t, m)[1], "labels": _parts(t, m)[1]}, _prompt_trained),
        Mistake(_header_trained,
                "Your labels begin a few tokens too early: the mark and the word `assistant` that open the answer are trained. They belong to the "
                "prompt; make it with `add_generation_prompt=True`.", credit=0.5),
        Mistake(_first_answer_on,
                "You take the first two turns, or all before the first answer, for the prompt. A row may have more turns: the prompt is all but the last, "
                "`messages[:-1]`.", credit=0.5),
        Mistake(lambda t, m: _cut(_row(t, m), 2),
                "The end mark is missing. Nothing tells the model where the answer ends: keep `<|im_end|>` in input_ids and in labels.", credit=0.5),
        Mistake(lambda t, m: (row := _row(t, m)) | {"labels": [*row["labels"][:-2], MASKED, MASKED]},
                "The end mark stands in input_ids, but it is masked in labels. Then it is not learned: its label is its own token.", credit=0.5),
        Mistake(_shifted,
                "Your labels are shifted by one. The model shifts them itself: the label of a position is the token of the same position."),
        Mistake(lambda t, m: {"input_ids": _row(t, m)["labels"], "labels": _row(t, m)["labels"]},
                f"input_ids holds {MASKED} as well. `labels = ids` gives the same list a second name, so a change of one changes both: make a copy, "
                "`labels = list(ids)`."),
        Mistake(lambda t, m: {name: [values] for name, values in _row(t, m).items()},
                "Your lists stand in one more list: a batch with one row. With `return_tensors=\"pt\"` the tokenizer makes one; leave it out, or take `[0]`.",
                credit=0.5),
        Mistake(lambda t, m: {"input_ids": _parts(t, m)[1], "labels": _parts(t, m)[1][len(_parts(t, m)[0]):]},
                f"labels is shorter than input_ids: you cut the prompt off. It stays in its place; write {MASKED} for each of its tokens.", credit=0.25),
    ],
    after="The loss sees the answer and its end mark, and nothing else.",
)

# ---------------------------------------------------------------- 2: the share of the prompt, predicted and measured


def _count(rows: Sequence[Prepared]) -> tuple[int, int, int]:
    """Tokens of the prompts, of the answers, and of padding."""
    marks = [(label != MASKED, real) for row in rows for label, real in zip(row["labels"], row["attention_mask"])]
    answer = sum(trained for trained, _ in marks)
    padding = sum(not real for _, real in marks)
    return len(marks) - answer - padding, answer, padding


def _prompt_share(rows: Sequence[Prepared]) -> float:
    prompt, answer, _ = _count(rows)
    return prompt / (prompt + answer)


@cache
def _tone_rows() -> list[Prepared]:
    """Sixteen tone rows as a collator makes them: filled up on the right to the longest."""
    tokenizer = models.load_tokenizer()
    rows = [_row(tokenizer, row["messages"]) for row in list(data.load_tone()["train"])[:16]]
    return _padded(rows, tokenizer.pad_token_id)


def _padded(rows: Sequence[Prepared], pad: int) -> list[Prepared]:
    longest = max(len(row["input_ids"]) for row in rows)
    made = []
    for row in rows:
        gap = longest - len(row["input_ids"])
        made.append({"input_ids": row["input_ids"] + [pad] * gap, "labels": row["labels"] + [MASKED] * gap,
                     "attention_mask": [1] * len(row["input_ids"]) + [0] * gap})
    return made


def _small_rows() -> list[Prepared]:
    return _padded([{"input_ids": list(range(10, 18)), "labels": [MASKED] * 6 + [16, 17]}, {"input_ids": [20, 21, 22], "labels": [MASKED, 21, 22]}], 2)


exercise_2 = Exercise(
    LAB, 2, 2,
    right=_prompt_share,
    cases=lambda: {"two small rows": (_small_rows(),), "sixteen rows of tone": (_tone_rows(),)},
    returns="the share of the prompt, a number from 0 to 1",
    prediction=Prediction(
        "the share of the prompt in the tokens of `tone`", 0, 1, lambda: _prompt_share(_tone_rows()),
        typical=[(0, 0.8, "An answer of `tone` is one word. The prompt holds the instruction, the message, and the marks of three turns.")]),
    mistakes=[
        Mistake(lambda rows: (c := _count(rows))[1] / (c[0] + c[1]),
                "This is the share of the answers. The prompt's share is what is left to 1.", credit=0.5),
        Mistake(lambda rows: ((c := _count(rows))[0] + c[2]) / sum(c),
                "You count padding as prompt. It has the label -100 too, but it is no token of the row: leave out where attention_mask is 0.", credit=0.5),
        Mistake(lambda rows: (c := _count(rows))[0] / sum(c),
                "Padding is among the tokens that you divide by. Leave it out there as well: divide by the tokens where attention_mask is 1.", credit=0.5),
        Mistake(lambda rows: sum(_prompt_share([row]) for row in rows) / len(rows),
                "You take the mean of the rows' shares. In the loss every token counts the same, so long rows count more: add up the tokens of all rows first.",
                credit=0.5),
        Mistake(lambda rows: 100 * _prompt_share(rows), "This is a percentage. Return the share: a number from 0 to 1.", credit=0.5),
    ],
    after="If the prompt were trained too, it would fill nearly the whole loss.",
)

# ---------------------------------------------------------------- 3: what a limit cuts


def _cut_kind(prompt: int, answer: int, limit: int) -> str:
    return "whole" if prompt + answer <= limit else "no label left" if prompt >= limit else "answer cut"


exercise_3 = Exercise(
    LAB, 3, 2,
    right=lambda rows, limit: [_cut_kind(p, a, limit) for p, a in rows],
    cases=lambda: {
        "clear cases": ([(50, 20), (90, 30), (150, 40), (30, 120)], 100),
        "just on the limit": ([(80, 20), (100, 20), (99, 20), (99, 1), (81, 20)], 100),
        "tickets": ([(118, 66), (70, 58), (128, 64), (140, 71), (64, 64)], 128),
    },
    returns="one of the three words per row",
    mistakes=[
        Mistake(lambda rows, limit: ["whole" if p + a < limit else "no label left" if p >= limit else "answer cut" for p, a in rows],
                "A row that is exactly as long as the limit is whole: nothing is cut off.", credit=0.5),
        Mistake(lambda rows, limit: ["whole" if p + a <= limit else "no label left" if p > limit else "answer cut" for p, a in rows],
                "When the prompt fills the limit to the last token, no label is left: the answer begins behind it.", credit=0.5),
        Mistake(lambda rows, limit: ["whole" if p + a <= limit else "answer cut" for p, a in rows],
                "You don't see the rows that lose the whole answer. They teach nothing, and TRL drops them in silence: look at the prompt's length.", credit=0.5),
        Mistake(lambda rows, limit: ["whole" if p <= limit else "no label left" for p, _ in rows],
                "You look at the prompt alone. The row is prompt and answer, and the answer stands at the end, where it is cut."),
        Mistake(lambda rows, limit: ["whole" if p + a <= limit else "no label left" if a >= limit else "answer cut" for p, a in rows],
                "You take the start of the row off. The trainer cuts the end, where the answer stands: compare the prompt with the limit."),
    ],
    after="Rows of the second kind are worse than those of the third: they teach answers that break off.",
)

# ---------------------------------------------------------------- 4: a batch for training


def _collate(rows: Sequence[Prepared], pad: int) -> dict[str, list[list[int]]]:
    made = _padded(rows, pad)
    return {name: [row[name] for row in made] for name in ("input_ids", "attention_mask", "labels")}


def _turned(rows: Sequence[Prepared], pad: int) -> dict[str, list[list[int]]]:
    """The same with the padding on the left: as good in training."""
    batch = _collate(rows, pad)
    gaps = [mask.count(0) for mask in batch["attention_mask"]]
    return {name: [values[len(values) - gap:] + values[: len(values) - gap] for values, gap in zip(column, gaps)] for name, column in batch.items()}


def _end_masked(rows: Sequence[Prepared], pad: int) -> dict[str, list[list[int]]]:
    batch = _collate(rows, pad)
    return batch | {"labels": [[MASKED if token == pad else label for token, label in zip(*pair)] for pair in zip(batch["input_ids"], batch["labels"])]}


def _pad_trained(rows: Sequence[Prepared], pad: int) -> dict[str, list[list[int]]]:
    batch = _collate(rows, pad)
    where = zip(batch["labels"], batch["attention_mask"])
    return batch | {"labels": [[label if real else pad for label, real in zip(*pair)] for pair in where]}


def _mask_by_token(rows: Sequence[Prepared], pad: int) -> dict[str, list[list[int]]]:
    batch = _collate(rows, pad)
    return batch | {"attention_mask": [[int(token != pad) for token in ids] for ids in batch["input_ids"]]}


def _short_rows() -> list[Prepared]:
    return [{"input_ids": [5, 6, 7, 2, 9], "labels": [MASKED, MASKED, 7, 2, 9]}, {"input_ids": [5, 8, 2], "labels": [MASKED, 8, 2]}]


exercise_4 = Exercise(
    LAB, 4, 3,
    right=_collate,
    also_right=[_turned],
    cases=lambda: {
        "two rows, the end mark is the padding token": (_short_rows(), 2),
        "three rows": ([*_short_rows(), {"input_ids": [5, 2], "labels": [MASKED, 2]}], 2),
        "another padding token": (_short_rows(), 0),
        "equal lengths": ([{"input_ids": [3, 2], "labels": [MASKED, 2]}, {"input_ids": [4, 2], "labels": [MASKED, 2]}], 2),
    },
    returns="a dict with input_ids, attention_mask and labels, each with one list per row",
    mistakes=[
        Mistake(_end_masked,
                "You mask every token that is the padding token. In this model padding and the end mark are the same token, so the real end marks are masked, too, "
                "and the model never learns to stop. Mask by length, not by token.", credit=0.5),
        Mistake(_pad_trained,
                f"Padding is trained: its labels are the padding token. They must be {MASKED}, or the model learns to write padding.", credit=0.25),
        Mistake(_mask_by_token,
                "Your attention_mask is 0 at real end marks, because padding and the end mark are the same token. It is 1 for each token of the row: make it by "
                "length.", credit=0.5),
        Mistake(lambda rows, pad: _end_masked(rows, pad) | {"attention_mask": _mask_by_token(rows, pad)["attention_mask"]},
                "You find padding by its token, in attention_mask and in labels. In this model the end mark is the same token, so the real end marks are lost. "
                "Go by length.", credit=0.25),
        Mistake(lambda rows, pad: (b := _collate(rows, pad)) | {"attention_mask": [[1] * len(ids) for ids in b["input_ids"]]},
                "attention_mask is 1 everywhere. Padding is no text: it is 0 there.", credit=0.5),
        Mistake(lambda rows, pad: {name: [row[name] for row in rows] for name in ("input_ids", "labels")}
                | {"attention_mask": [[1] * len(row["input_ids"]) for row in rows]},
                "The rows still have different lengths. A tensor needs equal ones: fill each row up to the longest."),
        Mistake(_padded, "You return a list with one dict per row. A batch is the other way round: one dict, in which each name holds one list per row.",
                credit=0.5),
    ],
    after="The end mark is learned and the padding is not, though they are the same token.",
)

# ---------------------------------------------------------------- 5: a split that leaks


def _key(text: str) -> str:
    return " ".join(text.lower().replace("fwd:", " ").split())


def _unique(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return list({_key(row["text"]): row for row in reversed(rows)}.values())


def _halves(rows: Sequence[Mapping[str, str]], seed: int) -> tuple[list, list]:
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    cut = round(0.8 * len(rows))
    return rows[:cut], rows[cut:]


def _exact_only(rows: Sequence[Mapping[str, str]], seed: int) -> tuple[list, list]:
    return _halves(list({row["text"]: row for row in rows}.values()), seed)


def _after(rows: Sequence[Mapping[str, str]], seed: int) -> tuple[list, list]:
    """Copies removed in each part, after the split."""
    train, test = _halves(rows, seed)
    return _unique(train), _unique(test)


def _mailbox() -> list[dict[str, str]]:
    rows = [{"id": f"m{n}", "text": f"Message number {n}: the pump stops after {n} minutes."} for n in range(80)]
    rows += [{"id": f"m{n}-fwd", "text": f"Fwd:  {rows[n]['text']}"} for n in range(40)]
    rows += [{"id": f"m{n}-again", "text": rows[n]["text"].upper()} for n in range(20, 60)]
    return rows + [{"id": f"m{n}-twice", "text": rows[n]["text"]} for n in range(60, 75)]


def _facts(value: Any) -> dict[str, Any]:
    """What matters of a split, whatever the shuffle: how it is made up, not which rows stand where."""
    value = plain(value)
    parts = list(value.values() if isinstance(value, dict) else value)
    if len(parts) != 2 or not all(isinstance(part, list) for part in parts):
        raise ValueError("not two parts")
    texts = [[row["text"] if isinstance(row, dict) else row for row in part] for part in parts]
    keys = [list(map(_key, part)) for part in texts]
    share = len(keys[1]) / max(sum(map(len, keys)), 1)
    came, twice = _mailbox(), lambda lists: any(len(set(part)) < len(part) for part in lists)
    return {"a message stands in both parts": bool(set(keys[0]) & set(keys[1])), "a message stands twice in one part": twice(keys),
            "and letter by letter the same": twice(texts), "all are rows of the mailbox": all(row in came for part in parts for row in part),
            "messages lost": 80 - len(set(keys[0]) | set(keys[1])),
            "test is less than 15 %": share < 0.15, "test is more than 25 %": share > 0.25, "test is the larger part": share > 0.5}


exercise_5 = Exercise(
    LAB, 5, 3,
    right=lambda rows, seed: _halves(_unique(rows), seed),
    cases=lambda: {f"seed {seed}": (_mailbox(), seed) for seed in (0, 1, 2)},
    returns="two lists of rows, train and test",
    read=_facts,
    mistakes=[
        Mistake(_halves,
                "Copies are still there: you split all rows, so the same message stands in train and in test. First remove the copies, then split."),
        Mistake(_exact_only,
                "You remove only rows that are equal letter by letter. These copies have another case, more spaces or 'Fwd:' in front: compare the text "
                "without those.", credit=0.25),
        Mistake(_after,
                "You remove the copies after the split, in each part. The copies in the other part stay: the order is copies first, then split.", credit=0.25),
        Mistake(lambda rows, seed: (lambda train, test: (train, [r for r in test if _key(r["text"]) not in {_key(t["text"]) for t in train}]))
                (*map(_unique, _halves(rows, seed))),
                "Nothing leaks any more, but you removed the copies from the test part after the split. So it has shrunk, and the messages that came once are "
                "left in it: no fair sample. Remove the copies before you split.", credit=0.5),
        Mistake(lambda rows, seed: tuple([_key(row["text"]) for row in part] for part in _halves(_unique(rows), seed)),
                "Nothing leaks, but you return texts, or rows with another text. Return the rows as they came: what else a row holds, such as its id and its answer, must stay with it.",
                credit=0.5),
        Mistake(lambda rows, seed: _halves(_unique(rows), seed)[::-1], "The two parts are exchanged. Return train first, the large one, then test.", credit=0.5),
    ],
    after="Each message stands in one part, and none was lost.",
)
