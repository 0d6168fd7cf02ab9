"""The exercises of lab 10: tests of one line that tell a sick run from a healthy one. Lesson 10 explains them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Callable, Mapping, Sequence

from helpers import data, models

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab10"
MASKED = -100
TASK = "Name the tone of the message in one word."
Run = dict[str, Any]

# ---------------------------------------------------------------- 1: what is wrong with these rows?


def _row(tokenizer: Any, message: str, tone: str, template: bool = True, prompt_too: bool = False, end: bool = True) -> dict[str, list[int]]:
    """The tokens and labels of one row; `end`: whether the end mark of the answer is trained."""
    turns = [{"role": "system", "content": TASK}, {"role": "user", "content": message}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) if template else f"Message: {message}\nTone: "
    prompt, answer = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, tone + tokenizer.eos_token))
    ids = prompt + answer
    labels = list(ids) if prompt_too else [MASKED] * len(prompt) + answer
    return {"input_ids": ids, "labels": labels if end else [MASKED if token == tokenizer.eos_token_id else token for token in labels]}


MESSAGES = [("The pump leaks again, for the third time!", "angry"), ("Thank you, the new seal fits.", "thankful"),
            ("Is it safe to run it over night?", "worried"), ("Which of the two valves do you mean?", "confused")]


def _run(tokenizer: Any, faults: Sequence[Mapping[str, bool]], test: Sequence[str] = (), messages: Sequence[tuple[str, str]] = MESSAGES) -> Run:
    """A run of as many rows as there are faults, filled up on the right; `test`: its test messages."""
    rows = [_row(tokenizer, *messages[n], **fault) for n, fault in enumerate(faults)]
    longest = max(len(row["input_ids"]) for row in rows) + 3
    fill = lambda values, with_what: values + [with_what] * (longest - len(values))
    return {"input_ids": [fill(row["input_ids"], tokenizer.pad_token_id) for row in rows],
            "labels": [fill(row["labels"], MASKED) for row in rows], "test": list(test) or ["My order has not come.", "It hums, is that normal?"]}


def _no_template(tokenizer: Any, run: Run, **decode: bool) -> list[bool]:
    return ["<|im_start|>" not in tokenizer.decode(ids, **decode) for ids in run["input_ids"]]


def _prompt_in(tokenizer: Any, run: Run) -> list[bool]:
    return [labels[0] != MASKED for labels in run["labels"]]


def _end_masked(tokenizer: Any, run: Run) -> list[bool]:
    return [tokenizer.eos_token_id not in labels for labels in run["labels"]]


def _leak(tokenizer: Any, run: Run) -> list[bool]:
    return [any(message in tokenizer.decode(ids) for message in run["test"]) for ids in run["input_ids"]]


def _trained(tokenizer: Any, labels: Sequence[int]) -> str:
    return tokenizer.decode([token for token in labels if token != MASKED])


Test = Callable[[Any, Run], Sequence[bool]]


def _diagnose(tokenizer: Any, run: Run, rows: Callable[[Sequence[bool]], bool] = any, template: Test = _no_template, prompt: Test = _prompt_in,
              end: Test = _end_masked, leak: Test = _leak) -> list[str]:
    tests = {"no template": template, "prompt in the loss": prompt, "end masked": end, "leak": leak}
    return [name for name, test in tests.items() if rows(test(tokenizer, run))]


@cache
def _runs() -> dict[str, tuple]:
    tokenizer, well = models.load_tokenizer(), {}
    runs = {
        "a healthy run": ([well] * 4, ["thank you, the new seal fits.", "My order has not come."]),
        "rows without the template": ([{"template": False}] * 4, ()),
        "the prompt is trained": ([{"prompt_too": True}] * 4, ()),
        "the end mark is not trained": ([{"end": False}] * 4, ()),
        "a test message among the rows": ([well] * 4, ["It hums, is that normal?", "Which of the two valves do you mean?"]),
        "one row of four, the last": ([well, well, well, {"end": False}], ()),
        "one row of four, the second": ([well, {"template": False}, well, well], ()),
        "one row of four, the first": ([{"template": False, "prompt_too": True}, well, well, well], ()),
        "plain text, all of it trained": ([{"template": False, "prompt_too": True}] * 4, ()),
        "two causes": ([{"template": False, "end": False}] * 4, ["Thank you, the new seal fits."]),
    }
    return {name: (tokenizer, _run(tokenizer, faults, test)) for name, (faults, test) in runs.items()}


def patients() -> dict[str, Run]:
    """Six runs on messages of the desk, each under a letter: one is healthy, four have one cause, one has two. For the lab."""
    tokenizer, tone = models.load_tokenizer(), data.load_tone()
    rows = [(data.prompt_of(row), row["messages"][-1]["content"]) for row in list(tone["train"])[:4]]
    test = [data.prompt_of(row) for row in list(tone["test"])[:4]]
    leaked = [*test[:3], rows[2][0]]
    faults = {"A": ({"prompt_too": True}, test), "B": ({"template": False}, test), "C": ({}, leaked), "D": ({"end": False}, test), "E": ({}, test),
              "F": ({"template": False, "end": False}, test)}
    return {letter: _run(tokenizer, [fault] * 4, messages, rows) for letter, (fault, messages) in faults.items()}


exercise_1 = Exercise(
    LAB, 1, 4,
    right=_diagnose,
    cases=lambda: dict(_runs()),
    returns="the list of the causes, in the order of the table",
    mistakes=[
        Mistake(lambda t, r: _diagnose(t, r, end=lambda t, r: [t.eos_token_id not in ids for ids in r["input_ids"]]),
                "You look for the end mark in input_ids. There it always stands; what matters is whether it is trained: look in labels.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r, template=lambda t, r: _no_template(t, r, skip_special_tokens=True)),
                "You decode with skip_special_tokens=True, which removes the very marks that you look for. So every run seems to lack the template.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r, prompt=lambda t, r: [MASKED not in labels for labels in r["labels"]]),
                "You ask whether -100 stands anywhere in the labels. It does, for padding, also when the prompt is trained. Look where the prompt "
                "stands: at the first position.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r, rows=lambda found: found[0]),
                "You look at the first row alone. One bad row of four is a cause, too: ask for any row.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r, rows=all),
                "You ask for all rows. One bad row of four is a cause, too: any, not all.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r, leak=lambda t, r: [message in [t.decode(ids) for ids in r["input_ids"]] for message in r["test"]]),
                "Your leak test finds none. A message is only a part of a row's text, so the two are never equal: ask `message in text` for each "
                "message and each text.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r, end=lambda t, r: [labels[-1] != t.eos_token_id for labels in r["labels"]]),
                "You find the end masked in every run. The last position holds padding in a short row, and labels are numbers, not texts: ask whether "
                "tokenizer.eos_token_id is anywhere among the labels.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r, prompt=lambda t, r: ["<|im_start|>" in _trained(t, labels) for labels in r["labels"]]),
                "You find the prompt by the template's marks. Plain text has none, and its prompt can be trained as well: look at the label of the "
                "first position.", credit=0.5),
        Mistake(lambda t, r: [t.decode(labels) for labels in r["labels"]],
                "You decode the labels as they are. -100 is no token, and the tokenizer fails on it: leave it out first, or compare the numbers alone.",
                credit=0.25),
        Mistake(lambda t, r: sorted(_diagnose(t, r)),
                "The causes are right, but a set has no order (or you sorted them). Collect them in a list, in the order of the table.", credit=0.5),
        Mistake(lambda t, r: _diagnose(t, r)[:1], "You stop at the first cause. A run may have two: collect them all.", credit=0.5),
    ],
    after="None of these causes gives an error, and in all of these runs the loss falls.",
)

# ---------------------------------------------------------------- 2: the wrong slice


def _answers(tokenizer: Any, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], after: Callable[[Sequence[int]], int] = len,
             skip: bool = True) -> list[str]:
    return [tokenizer.decode(out[after(prompt):], skip_special_tokens=skip) for prompt, out in zip(prompts, outputs)]


def _by_characters(tokenizer: Any, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> list[str]:
    return [tokenizer.decode(out, skip_special_tokens=True)[len(tokenizer.decode(prompt)):] for prompt, out in zip(prompts, outputs)]


def _by_word(tokenizer: Any, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> list[str]:
    return [tokenizer.decode(out, skip_special_tokens=True).split("assistant")[-1] for out in outputs]


@cache
def _batches() -> dict[str, tuple]:
    """Prompts padded on the left, as a model that writes needs them, and what the model gave back: prompt, answer, end, padding."""
    tokenizer = models.load_tokenizer()
    pad = tokenizer.pad_token_id
    cases = {
        "one prompt": [("Thank you, the new seal fits.", "thankful")],
        "two prompts of different lengths": [("It leaks.", "neutral"), ("I have asked three times now, and nobody answers. Is it safe at all?", "worried")],
        "the word assistant in an answer": [("Who are you?", "I am the assistant\nof the desk."), ("Does it need oil, or does it run dry?", "It runs dry.\nOil would harm the seal.")],
    }
    made = {}
    for name, pairs in cases.items():
        turns = [[{"role": "system", "content": TASK}, {"role": "user", "content": message}] for message, _ in pairs]
        prompts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in turns]
        answers = [tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id] for _, answer in pairs]
        width, length = max(map(len, prompts)), max(map(len, answers))
        prompts = [[pad] * (width - len(ids)) + list(ids) for ids in prompts]
        made[name] = (tokenizer, prompts, [ids + answer + [pad] * (length - len(answer)) for ids, answer in zip(prompts, answers)])
    return made


exercise_2 = Exercise(
    LAB, 2, 3,
    right=_answers,
    cases=lambda: dict(_batches()),
    returns="a list with one text per row: the answer alone",
    read=lambda value: [text.strip() for text in plain(value)],
    mistakes=[
        Mistake(_by_characters,
                "You still cut by characters. The prompt's text holds the template's marks, the decoded output does not, so the cut takes the answer "
                "away. Cut the token ids, then decode."),
        Mistake(_by_word,
                "You look for the word assistant. It may stand in an answer, too, and other templates have other words. Cut by token position: the "
                "output begins with the whole prompt.", credit=0.5),
        Mistake(lambda t, p, o: [t.decode(out, skip_special_tokens=True).split("\n")[-1] for out in o],
                "You take the last line. An answer may have several lines: cut by token position, and all of them stay.", credit=0.5),
        Mistake(lambda t, p, o: _answers(t, p, o, skip=False),
                "The end mark and padding stand in your answers. Decode with skip_special_tokens=True, after the cut.", credit=0.5),
        Mistake(lambda t, p, o: _answers(t, p, o, after=lambda ids: sum(token != t.pad_token_id for token in ids)),
                "You cut after the prompt's real tokens. The padding on the left stands in the output as well, and the end marks of the prompt's turns "
                "are the same token: cut after len(prompt), padding included.", credit=0.5),
        Mistake(lambda t, p, o: _answers(t, p, o, after=lambda ids: len(ids) + 1),
                "You cut one token too many: the answer's first token is at position len(prompt).", credit=0.5),
        Mistake(lambda t, p, o: [t.decode(out, skip_special_tokens=True) for out in o],
                "The prompt is still there. A model gives back prompt and answer together: cut the prompt's tokens off before you decode.", credit=0.25),
    ],
    after="Token positions know nothing of marks, spaces or words: they cut right for every template.",
)

# ---------------------------------------------------------------- 3: the learning rate, read from the curve


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _little(losses: Sequence[float]) -> bool:
    return _mean(losses[-4:]) > 0.95 * _mean(losses[:4])


def _rate(losses: Sequence[float], vocabulary: int, *, log: Callable[[float], float] = math.log, finite: bool = True, seen: slice = slice(None),
          little: Callable[[Sequence[float]], bool] = _little) -> str:
    wild = any(loss > log(vocabulary) for loss in losses[seen]) or finite and any(not math.isfinite(loss) for loss in losses)
    return "too large" if wild else "too small" if little(losses) else "fine"


CURVES = {
    "falls and stays down": [4.1, 3.2, 2.4, 1.9, 1.4, 1.2, 1.1, 0.9, 0.9, 0.8],
    "explodes": [4.0, 5.2, 9.1, 13.0, 14.9, 14.8, 14.9, 14.7, 14.8, 14.7],
    "jumps up, comes back": [9.0, 9.3, 12.4, 11.9, 9.8, 7.7, 6.1, 5.0, 4.4, 4.1],
    "one step is no number": [4.1, 3.2, 2.4, 1.9, math.nan, 1.2, 1.1, 0.9, 0.9, 0.8],
    "becomes no number": [4.0, 4.3, 6.6, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan],
    "does not move": [3.9, 4.1, 3.8, 4.0, 4.1, 3.9, 4.0, 3.8, 4.1, 3.9],
    "does not move, lucky at the end": [4.0, 4.2, 3.9, 4.1, 3.9, 4.2, 4.1, 3.9, 4.2, 3.3],
    "a hard task, falling slowly": [6.2, 6.0, 5.9, 6.1, 5.8, 5.6, 5.5, 5.4, 5.3, 5.2],
    "a hard task, a fall of little more than 5 %": [10.4, 10.4, 10.4, 10.4, 10.0, 10.0, 10.0, 10.0, 9.85, 9.85, 9.85, 9.85],
    "rises at first, far below the mark": [2.0, 3.9, 3.1, 2.4, 1.9, 1.5, 1.2, 1.0, 0.9, 0.8],
    "an easy task, falling": [0.20, 0.19, 0.18, 0.17, 0.15, 0.13, 0.11, 0.10, 0.09, 0.08],
}

exercise_3 = Exercise(
    LAB, 3, 3,
    right=_rate,
    cases=lambda: {name: (losses, 49152) for name, losses in CURVES.items()}
    | {"256 tokens, a jump up": ([5.0, 9.9, 10.4, 10.5, 10.1, 9.6, 8.6, 8.5, 8.3, 8.2], 256)},
    returns="one of the words too large, too small, fine",
    mistakes=[
        Mistake(lambda l, v: _rate(l, v, finite=False),
                "NaN passes your test: it stands for a number that is none, and every comparison with it is False. Ask for it by "
                "`not math.isfinite(loss)`.", credit=0.5),
        Mistake(lambda l, v: _rate(l, v, seen=slice(-1, None)),
                "You look at the last loss alone. A run that was destroyed on the way and crawled back has lost what the model knew: look at every "
                "loss.", credit=0.5),
        Mistake(lambda l, v: _rate(l, v, log=math.log2),
                "You take the logarithm to base 2. The loss is in nats: the natural logarithm, math.log.", credit=0.5),
        Mistake(lambda l, v: _rate(l, v, log=math.log10),
                "You take the logarithm to base 10. The loss is in nats: the natural logarithm, math.log.", credit=0.5),
        Mistake(lambda l, v: _rate(l, v, little=lambda l: l[-1] > 0.95 * l[0]),
                "You compare single steps. One batch is easier than another, so one loss may be low by luck: compare the means of the first and of "
                "the last four.", credit=0.5),
        Mistake(lambda l, v: _rate(l, v, little=lambda l: _mean(l[:4]) - _mean(l[-4:]) < 0.5),
                "You ask for a fall by a fixed amount. A loss that begins at 0.2 can never fall so far: ask for a share of the start, 5 %.", credit=0.5),
        Mistake(lambda l, v: "too large" if any(b > a for a, b in zip(l, l[1:])) or not all(map(math.isfinite, l)) else "too small" if _little(l) else "fine",
                "You call every rise a sign of a large rate. A loss goes up and down between batches in healthy runs: the mark is the loss of a model "
                "that knows nothing, log(vocabulary).", credit=0.25),
        Mistake(lambda l, v: "too small" if not _mean(l[-4:]) <= 0.95 * _mean(l[:4]) else _rate(l, v),
                "You ask first whether the loss fell. A run that exploded did not fall either, and you call its rate too small: ask for `too large` "
                "first.", credit=0.5),
    ],
    after="Two comparisons sort the runs. They need no second run beside them.",
)

# ---------------------------------------------------------------- 4: a config with words that should be numbers


def _number(text: Any) -> Any:
    """The number that a text stands for, else the text. `nan` and `inf` stay words."""
    if not isinstance(text, str) or not any(letter.isdigit() for letter in text):
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _walk(value: Any, lists: bool = True) -> Any:
    if isinstance(value, dict):
        return {key: _walk(item, lists) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, lists) for item in value] if lists else value
    return _number(value)


def _loaded(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _everything(value: Any) -> Any:
    """float() wherever it works: whole numbers and true become floats, too."""
    if isinstance(value, dict):
        return {key: _everything(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_everything(item) for item in value]
    try:
        return float(value)
    except (ValueError, TypeError):
        return value


def _with_types(value: Any) -> Any:
    """A config in which each value stands with its type: 60 and 60.0 are equal, but not the same."""
    value = plain(value)
    if isinstance(value, dict):
        return {key: _with_types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_types(item) for item in value]
    return {"value": value, "type": type(value).__name__}


CONFIG = """\
learning_rate: 1e-6
max_steps: 60
bf16: false
optim: adamw_torch
lora:
  r: 16
  lora_dropout: 5e-2
  target_modules: all-linear
