"""Claims about memory, time and parameters, and about the methods of tuning. Part of the ledger."""

from __future__ import annotations

from statistics import median

from helpers import costs

from . import evidence
from .claims import HOLDS, NOT, OPEN, WHEN, Finding, Pending, claim, either, read_lesson, row, untested

SAME = {"batch": 4, "length": 128, "loss": "answer", "checkpointing": False, "optimizer": "adamw", "rank": 16}
SMALL = {"batch": 1, "length": 128, "loss": "answer", "checkpointing": False, "optimizer": "adamw", "rank": 16}


def cost(rows: evidence.Rows, method: str, model: str = "135M") -> dict:
    """The measured training step of a method: 4 x 128 tokens of the course's model, 1 x 128 of a larger one."""
    return row(rows, "costs", model=model, method=method, **(SAME if model == "135M" else SMALL))


def peak(rows, methods, model="135M"):
    found = {method: cost(rows, method, model) for method in methods}
    said = ", ".join(f"{evidence.NAMES[m]} {one['peak_gb']:.1f} GB" for m, one in found.items())
    return found, f"peak of a step, {model}: {said}", tuple(evidence.cite(one, "costs", f"{one['peak_gb']:.2f} GB") for one in found.values())


def seconds(rows, methods, model="135M"):
    found = {method: cost(rows, method, model) for method in methods}
    said = ", ".join(f"{evidence.NAMES[m]} {one['seconds']:.2f} s" for m, one in found.items())
    return found, f"one step, {model}: {said}", tuple(evidence.cite(one, "costs", f"{one['seconds']:.2f} s") for one in found.values())


# ---------------------------------------------------------------- LoRA, QLoRA, all weights


@claim("P1", "slmops", "LoRA trains far fewer parameters.", "05, Prepare the training")
def few_parameters(rows):
    lora, full = cost(rows, "lora"), cost(rows, "full")
    return either(lora["trained"] < 0.1 * full["trained"], f"{lora['trained']:,} of {full['trained']:,} parameters",
                  evidence.cite(lora, "costs", f"{lora['trained']:,} trained"), evidence.cite(full, "costs", f"{full['trained']:,} trained"))


@claim("P2", "slmops", "LoRA is close to full tuning in quality.", "07, All weights, LoRA, QLoRA; 09")
def close_to_full(rows):
    leads, seen, sources = _lora_and_full(rows)
    near = [need for need, lead in leads.items() if lead.high >= 0]
    return _on(near, leads, NOT, seen, sources)


@claim("P3", "slmops", "Full tuning has the highest performance.", "07, All weights, LoRA, QLoRA; 09")
def full_is_best(rows):
    leads, seen, sources = _lora_and_full(rows)
    best = [need for need, lead in leads.items() if lead.high < 0]
    return _on(best, leads, NOT if all(lead.low > 0 for lead in leads.values()) else OPEN, seen, sources)


def _on(held, leads, else_, seen, sources):
    """HOLDS where it held on all needs, WHEN where it held on some, naming them, or `else_`."""
    if held and len(held) < len(leads):
        return Finding(WHEN, seen, sources, when="the need is " + " or ".join(held))
    return Finding(HOLDS if held else else_, seen, sources)


def _lora_and_full(rows):
    """The lead of LoRA over all weights on the test rows of each need where both are measured, in words too, and the sources."""
    leads, seen, sources = {}, [], []
    for need in evidence.NEEDS:
        found = evidence.measured(need, rows)
        lora, full = found.get("LoRA"), found.get("full")
        if lora and full and (lead := evidence.lead(lora, full)):
            leads[need] = lead
            seen.append(f"{need}: LoRA {lora.score}, all weights {full.score}, lead of LoRA {lead}")
            sources += [lora.cite, full.cite]
    if not leads:
        raise Pending(evidence.command("tuning", "tone"))
    return leads, "; ".join(seen), tuple(sources)


@claim("P4", "slmops", "Full tuning needs much more compute.", "07, Does it fit into memory?")
def full_is_dear(rows):
    found, said, sources = seconds(rows, ("lora", "full"))
    ratio = found["full"]["seconds"] / found["lora"]["seconds"]
    memory, more, second = peak(rows, ("lora", "full"), "374M")
    return Finding(WHEN, f"{said}, {ratio:.2f} times; {more}", (*sources, *second), "memory is meant; the time of a step is nearer")


