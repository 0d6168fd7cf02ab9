"""The exercises of lab 07: memory of a step, accumulation, checkpointing, forgetting, when to stop. Lesson 07 explains them."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from helpers import evaluation, training

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab07"
MASKED = -100
Batch = dict[str, torch.Tensor]

# ---------------------------------------------------------------- 1: the bytes of a step, from a config


def _parameters(config: Mapping[str, Any], *, shared_heads: bool = True, tied: bool | None = None, norms: bool = True, mlp: int = 3,
                last: bool = True) -> int:
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    narrow = hidden // heads * (config["num_key_value_heads"] if shared_heads else heads)
    layer = 2 * hidden * hidden + 2 * hidden * narrow + mlp * hidden * inner + (2 * hidden if norms else 0)
    tables = 1 if (config["tie_word_embeddings"] if tied is None else tied) else 2
    return config["num_hidden_layers"] * layer + (hidden if norms and last else 0) + tables * config["vocab_size"] * hidden


def _bytes(config: Mapping[str, Any], adapter: int, averages: int = 2, frozen_too: bool = False, width: int = 4, **faults: Any) -> dict[str, int]:
    parameters = _parameters(config, **faults)
    trained = parameters + adapter if frozen_too or not adapter else adapter
    return {"weights": width * (parameters + adapter), "gradients": width * trained, "adamw": width * averages * trained}


def _config(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "vocab_size": vocabulary, "tie_word_embeddings": tied}


CONFIGS = {
    "a tiny model": _config(64, 160, 2, 4, 2, 512, True),
    "the course's model": _config(576, 1536, 30, 9, 3, 49152, True),
    "8 billion": _config(4096, 14336, 32, 32, 8, 128256, False),
}

exercise_1 = Exercise(
    LAB, 1, 3,
    right=_bytes,
    cases=lambda: {
        "a tiny model, all weights": (CONFIGS["a tiny model"], 0),
        "the course's model, all weights": (CONFIGS["the course's model"], 0),
        "8 billion parameters, all weights": (CONFIGS["8 billion"], 0),
        "the course's model with an adapter": (CONFIGS["the course's model"], 4_884_480),
        "8 billion parameters with an adapter": (CONFIGS["8 billion"], 42_000_000),
    },
    returns="a dict with weights, gradients and adamw, in bytes",
    rtol=1e-9,
    mistakes=[
        Mistake(lambda c, a: _bytes(c, a, shared_heads=False),
                "Your key and value matrices are as wide as that of the query. Here several heads share one key and value: they are "
                "hidden x (num_key_value_heads x head width).", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a, tied=False),
                "You count an output layer of its own in every model. Where tie_word_embeddings is true, the output layer is the embedding table: "
                "count it once.", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a, tied=True),
                "You count the table of the vocabulary once in every model. Where tie_word_embeddings is false, the output layer is a second one "
                "of the same size.", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a, averages=1),
                "AdamW remembers two numbers for each trained weight: the average of the gradient and that of its square. You count one.", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a, frozen_too=True),
                "With an adapter you still count gradients and averages for the frozen weights. They are not trained: only the adapter's weights "
                "need them. That is what saves the memory.", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a, norms=False),
                "The norms are missing: each layer has two of hidden_size weights, and one more stands after the last layer. They are few, but the "
                "count should be exact.", credit=0.75),
        Mistake(lambda c, a: _bytes(c, a, last=False),
                "One norm is missing: each layer has two, and one more stands after the last layer, with hidden_size weights.", credit=0.75),
        Mistake(lambda c, a: (need := _bytes(c, a)) | {"weights": need["weights"] - 4 * a},
                "The adapter's own weights are missing among the weights. They are held, too: add them to the frozen ones.", credit=0.75),
        Mistake(lambda c, a: _bytes(c, a) | ({"weights": 4 * a} if a else {}),
                "With an adapter you count its weights alone. The model's own weights are frozen, but they are held: count both.", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a) | {"gradients": _bytes(c, a)["weights"]},
                "With an adapter you still count gradients for the frozen weights. AdamW is right: only what is trained needs either.", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a) | {"gradients": 4 * a, "adamw": 8 * a},
                "With adapter 0 you train nothing. There 0 means full fine-tuning: all weights get gradients and averages.", credit=0.5),
        Mistake(lambda c, a: {name: size / 1e9 for name, size in _bytes(c, a).items()},
                "These are gigabytes. Return bytes: whole numbers can be compared exactly.", credit=0.75),
        Mistake(lambda c, a: _bytes(c, a, mlp=2),
                "You count two matrices in the feed-forward part. Llama has three: gate and up (hidden to inner) and down (inner to hidden).", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a, width=1),
                "These are numbers, not bytes. A float32 takes 4 bytes: multiply by 4.", credit=0.5),
        Mistake(lambda c, a: _bytes(c, a) | {"gradients": 0},
                "No gradients? The backward pass computes one for each trained weight, and keeps it until the update.", credit=0.5),
    ],
    after="All weights need 16 bytes each, whatever the batch. With an adapter, its few weights need 16 each, the frozen ones 4.",
)

# ---------------------------------------------------------------- 2: accumulation that equals the large batch


def tiny_llama(layers: int = 1, hidden: int = 16, vocabulary: int = 40, seed: int = 0) -> torch.nn.Module:
    """A Llama with random weights, small enough for a check."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("llama", vocab_size=vocabulary, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
                                  num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                                  use_cache=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def _used(model: torch.nn.Module) -> torch.nn.Module:
    """The model with gradients that an earlier step left."""
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    return model