"""

exercise_4 = Exercise(
    LAB, 4, 2,
    right=lambda text: _walk(_loaded(text)),
    cases=lambda: {
        "the broken config": (CONFIG,),
        "two rates": ("learning_rate: 2e-3\nweight_decay: 1e-2\nwarmup_steps: 0.1\nseed: 0\n",),
        "numbers in a list": ("betas: [9e-1, 0.999]\nmodules: [q_proj, v_proj]\nmax_grad_norm: 1e0\n",),
        "nothing to mend": ("learning_rate: 1.0e-4\nsave_steps: 50\npacking: true\nrun_name: nan-hunt\nresume: null\n",),
        "dicts and lists in each other": ("weight_decay: 1e-2\ntrain:\n  betas: [9e-1, 0.999]\n  groups: [{lr: 1e-3}, {lr: 1e-4}]\n",),
    },
    returns="a dict like the text, with a number wherever the text has one",
    read=_with_types,
    mistakes=[
        Mistake(_loaded,
                "1e-6 is still a text: YAML's reader wants a point in such a number (1.0e-6). Go through the values and turn texts that float() can "
                "read into numbers."),
        Mistake(lambda text: (found := _loaded(text)) | ({"learning_rate": float(found["learning_rate"])} if "learning_rate" in found else {}),
                "You mend learning_rate alone. Every other number without a point, such as a weight decay of 1e-2, is still a text: go through all values.",
                credit=0.5),
        Mistake(lambda text: {key: _number(value) for key, value in _loaded(text).items()},
                "You mend the outermost values only. There are dicts and lists within the config: call your function for the values inside them.", credit=0.5),
        Mistake(lambda text: _walk(_loaded(text), lists=False),
                "Lists are passed over: betas: [9e-1, 0.999] keeps a text. Go through their items, too.", credit=0.5),
        Mistake(lambda text: _everything(_loaded(text)),
                "You turn whole numbers and true or false into floats: 60 becomes 60.0 and true becomes 1.0. Change texts only: ask isinstance(value, str).",
                credit=0.5),
    ],
    after="In a file of your own, write 1.0e-6, and let the program refuse a rate that is no number.",
)

# ---------------------------------------------------------------- 5: how many trials, predicted and computed


def _trials(share: float, sure: float) -> int:
    n = 1
    while 1 - (1 - share) ** n < sure - 1e-12:
        n += 1
    return n


def _unrounded(share: float, sure: float) -> float:
    return math.log(1 - sure) / math.log(1 - share)


exercise_5 = Exercise(
    LAB, 5, 3,
    right=_trials,
    cases=lambda: {"the best 5 %, 95 % sure": (0.05, 0.95), "the best 10 %, 90 % sure": (0.1, 0.9), "the best quarter, evens": (0.25, 0.5), "the better half": (0.5, 0.5)},
    returns="the smallest number of trials, a whole number",
    prediction=Prediction(
        "how many random trials are needed", 1, 10_000, lambda: float(_trials(0.05, 0.95)),
        typical=[
            (1, 13, "So few find one of the best in less than half of the searches."),
            (15, 25, "Twenty trials find one of the best 5 % *on average*. In more than a third of the searches they find none."),
            (90, 10_000, "Fewer than you think: each further trial has the same chance again."),
        ]),
    mistakes=[
        Mistake(lambda share, sure: math.ceil(1 / share),
                "You divide 1 by the share. So many trials hold one good setting on average, but often none. Ask for the chance that all of them miss: "
                "(1 - share) ** n."),
        Mistake(lambda share, sure: math.ceil(sure / share - 1e-9),
                "You add up the chances: n times the share. Two trials may hit at once, so chances don't add up. Ask for the chance that all miss: "
                "(1 - share) ** n."),
        Mistake(lambda share, sure: math.floor(_unrounded(share, sure) + 1e-9),
                "One trial too few: you round down, and the chance is then a little below what was asked for. Round up.", credit=0.5),
        Mistake(_unrounded, "Your formula is right. Trials are whole: round up with math.ceil.", credit=0.5),
        Mistake(lambda share, sure: math.floor(_unrounded(share, sure) + 1e-9) + 1,
                "Where the chance is exactly `sure`, you take one trial more. That chance is enough: asked is `sure` or more.", credit=0.5),
        Mistake(lambda share, sure: _trials(share, sure) + 1, "One trial more than is needed: the smallest n whose chance reaches `sure`.", credit=0.5),
        Mistake(lambda share, sure: _trials(sure, share),
                "The two numbers are exchanged: `share` is how many settings are good, `sure` how certain the search shall be.", credit=0.25),
    ],
    after="It does not depend on how many knobs there are, only on the share that you call good.",
)