@claim("P5", "slmops", "Adapters are switched on one base.", "05, Off, on, elsewhere: what an adapter is good for")
def switching(rows):
    found, source = read_lesson("05_lora", "Off, on, elsewhere: what an adapter is good for", r"adapter (\d+) MB, base model (\d+) MB")
    same, second = read_lesson("05_lora", "Off, on, elsewhere: what an adapter is good for", r"answers as the trained adapter: (True|False)")
    return either(same[1] == "True" and int(found[1]) < int(found[2]),
                  f"an adapter of {found[1]} MB on a base of {found[2]} MB goes off, on, and onto a copy", source, second)


@claim("P6", "slmops", "QLoRA cuts memory further than LoRA.", "06, Memory and time of a step")
def qlora_memory(rows):
    lora, qlora = row(rows, "slowdown", method="lora"), row(rows, "slowdown", method="qlora")
    less = qlora["weights_mb"] < lora["weights_mb"], qlora["peak_gb"] < lora["peak_gb"]
    verdict = HOLDS if all(less) else WHEN if less[0] else NOT
    return Finding(verdict, f"weights {lora['weights_mb']:.0f} MB and {qlora['weights_mb']:.0f} MB, peak of the process {lora['peak_gb']:.2f} GB and {qlora['peak_gb']:.2f} GB",
                   (evidence.cite(lora, "slowdown", f"{lora['weights_mb']} MB"), evidence.cite(qlora, "slowdown", f"{qlora['weights_mb']} MB")),
                   "weights are the largest part; with a small model the rest is")


@claim("P7", "expert", "QLoRA is about 30 % slower than LoRA.", "06, Memory and time of a step")
def qlora_slower(rows):
    one = row(rows, "slowdown", method="pair")
    ratio = {step["tokens"]: step["qlora"]["cpu"] / step["lora"]["cpu"] for step in one["steps"]}
    near = [tokens for tokens, value in ratio.items() if 1.2 <= value <= 1.4]
    verdict = HOLDS if len(near) == len(ratio) else WHEN if near else NOT
    return Finding(verdict, "times the processor time of LoRA: " + ", ".join(f"{value:.2f} at {tokens} tokens a step" for tokens,
                                                                             value in ratio.items()),
                   (evidence.cite(one, "slowdown", "five sizes of a step"),), f"a step has about {near[0]} tokens" if near else "")


@claim("P8", "expert", "QLoRA's adapter repairs the errors of quantisation.", "06, The ladder: does the adapter repair the rounding?")
def repairs(rows):
    found, source = read_lesson("06_qlora", "The ladder: does the adapter repair the rounding?",
                                r"fewer than half of the layers came closer to the original: (True|False)")
    table, second = read_lesson("06_qlora", "The ladder: does the adapter repair the rounding?",
                                r"NF4 +[\d.]+ +([\d.]+)\nNF4 \+ LoRA +[\d.]+ +([\d.]+)")
    return either(found[1] == "False", f"loss on other prose: 4 bits {table[1]}, 4 bits with the adapter {table[2]}; fewer than half of the layers came closer", source, second)


@claim("P9", "expert", "QLoRA tunes a 70B model that needs 36 GPUs with only 2.", "06, “A 70B model that needs 36 GPUs with only 2”")
def seventy_billion(rows):
    full, source = read_lesson("06_qlora", '"A 70B model that needs 36 GPUs with only 2"', r"full training: ([\d,]+) GB, (\d+) GPUs")
    four, second = read_lesson("06_qlora", '"A 70B model that needs 36 GPUs with only 2"', r"4-bit weights: (\d+) GB, (\d+) GPUs")
    return Finding(WHEN, f"by counting bytes, in cards of 24 GB: {full[1]} GB of states, {full[2]} cards; 4-bit weights {four[1]} GB, {four[2]} cards; not run here",
                   (source, second), "a card has 24 GB and all training states are in memory at once")


@claim("P10", "slmops", "QLoRA needs a GPU.", "06, Train on it")
def qlora_gpu(rows):
    one = cost(rows, "qlora")
    return either(False, f"a QLoRA step of 4 x 128 tokens took {one['seconds']:.2f} s on this CPU",
                  evidence.cite(one, "costs", f"{one['seconds']:.2f} s"))


@claim("P11", "slmops", "Gradient checkpointing saves memory.", "07, Activation checkpointing: memory for time")
def checkpointing(rows):
    one = row(rows, "speed", what="checkpointing")
    full = one["methods"]["full"]
    return Finding(WHEN, f"kept for the way back {full['kept_mb'][0]:.0f} MB and {full['kept_mb'][1]:.0f} MB; peak {full['memory_gb'][0]:.1f} GB and "
                   f"{full['memory_gb'][1]:.1f} GB; {full['ratio']:.2f} times the time", (evidence.cite(one, "speed", f"kept {full['kept_mb']} MB"),),
                   "activations are the largest part of the memory")