def parts_of(lengths: Sequence[Sequence[tuple[int, int]]], vocabulary: int = 40, seed: int = 1) -> list[Batch]:
    """Batches of random rows, one for each list of (prompt tokens, answer tokens); filled up on the right, prompt and padding masked."""
    rng, batches = np.random.default_rng(seed), []
    for rows in lengths:
        longest = max(map(sum, rows))
        ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), MASKED)
        for n, (prompt, answer) in enumerate(rows):
            ids[n, : prompt + answer] = torch.from_numpy(rng.integers(3, vocabulary, prompt + answer))
            labels[n, prompt : prompt + answer] = ids[n, prompt : prompt + answer]
        batches.append({"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels})
    return batches


def _accumulate(model: torch.nn.Module, parts: Sequence[Batch], weigh: Callable[[Batch, float], float], forget: bool = False) -> torch.Tensor:
    """The gradient of all parts; `weigh` says by what a part's summed loss is divided."""
    total = float(sum((part["labels"][:, 1:] != MASKED).sum() for part in parts))
    model.zero_grad()
    for part in parts:
        if forget:
            model.zero_grad()
        logits = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"]).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), part["labels"][:, 1:].flatten(), ignore_index=MASKED, reduction="sum")
        (loss / weigh(part, total)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def _own(part: Batch) -> float:
    return float((part["labels"][:, 1:] != MASKED).sum())


def _gradient(value: Any) -> Any:
    """A gradient in any form: one vector, or one tensor per weight."""
    def flat(item: Any) -> list[float]:
        return [x for inner in item for x in flat(inner)] if isinstance(item, list) else [item]

    numbers = flat(plain(value))
    return {"length of the gradient": float(np.linalg.norm(np.asarray(numbers, dtype=float))), "gradient": numbers}


exercise_2 = Exercise(
    LAB, 2, 3,
    right=lambda model, parts: _accumulate(model, parts, lambda part, total: total),
    cases=lambda: {
        "a long and a short answer": (_used(tiny_llama()), parts_of([[(4, 9)], [(6, 1)]])),
        "three parts of different sizes": (_used(tiny_llama(seed=3)), parts_of([[(3, 8), (5, 2)], [(9, 1)], [(2, 4), (4, 4), (7, 1)]])),
    },
    returns="the gradient of the large batch, all weights in one vector",
    read=_gradient, rtol=1e-3, atol=1e-6,
    mistakes=[
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: _own(part) * len(parts)),
                "This is still the mean of the parts' means: a part with one label weighs as much as one with nine. Divide every part's summed loss "
                "by the labels of all parts together."),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: _own(part)),
                "You add up the parts' means. The gradient is too long by about the number of parts, and short answers weigh too much. Sum each "
                "part's loss and divide it by the labels of all parts."),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: 1.0),
                "You sum the losses, which is right, but divide by nothing. The gradient is as many times too long as there are labels: divide by "
                "the labels of all parts.", credit=0.5),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: float(len(parts))),
                "You sum the losses, which is right, but still divide by the number of parts. A sum over labels is divided by labels: those of all "
                "parts.", credit=0.5),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: float(sum(p["labels"][:, 1:].numel() for p in parts))),
                "You divide by all positions. Prompt and padding have the label -100 and no loss: count the positions whose label is not -100.", credit=0.5),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: _own(part) * sum(len(p["labels"]) for p in parts) / len(part["labels"])),
                "You weigh the parts by their rows. The large batch takes the mean over labels, so a row with nine labels counts nine times: weigh "
                "by labels.", credit=0.5),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: total * len(parts)),
                "You divide by the labels of all parts, which is right, and then by the number of parts as well. Take the second division away.", credit=0.5),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: total) + 1.0,
                "Gradients of an earlier step are still in yours, because backward() adds to what is there. Call model.zero_grad() before the first part.",
                credit=0.5),
        Mistake(lambda model, parts: _accumulate(model, parts, lambda part, total: total, forget=True),
                "Only the last part is in your gradient: zero_grad() stands inside the loop and throws the others away. Call it once, before the loop.",
                credit=0.5),
    ],
    after="Two labels weigh the same now, whichever part they stand in.",
)

