"""The exercises of lab 05: what LoRA adds, counts and scales, a run that learns nothing, and the choice of a learning rate. Lesson 05 explains them."""

from __future__ import annotations

import math
from typing import Any, Callable, Mapping, Sequence

import torch

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab05"
Tensor = torch.Tensor

# ---------------------------------------------------------------- 1: the layer and its merge


def _layer(x: Tensor, W: Tensor, A: Tensor, B: Tensor, scale: float) -> list[Any]:
    """The output beside the frozen layer, and the merged weight."""
    return [(x @ W.T + scale * x @ A.T @ B.T).tolist(), (W + scale * B @ A).tolist()]


def _layer_cases() -> dict[str, tuple]:
    made = torch.Generator().manual_seed(5)
    sizes = {"rank 2, alpha 8": (3, 6, 4, 2, 8), "rank 4, alpha 4": (2, 5, 7, 4, 4), "rank 1, alpha 2, as many inputs as outputs": (4, 4, 4, 1, 2),
             "rank 4, alpha 10": (2, 6, 5, 4, 10)}
    draw = lambda *shape: torch.randn(*shape, generator=made)
    return {name: (draw(rows, inputs), draw(outputs, inputs), draw(rank, inputs), draw(outputs, rank), alpha)
            for name, (rows, inputs, outputs, rank, alpha) in sizes.items()}