@claim("P12", "slmops", "Mixed precision makes training faster.", "07, Where the time goes")
def mixed_precision(rows):
    one = row(rows, "speed", what="recipe")
    ways = one["ways"]
    if "recipe bf16" not in ways:
        raise Pending(evidence.command("speed", "extract"))
    plain, mixed = (median(ways[name]["tokens_per_second"]) for name in ("recipe", "recipe bf16"))
    verdict = WHEN if mixed > plain else NOT
    return Finding(verdict, f"tokens per second, median of three: float32 {plain:.0f}, bfloat16 {mixed:.0f}",
                   (evidence.cite(one, "speed", f"{plain:.0f} and {mixed:.0f} tokens/s"),),
                   "the processor multiplies bfloat16 in hardware" if verdict == WHEN else "")


@claim("P13", "slmops", "To tune with little memory: LoRA or QLoRA instead of all weights.", "07, A model that is not here")
def little_memory(rows):
    found, said, sources = peak(rows, ("lora", "qlora", "full"), "374M")
    best = found["full"]["peak_gb"]
    return either(all(found[m]["peak_gb"] < best for m in ("lora", "qlora")), said, *sources)


@claim("P14", "slmops", "Against running out of memory: batch 1 and accumulation 16.", "07, Gradient accumulation equals the large batch")
def smaller_batch(rows):
    large, small = (costs.predict(cost(rows, "qlora")["config"], method="qlora", batch=batch, length=256,
                                  accumulation=16 // batch).peak_gb for batch in (16, 1))
    one = cost(rows, "qlora")
    return either(small < large, f"predicted peak for the course's model, 16 x 256 tokens a step: {large:.1f} GB at once, {small:.1f} GB row by row",
                  evidence.cite(one, "costs", f"measured at 4 x 128: {one['peak_gb']:.1f} GB"))


# ---------------------------------------------------------------- the table of the scenarios


@claim("S1", "scenarios", "LoRA does not reduce memory (the table says no).", "07; 09")
def table_lora_memory(rows):
    found, said, sources = peak(rows, ("lora", "full"), "374M")
    return either(found["lora"]["peak_gb"] >= found["full"]["peak_gb"], said, *sources)


@claim("S2", "scenarios", "LoRA does not lower the number of trained parameters (the table says no).", "05, Prepare the training")
def table_lora_parameters(rows):
    lora, full = cost(rows, "lora"), cost(rows, "full")
    return either(lora["trained"] >= full["trained"], f"{lora['trained']:,} of {full['trained']:,} parameters",
                  evidence.cite(lora, "costs", f"{lora['trained']:,} trained"))


@claim("S3", "scenarios", "PEFT does not reduce compute (the table says no).", "07; 09")
def table_peft(rows):
    found, said, sources = seconds(rows, ("lora", "qlora", "dora", "full"))
    cheaper = [m for m in ("lora", "qlora", "dora") if found[m]["seconds"] < found["full"]["seconds"]]
    return either(not cheaper, f"{said}; LoRA, QLoRA and DoRA are PEFT", *sources)


@claim("S4", "scenarios", "DoRA does not reduce compute (the table says no).", "11; 09")
def table_dora_compute(rows):
    found, said, sources = seconds(rows, ("dora", "lora", "full"))
    return either(found["dora"]["seconds"] >= found["full"]["seconds"], said, *sources)


@claim("S5", "scenarios", "DoRA reduces memory (the table says yes).", "11; 09")
def table_dora_memory(rows):
    found, said, sources = peak(rows, ("dora", "lora", "full"), "374M")
    less = found["dora"]["peak_gb"] < found["full"]["peak_gb"]
    more = found["dora"]["peak_gb"] > found["lora"]["peak_gb"]
    return Finding(WHEN if less and more else HOLDS if less else NOT, said, sources, "it is compared with full tuning; LoRA needs less")


@claim("S6", "scenarios", "Tuning needs a cloud's CPUs and FPGAs.", "05 to 07")
def infrastructure(rows):
    one = cost(rows, "full")
    return either(False, f"two threads of one CPU trained all weights of the course's model, {one['seconds']:.1f} s a step; no FPGA",
                  evidence.cite(one, "costs", f"{one['seconds']:.1f} s"))


untested("S7", "scenarios", "DeepSpeed and ZeRO use the memory of all devices together.", "one machine without a GPU; lesson 15 is for it")
untested("S10", "scenarios", "DoRA is memory-efficient data parallelism (the table says yes).",
         "DoRA is an adapter and shares no memory between devices: there is nothing to measure")
untested("P15", "slmops", "The relation of learning rate and batch size.", "the course measures one batch size per method")