# ---------------------------------------------------------------- 3: what checkpointing keeps, predicted and counted


def _kept(model: torch.nn.Module, ids: torch.Tensor, checkpointing: bool) -> dict[int, int]:
    """The blocks that a forward pass keeps, address -> bytes."""
    model.train()
    (model.gradient_checkpointing_enable if checkpointing else model.gradient_checkpointing_disable)()
    with training.kept_for_backward(model) as kept:
        loss = model(input_ids=ids, labels=ids).loss
    del loss
    return dict(kept)


def _share(model: torch.nn.Module, ids: torch.Tensor) -> float:
    without, with_it = (sum(_kept(model, ids, on).values()) for on in (False, True))
    return with_it / without


def _positions(rows: int, length: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(3, 40, (rows, length)))


def _deep() -> tuple[torch.nn.Module, torch.Tensor]:
    return tiny_llama(layers=12, hidden=32), _positions(2, 48)


exercise_3 = Exercise(
    LAB, 3, 3,
    right=_share,
    cases=lambda: {"twelve layers": _deep(), "three layers": (tiny_llama(layers=3, hidden=32), _positions(2, 48))},
    returns="the kept bytes with checkpointing as a share of those without it",
    rtol=0.02, atol=0.0,
    prediction=Prediction(
        "the share of the bytes that is still kept", 0, 1, lambda: _share(*_deep()),
        typical=[(0.3, 1.0, "A layer keeps much more than its input: queries, keys, values, two wide tensors of the feed-forward part, and what the "
                            "norms need. All of it is given up but the input.")]),
    mistakes=[
        Mistake(lambda model, ids: 1.0,
                "Both counts are the same: checkpointing was not at work. Switch it on with model.gradient_checkpointing_enable(), off with "
                "…_disable(), and call model.train() first: in eval mode it does nothing."),
        Mistake(lambda model, ids: 1 / _share(model, ids), "The fraction is turned round. Divide the bytes with checkpointing by those without it.", credit=0.5),
        Mistake(lambda model, ids: 1 - _share(model, ids), "This is the share that is saved. Return the share that is still kept.", credit=0.5),
        Mistake(lambda model, ids: len(_kept(model, ids, True)) / len(_kept(model, ids, False)),
                "You count blocks, not bytes: `kept` is a dict, address -> bytes. Take sum(kept.values()).", credit=0.5),
        Mistake(lambda model, ids: sum(_kept(model, ids, True).values()), "These are bytes. Divide by the bytes that are kept without checkpointing.", credit=0.25),
    ],
    after="Only each layer's input is kept; the rest is computed once more on the way back.",
)

# ---------------------------------------------------------------- 4: what was forgotten