exercise_1 = Exercise(
    LAB, 1, 3,
    right=lambda x, W, A, B, alpha: _layer(x, W, A, B, alpha / len(A)),
    cases=_layer_cases,
    returns="two tables of numbers, the layer's output and the merged weight",
    rtol=1e-4, atol=1e-5,
    mistakes=[
        Mistake(lambda x, W, A, B, alpha: _layer(x, W, A, B, 1.0),
                "The scale is missing: the update counts alpha / rank times. Without it your layer is right only where alpha and rank happen to be equal.", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: _layer(x, W, A, B, alpha),
                "You multiply by alpha alone. The scale is alpha divided by the rank, the number of rows of A.", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: _layer(x, W, A, B, alpha / A.shape[1]),
                "You divide alpha by the number of inputs: that is A.shape[1]. The rank is the number of rows of A, A.shape[0].", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: _layer(x, W, A, B, alpha / math.sqrt(len(A))),
                "You divide alpha by the square root of the rank. That is rsLoRA; plain LoRA divides by the rank itself.", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: [(alpha / len(A) * (x @ W.T + x @ A.T @ B.T)).tolist(), (alpha / len(A) * (W + B @ A)).tolist()],
                "You scale the frozen weight too. Then the model changes before anything is trained: only the update B A is multiplied by the scale."),
        Mistake(lambda x, W, A, B, alpha: [(alpha / len(A) * x @ A.T @ B.T).tolist(), (alpha / len(A) * B @ A).tolist()],
                "This is the update alone. The frozen layer goes on working: its output, and W itself, are added."),
        Mistake(lambda x, W, A, B, alpha: [_layer(x, W, A, B, alpha / len(A))[0], (W + B @ A).tolist()],
                "The output is right, but the merged weight lacks the scale, so the merged model gives other answers than the one you trained.", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: [_layer(x, W, A, B, alpha / len(A))[0], (alpha / len(A) * B @ A).tolist()],
                "The output is right, but the merged weight is the update alone: add it to W.", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: _layer(x, W, A, B, alpha / len(A))[0],
                "The output is right, and it is all that you return. Return two things, `output, merged`: the merged weight as well.", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: _layer(x, W, A, B, alpha // len(A)),
                "You divide with `//`, which cuts the fraction off: 10 // 4 is 2. The scale is any number, here 2.5: divide with `/`.", credit=0.5),
        Mistake(lambda x, W, A, B, alpha: _layer(x, W, A, B, alpha / len(A))[::-1],
                "The two are exchanged: first the output, then the merged weight.", credit=0.5),
    ],
    after="Your layer works beside the frozen weight, and merged into it.",
)

# ---------------------------------------------------------------- 2: trained numbers


def _sizes(config: Any, kv_heads: int) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each kind of linear layer."""
    hidden, inner, kv = config.hidden_size, config.intermediate_size, config.hidden_size // config.num_attention_heads * kv_heads
    return {"q_proj": (hidden, hidden), "k_proj": (hidden, kv), "v_proj": (hidden, kv), "o_proj": (hidden, hidden),
            "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden)}


def _trained(config: Any, rank: int, targets: Sequence[str], one: Callable[[int, int], int] = lambda a, b: a + b, grouped: bool = True) -> int:
    sizes = _sizes(config, config.num_key_value_heads if grouped else config.num_attention_heads)
    return config.num_hidden_layers * rank * sum(one(*sizes[name]) for name in targets)


def _config(hidden: int, inner: int, layers: int, heads: int, kv_heads: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=49152)


ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _trained_cases() -> dict[str, tuple]:
    course, tiny = _config(576, 1536, 30, 9, 3), _config(32, 64, 2, 4, 4)
    return {"the course's model, all seven kinds, rank 16": (course, 16, list(ALL)), "the course's model, q and v, rank 16": (course, 16, ["q_proj", "v_proj"]),
            "a tiny model, all seven kinds, rank 4": (tiny, 4, list(ALL)), "the course's model, down_proj, rank 1": (course, 1, ["down_proj"])}


def _ratio() -> float:
    cases = _trained_cases()
    return _trained(*cases["the course's model, all seven kinds, rank 16"]) / _trained(*cases["the course's model, q and v, rank 16"])


exercise_2 = Exercise(
    LAB, 2, 3,
    right=_trained,
    cases=_trained_cases,
    returns="how many numbers are trained, a whole number",
    prediction=Prediction(
        "how many times as many numbers all seven kinds train as q and v", 1, 1000, _ratio,
        typical=[
            (3.3, 3.7, "Seven kinds against two would be 3.5 if all layers were alike. The three outside attention are larger, and v is smaller than q."),
            (1, 3.2, "There are seven kinds instead of two, and the larger ones are among the five that were added."),
            (7, 1000, "Both have the same rank, and an adapter grows with the edges of a matrix, not with its area."),
        ]),
    mistakes=[
        Mistake(lambda c, r, t: _trained(c, r, t, grouped=False),
                "k_proj and v_proj come out too large. This model has fewer heads for keys and values than for queries: their outputs are num_key_value_heads × "
                "the size of a head.", credit=0.5),
        Mistake(lambda c, r, t: c.num_hidden_layers * r * sum(sum(_sizes(c, c.num_attention_heads // c.num_key_value_heads)[name]) for name in t),
                "k_proj and v_proj fit the course's model by chance, because 9 = 3 × 3. They have num_key_value_heads × the size of a head outputs, and a head's "
                "size is hidden / num_attention_heads.", credit=0.5),
        Mistake(lambda c, r, t: _trained(c, r, t) // c.num_hidden_layers,
                "You counted one layer of the model. Each of its layers has these matrices: multiply by num_hidden_layers.", credit=0.5),
        Mistake(lambda c, r, t: _trained(c, r, t, one=lambda inputs, _: inputs),
                "You counted A alone. Each matrix gets A (rank × inputs) and B (outputs × rank).", credit=0.5),
        Mistake(lambda c, r, t: _trained(c, 1, t, one=lambda inputs, outputs: inputs * outputs),
                "You counted the frozen matrices themselves. The adapter of one has rank × (inputs + outputs) numbers."),
        Mistake(lambda c, r, t: _trained(c, r, t, one=lambda inputs, outputs: inputs * outputs),
                "You multiply inputs by outputs. A and B lie along two edges of the matrix: rank × inputs and outputs × rank, added up."),
        Mistake(lambda c, r, t: c.num_hidden_layers * r * 2 * c.hidden_size * len(t),
                "You take every matrix for hidden × hidden. gate_proj, up_proj and down_proj have intermediate_size on one side; k_proj and v_proj give out less.",
                credit=0.25),
    ],
    after="PEFT counts the same.",
)

# ---------------------------------------------------------------- 3: alpha for another rank


def _alpha(rank: int, alpha: float, new_rank: int, rslora: bool) -> float:
    return alpha / rank * (math.sqrt(new_rank) if rslora else new_rank)


exercise_3 = Exercise(
    LAB, 3, 2,
    right=_alpha,
    cases=lambda: {
        "rank 16, alpha 32, to rank 64": (16, 32, 64, False), "rank 16, alpha 32, to rank 64 with rsLoRA": (16, 32, 64, True),
        "rank 32, alpha 16, to rank 4": (32, 16, 4, False), "rank 32, alpha 16, to rank 4 with rsLoRA": (32, 16, 4, True),
        "rank 8, alpha 40, to rank 8 with rsLoRA": (8, 40, 8, True),
    },
    returns="the new alpha, a number",
    rtol=1e-3,
    mistakes=[
        Mistake(lambda rank, alpha, new, rslora: alpha,
                "You keep alpha. Then the factor changes with the rank, and with it the size of the update: you would compare two things at once."),
        Mistake(lambda rank, alpha, new, rslora: new,
                "You set alpha to the new rank. That gives the factor 1 in plain LoRA; the tuned recipe may have another factor, and yours must equal it."),
        Mistake(lambda rank, alpha, new, rslora: 2 * new,
                "You set alpha to twice the rank, a rule of thumb. It keeps the factor only of a recipe that had alpha = 2 × rank before.", credit=0.25),
        Mistake(lambda rank, alpha, new, rslora: _alpha(rank, alpha, new, False),
                "Right for plain LoRA. With rsLoRA the new run divides alpha by the square root of the rank, so it needs factor × sqrt(new rank).", credit=0.5),
        Mistake(lambda rank, alpha, new, rslora: alpha * math.sqrt(new / rank) if rslora else _alpha(rank, alpha, new, False),
                "You use the square root for the old run as well. The recipe was tuned with plain LoRA: its factor is alpha / rank, whatever the new run does.", credit=0.5),
        Mistake(lambda rank, alpha, new, rslora: alpha * rank / (math.sqrt(new) if rslora else new),
                "It is turned round: alpha is divided by the rank, so a larger rank needs a larger alpha to keep the factor."),
        Mistake(lambda rank, alpha, new, rslora: alpha / rank,
                "This is the factor. Return the alpha that gives the new run this factor.", credit=0.25),
    ],
    after="The factor is the same at every rank, so the learning rate that was chosen for it may stay.",
)

# ---------------------------------------------------------------- 4: a run that learns nothing

STEPS, GOAL = 40, 3.2  # the loss begins near 4.8


def small_model() -> Any:
    """A Llama of one layer with random weights, the same at each call."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                                            num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.2, use_cache=False))


def small_batch() -> dict[str, Tensor]:
    """Eight rows of twelve random tokens; all of them are trained."""
    ids = torch.randint(0, 64, (8, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "labels": ids}


def _run(make: Callable[[], Any], batch: Mapping[str, Tensor], rate: float = 1e-2, seen: str = "adapter", base_too: bool = False,
         steps: int = STEPS) -> tuple[Any, list[float]]:
    """`seen`: whose weights the optimizer gets, those of the model with its `adapter` or those of the `base`, before it has one."""
    from peft import LoraConfig, get_peft_model

    base = make()
    weights = list(base.parameters()) if seen == "base" else None
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    if base_too:
        model.requires_grad_(True)
    optimizer, losses = torch.optim.AdamW(weights or model.parameters(), lr=rate), []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def _full(make: Callable[[], Any], batch: Mapping[str, Tensor]) -> tuple[Any, list[float]]:
    """No adapter at all: the base is trained."""
    model = make()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(STEPS):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def _loss_in_words(losses: Sequence[float]) -> str:
    risen = max(loss - min(losses[: n + 1]) for n, loss in enumerate(losses))
    if not all(map(math.isfinite, losses)) or (risen > 0.05 and losses[-1] >= GOAL):
        return "jumps"
    if losses[-1] < GOAL:
        return f"ends below {GOAL}"
    return "hardly moves" if losses[0] - losses[-1] < 0.15 else "falls too little"


def _changed(model: Any, losses: Sequence[float]) -> str:
    """What was to be kept and is another. One loss more than steps: it was measured once more at the end."""
    layers = {name.rpartition(".")[2]: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    differs = {"rank": any({*layer.r.values()} != {4} for layer in layers.values()), "alpha": any({*layer.lora_alpha.values()} != {8} for layer in layers.values()),
               "targets": bool(layers) and layers.keys() != set(ALL), "steps": len(losses) not in (STEPS, STEPS + 1)}
    return " and ".join(name for name, yes in differs.items() if yes) or "nothing"


def _facts(value: Any) -> dict[str, str] | str:
    """What moved, where the loss went, and what was changed that was to be kept: the rest is free."""
    model, losses = value if isinstance(value, (tuple, list)) and len(value) == 2 else (None, None)
    if not hasattr(model, "named_parameters") or not (isinstance(losses := plain(losses), list) and losses):
        return "not a model and its losses"
    fresh = dict(small_model().named_parameters())
    plain_name = lambda name: name.removeprefix("base_model.model.").replace(".base_layer", "")
    weights = dict(model.named_parameters())
    moved = [name for name, there in (
        ("adapter", any(bool(p.any()) for n, p in weights.items() if "lora_B" in n)),
        ("base", any(not torch.equal(p, fresh[plain_name(n)]) for n, p in weights.items() if "lora_" not in n)),
    ) if there]
    return {"what moved": " and ".join(moved) or "nothing", "the loss": _loss_in_words(losses), "changed, but to be kept": _changed(model, losses)}


def _run_cases() -> dict[str, tuple]:
    from helpers import models  # noqa: F401  (silences what the next import would say to stderr)

    import peft  # noqa: F401  (its import is not the learner's time)

    small_model()
    return {"the small model": (small_model, small_batch())}


exercise_4 = Exercise(
    LAB, 4, 3,
    right=_run,
    cases=_run_cases,
    returns="the model with its trained adapter and the list of the losses",
    read=_facts,
    mistakes=[
        Mistake(lambda make, batch: _run(make, batch, 2e-5, "base"),
                "Nothing moved: all losses are the same number. The optimizer was given the weights of the base model before there was an adapter, and those "
                "are frozen. Add the adapter first, then make the optimizer from the new model's parameters."),
        Mistake(lambda make, batch: _run(make, batch, 2e-5),
                "The adapter moves now, but the loss hardly does. 2e-5 is a learning rate for training all weights; a LoRA adapter wants a much larger one.", credit=0.5),
        Mistake(lambda make, batch: _run(make, batch, 4e-4),
                f"The adapter learns, but slowly: the loss does not come below {GOAL} in {STEPS} steps. Raise the learning rate further; lesson 05 found LoRA's best "
                "rate at 2e-3.", credit=0.5),
        Mistake(lambda make, batch: _run(make, batch, 0.5),
                "The loss jumps up and down: the steps are too large, and each makes good what the last one spoiled. Take a smaller learning rate.", credit=0.5),
        Mistake(lambda make, batch: _run(make, batch, base_too=True),
                "The base model has changed, too: it was unfrozen. Then it is no LoRA, the adapter alone can't be saved, and what the model knew is overwritten. "
                "Leave the base frozen.", credit=0.25),
        Mistake(_full,
                "You trained the base model itself: no adapter has moved. Give the model that `get_peft_model` returns to the optimizer, and run and return that one.", credit=0.25),
        Mistake(lambda make, batch: _run(make, batch, steps=2 * STEPS),
                f"The number of steps is another one. The repair has to do with {STEPS}, one loss each: with a learning rate that fits, they are enough.", credit=0.5),
        Mistake(lambda make, batch: _run(make, batch)[0],
                "Expected two things, `model, losses`: first the model with its adapter, then the list with the loss of every step."),
    ],
    after="The adapter learned, and the base model is what it was to the last bit.",
)

# ---------------------------------------------------------------- 5: a learning rate, on validation rows

Row = Mapping[str, Any]


def _choose(rows: Sequence[Row], method: str, best: Callable[[Row], Any] = lambda row: (row["right"], -row["loss"]), split: str | None = "validation") -> float:
    return max((row for row in rows if row["method"] == method and split in (row["split"], None)), key=best)["learning_rate"]


def _table(*lines: tuple) -> list[dict[str, Any]]:
    return [dict(zip(("method", "split", "learning_rate", "right", "loss", "training_loss"), line)) for line in lines]


def _choose_cases() -> dict[str, tuple]:
    rows = _table(
        ("lora", "validation", 1e-4, 0.50, 0.40, 0.38), ("lora", "validation", 5e-4, 0.70, 0.31, 0.25), ("lora", "validation", 2e-3, 0.80, 0.22, 0.16),
        ("lora", "validation", 5e-3, 0.75, 0.19, 0.04), ("lora", "test", 5e-4, 0.86, 0.18, 0.25), ("lora", "test", 2e-3, 0.78, 0.24, 0.16),
        ("full", "validation", 1e-5, 0.55, 0.33, 0.30), ("full", "validation", 1e-4, 0.85, 0.17, 0.12), ("full", "validation", 3e-4, 0.85, 0.15, 0.14),
        ("full", "validation", 1e-3, 0.60, 0.60, 0.01), ("full", "test", 1e-5, 0.90, 0.11, 0.30),
    )
    more = _table(
        ("lora", "test", 1e-4, 0.60, 0.45, 0.20), ("lora", "validation", 3e-4, 0.75, 0.32, 0.15), ("lora", "validation", 1e-3, 0.75, 0.23, 0.20),
        ("lora", "validation", 3e-3, 0.70, 0.20, 0.10), ("full", "validation", 1e-5, 0.95, 0.09, 0.09),
    )
    first = _table(
        ("lora", "validation", 1e-4, 0.75, 0.20, 0.20), ("lora", "validation", 3e-4, 0.75, 0.25, 0.10), ("lora", "validation", 1e-3, 0.75, 0.30, 0.15),
        ("lora", "test", 5e-4, 0.75, 0.10, 0.12), ("full", "validation", 2e-3, 0.75, 0.09, 0.11),
    )
    return {"made-up rows, LoRA": (rows, "lora"), "made-up rows with two equal scores, all weights": (rows, "full"), "two equal scores, LoRA": (more, "lora"),
            "three equal scores, LoRA": (first, "lora")}


exercise_5 = Exercise(
    LAB, 5, 2,
    right=_choose,
    cases=_choose_cases,
    returns="a learning rate",
    mistakes=[
        Mistake(lambda rows, method: _choose(rows, method, split=None),
                "You choose among test rows as well. Then the test score of the winner holds luck, and no rows are left that chose nothing: choose on validation alone."),
        Mistake(lambda rows, method: _choose(rows, method, split="test"),
                "You choose on the test rows. They are for the end: who chooses on them has nothing left to report. Take the rows whose split is validation."),
        Mistake(lambda rows, method: _choose([{**row, "method": method} for row in rows], method),
                "You mix the methods: the best rate of all weights is not that of LoRA. Keep only the rows of the method that is asked for.", credit=0.5),
        Mistake(lambda rows, method: _choose(rows, method, best=lambda row: row["right"]),
                "Where two rates have the same score you take the first one. Of equal scores, take the one with the smaller validation loss.", credit=0.5),
        Mistake(lambda rows, method: _choose(rows[::-1], method, best=lambda row: row["right"]),
                "Where rates have the same score you take the last one. Of equal scores, take the one with the smaller validation loss.", credit=0.5),
        Mistake(lambda rows, method: _choose(rows, method, best=lambda row: (row["right"], row["loss"])),
                "Of equal scores you take the one with the larger loss. More is better for `right`, less for `loss`: with `max`, the loss needs a minus.", credit=0.5),
        Mistake(lambda rows, method: _choose(rows, method, best=lambda row: -row["training_loss"]),
                "You take the smallest training loss. It is measured on the rows that are trained, so a run that learns them by heart wins. Choose by `right` on validation."),
        Mistake(lambda rows, method: _choose(rows, method, best=lambda row: -row["loss"]),
                "You choose by the validation loss alone. That can be a fair rule, but it is not the one that was agreed before: first `right`, and the loss where two are equal.",
                credit=0.5),
        Mistake(lambda rows, method: _choose(rows, method, best=lambda row: -row["right"]),
                "You take the lowest score: the order is turned round. `right` is a share of right answers, and more is better."),
        Mistake(lambda rows, method: max(row["right"] for row in rows if row["method"] == method and row["split"] == "validation"),
                "This is the best score. Return the learning rate that reached it.", credit=0.25),
        Mistake(lambda rows, method: max((row for row in rows if row["method"] == method and row["split"] == "validation"), key=lambda row: (row["right"], -row["loss"])),
                "You found the right row and return all of it. Return its learning rate: row['learning_rate'].", credit=0.5),
    ],
    after="The test rows are still unseen, so they can report what this choice is worth.",
)