def _forgetting(before: Sequence[int], after: Sequence[int], verdict: Callable[[Any, Any], str] | None = None) -> dict[str, Any]:
    before, after = np.asarray(before, int), np.asarray(after, int)
    return {"forgotten": int(((before == 1) & (after == 0)).sum()), "gained": int(((before == 0) & (after == 1)).sum()),
            "change": float(after.mean() - before.mean()), "verdict": (verdict or _by_interval)(before, after)}


def _word(low: float, high: float) -> str:
    return "forgot" if high < 0 else "gained" if low > 0 else "not seen"


def _by_interval(before: Any, after: Any) -> str:
    found = evaluation.compare_paired(after.astype(float), before.astype(float))
    return _word(float(found.low), float(found.high))


def _touching(before: Any, after: Any) -> str:
    found = evaluation.compare_paired(after.astype(float), before.astype(float))
    return "forgot" if found.high <= 0 else "gained" if found.low >= 0 else "not seen"


def _by_sign(before: Any, after: Any) -> str:
    change = float(after.mean() - before.mean())
    return _word(change, change)


def _by_overlap(before: Any, after: Any) -> str:
    old, new = evaluation.proportion(before), evaluation.proportion(after)
    return _word(float(new.low - old.high), float(new.high - old.low))


def _turned(before: Sequence[int], after: Sequence[int]) -> dict[str, Any]:
    word = _forgetting(before, after)["verdict"]
    right = _forgetting(before, after)
    return right | {"change": -right["change"], "verdict": {"forgot": "gained", "gained": "forgot"}.get(word, word)}


def answers(stayed: int, failed: int, forgotten: int, gained: int) -> tuple[list[int], list[int]]:
    """Which questions passed before and after, in a mixed order."""
    pairs = [(1, 1)] * stayed + [(0, 0)] * failed + [(1, 0)] * forgotten + [(0, 1)] * gained
    order = np.random.default_rng(5).permutation(len(pairs))
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order]


exercise_4 = Exercise(
    LAB, 4, 3,
    right=_forgetting,
    cases=lambda: {
        "12 of 140 forgotten, 1 gained": answers(60, 67, 12, 1),
        "5 of 140 forgotten, 3 gained": answers(65, 67, 5, 3),
        "1 forgotten, 20 gained": answers(50, 69, 1, 20),
        "2 of 12 forgotten": answers(6, 4, 2, 0),
        "2 of 12 gained": answers(6, 4, 0, 2),
        "most forgotten": answers(6, 60, 70, 4),
        "most gained": answers(6, 60, 4, 70),
    },
    returns="a dict with forgotten, gained, change and verdict",
    mistakes=[
        Mistake(lambda b, a: _forgetting(b, a, _touching),
                "An interval that ends at 0 does not lie wholly on one side: there the verdict is `not seen`. Ask for high < 0 and for low > 0, "
                "without `=`.", credit=0.5),
        Mistake(lambda b, a: _forgetting(b, a, _by_sign),
                "Your verdict follows the change alone. Two of twelve questions are soon lost by luck: say `forgot` only if the whole interval lies "
                "below 0, `gained` only if it lies above.", credit=0.5),
        Mistake(lambda b, a: _forgetting(b, a, _by_overlap),
                "Your verdict asks whether two separate intervals overlap. The same questions were asked twice: pair them. evaluation.compare_paired "
                "looks at the difference of each question and sees smaller changes.", credit=0.5),
        Mistake(_turned,
                "The sign is turned: this is before minus after. A loss shall be a negative change: subtract `before` from `after`.", credit=0.5),
        Mistake(lambda b, a: _forgetting(b, a) | {"verdict": _turned(b, a)["verdict"]},
                "Your numbers are right, but the verdict is turned. compare_paired(a, b) gives a minus b: pass `after` first.", credit=0.75),
        Mistake(lambda b, a: (found := _forgetting(b, a)) | {"verdict": "forgot" if found["verdict"] != "not seen" else "not seen"},
                "You say `forgot` whenever the interval excludes 0, also where the model gained. Ask on which side of 0 it lies.", credit=0.75),
        Mistake(lambda b, a: _forgetting(b, a) | {"forgotten": int(sum(x == 0 for x in a))},
                "You count every question that fails now as forgotten. Some failed before, too: forgotten is what passed before and fails after.", credit=0.5),
        Mistake(lambda b, a: _forgetting(b, a) | {"forgotten": int(sum(b) - sum(a)), "gained": int(sum(a) - sum(b))},
                "You subtract the two sums. Then what was gained hides what was forgotten: look at each question's two answers.", credit=0.5),
        Mistake(lambda b, a: _forgetting(b, a) | {"change": (sum(a) - sum(b)) / sum(b)},
                "Your change is a share of the questions that passed before. Take it of all questions: mean of after minus mean of before.", credit=0.5),
    ],
    after="`not seen` is no proof that nothing was lost: with few questions only a large loss can be seen.",
)

# ---------------------------------------------------------------- 5: when to stop


def _stop(losses: Sequence[float], patience: int, *, late: int = 0, equal: bool = False, reset: bool = True, previous: bool = False) -> tuple[int, int]:
    """(epoch of the stop, epoch that is kept), counted from 1."""
    best, kept, waited, last = float("inf"), 0, 0, float("inf")
    for epoch, loss in enumerate(losses, start=1):
        progress = loss <= best if equal else loss < best
        waited = (0 if reset else waited) if (loss <= last if previous else progress) else waited + 1
        if progress:
            best, kept = loss, epoch
        last = loss
        if waited >= patience + late:
            return epoch, kept
    return len(losses), kept


def _peeked(losses: Sequence[float], patience: int) -> tuple[int, int]:
    return _stop(losses, patience)[0], int(np.argmin(losses)) + 1


exercise_5 = Exercise(
    LAB, 5, 2,
    right=_stop,
    cases=lambda: {
        "a better epoch comes too late": ([1.0, 0.8, 0.9, 0.85, 0.7, 0.6], 2),
        "a small recovery after a rise": ([1.0, 0.8, 0.9, 0.85, 0.95, 0.97, 0.99], 2),
        "progress between two rises": ([0.9, 0.7, 0.75, 0.6, 0.65, 0.66, 0.5], 2),
        "no end before the last epoch": ([1.0, 0.9, 0.8], 1),
        "a small progress, and no end": ([1.0, 0.7, 0.6999, 0.8], 2),
        "a curve that does not move": ([0.5, 0.5, 0.5, 0.4], 2),
        "patience 1": ([0.7673, 0.4709, 0.6439, 0.4085, 0.6207], 1),
        "patience 3": ([0.8, 0.6, 0.7, 0.65, 0.5, 0.7, 0.8, 0.9, 0.3], 3),
    },
    returns="two numbers: the epoch of the stop and the epoch that is kept, counted from 1",
    mistakes=[
        Mistake(lambda l, p: _stop(l, p, late=1),
                "You stop one epoch too late: your count goes past `patience`. Patience 1 means that the first look without progress ends the run: "
                "ask for >=, not for >.", credit=0.5),
        Mistake(lambda l, p: tuple(n - 1 for n in _stop(l, p)),
                "Your epochs are counted from 0. The first epoch is 1: use enumerate(losses, start=1).", credit=0.5),
        Mistake(lambda l, p: _stop(l, p, previous=True),
                "You count rises from one epoch to the next. A small recovery after a large rise, or a curve that stands still, is no progress: "
                "compare with the best so far.", credit=0.25),
        Mistake(lambda l, p: (_stop(l, p)[0],) * 2,
                "You keep the last epoch. The point of the rule is to go back: keep the one with the lowest loss so far.", credit=0.5),
        Mistake(_peeked,
                "You look for the lowest loss in the whole curve, also behind the stop. The run has ended there, and later epochs don't exist.", credit=0.5),
        Mistake(lambda l, p: _stop(l, p, equal=True),
                "An equal loss is no progress. Ask for `<`, not `<=`.", credit=0.5),
        Mistake(lambda l, p: _stop(l, p, reset=False),
                "You count all epochs without progress, also those before a new best. Begin to count anew at each new best.", credit=0.5),
        Mistake(lambda l, p: _stop(l, p)[::-1], "The two numbers are exchanged: first the epoch of the stop, then the one that is kept.", credit=0.5),
    ],
    after="This is the rule of transformers' EarlyStoppingCallback with load_best_model_at_end.",
)
