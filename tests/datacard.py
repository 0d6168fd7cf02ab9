"""The figures of the data card, counted from the files. `python tests/datacard.py` writes them into helpers/data/README.md.

A test compares the card with what this module counts, so the card cannot go stale.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from pathlib import Path

from helpers import data, evaluation, results

CARD = data.HERE / "README.md"
BEGIN, END = "<!-- figures: python tests/datacard.py -->", "<!-- end of figures -->"


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


def load() -> dict[str, dict[str, list[dict]]]:
    return {"extract": listed(data.load_extract()), "answer": listed(data.load_answer()), "reply": listed(data.load_reply(documents=False)),
            "tone": listed(data.load_tone())}


def listed(splits) -> dict[str, list[dict]]:
    return {name: list(rows) for name, rows in splits.items()}


def sizes(sets) -> str:
    rows = []
    for name, splits in sets.items():
        every = [row for part in splits.values() for row in part]
        words = [len(data.prompt_of(r).split()) for r in every]
        rows.append([f"`{name}`", len(every), *(len(splits[s]) for s in data.SPLITS), f"{min(words)} to {max(words)}, median {int(statistics.median(words))}",
                     len({r["batch"] for r in every})])
    pairs = listed(data.load_preferences())
    rows.append(["preferences", sum(map(len, pairs.values())), *(len(pairs[s]) for s in data.SPLITS), "as `reply`", "as `reply`"])
    rows.append(["general probe", len(data.load_probe()), "", "", "all", "", 1])
    return table(["set", "rows", "train", "validation", "test", "words of a question", "writer batches"], rows)


def labels(sets) -> str:
    every = {name: [row for part in splits.values() for row in part] for name, splits in sets.items()}
    pairs = [row for part in data.load_preferences().values() for row in part]
    counts = {
        "`extract`, problem": Counter(data.record_of(r)["problem"] for r in every["extract"]),
        "`extract`, marks of hard rows": Counter(m for r in every["extract"] for m in r["hard"]) + Counter({"(none: easy)": sum(not r["hard"] for r in every["extract"])}),
        "`extract`, filled fields": Counter(k for r in every["extract"] for k, v in data.record_of(r).items() if v not in (None, [], False)),
        "`tone`": Counter(r["messages"][-1]["content"] for r in every["tone"]),
        "`tone`, hard": Counter("hard" if r["hard"] else "easy" for r in every["tone"]),
        "`answer`, edition 1": Counter(r["kind"] for r in every["answer"]),
        "`answer`, across editions": Counter("the answer changed" if r["changed"] else "no article of either edition answers" if r["absent"] else "same answer" for r in every["answer"]),
        "`reply`, sections given": Counter(f"{len(r['sources'])}" for r in every["reply"]),
        "preferences, how the worse one fails": Counter(r["failure"] for r in pairs),
        "general probe": Counter(r["kind"] for r in data.load_probe()),
    }
    return table(["what", "count"], [[name, ", ".join(f"{k} {v}" for k, v in c.most_common())] for name, c in counts.items()])


def knowledge() -> str:
    facts, changes = list(data.load_facts()), list(data.load_changes())
    both = [f for f in facts if f["edition_1"] and f["edition_2"]]
    changed = sum(c["kind"] == "changed" for c in changes)
    ids = {e: {a["id"] for a in data.load_articles(e)} for e in (1, 2)}
    words = [len(a["text"].split()) for e in (1, 2) for a in data.load_articles(e)]
    return table(["what", "count"], [
        ["articles in edition 1, in edition 2", f"{len(ids[1])}, {len(ids[2])}"],
        ["withdrawn, new in edition 2", f"{len(ids[1] - ids[2])}, {len(ids[2] - ids[1])}"],
        ["words of an article", f"{min(words)} to {max(words)}, median {int(statistics.median(words))}"],
        ["listed facts", len(facts)],
        ["changed, of those in both editions", f"{changed} of {len(both)}, {changed / len(both):.1%}"],
    ])


def parallel() -> str:
    rows = list(data.load_parallel())
    names = {"en": "English", "mr": "Marathi", "ne": "Nepali"}
    return table(["language", "sentences", "words", "characters", "bytes in UTF-8"], [
        [name, len(rows), sum(len(r[key].split()) for r in rows), sum(len(r[key]) for r in rows), sum(len(r[key].encode()) for r in rows)]
        for key, name in names.items()
    ])


def repeats(sets) -> str:
    rows = []
    for name, splits in sets.items():
        every = [row for part in splits.values() for row in part]
        within, across = data.near_duplicates(every, 0.05), data.leaks(splits, 0.05)
        openings = Counter(" ".join(re.findall(r"\w+", data.prompt_of(r).lower())[:3]) for r in every)
        words = [re.findall(r"\w+", data.prompt_of(r).lower()) for r in every]
        trigrams = [tuple(w[i : i + 3]) for w in words for i in range(len(w) - 2)]
        rows.append([f"`{name}`", *(f"{pairs[0].likeness:.2f}" if pairs else "below 0.05" for pairs in (within, across)),
                     f"{openings.most_common(1)[0][1] / len(every):.1%}", f"{len(set(trigrams)) / len(trigrams):.2f}"])
    return table(["set", "likest pair", "likest pair across splits", "rows with the most frequent opening", "distinct-3"], rows)


def agreement() -> str:
    from sklearn.metrics import cohen_kappa_score

    rows = []
    for name, field, first, second in second_labels():
        pairs = [(json.dumps(first[i]), json.dumps(second[i])) for i in second]
        rows.append([f"`{name}`", field, f"{len(second)} of {len(first)}", sum(a == b for a, b in pairs), f"{cohen_kappa_score(*zip(*pairs)):.2f}"])
    second = probe_answers()
    items = {i["id"]: i for i in data.load_probe()}
    right = sum(evaluation.passes(said, items[i]["check"]) for i, said in second.items())
    rows.append(["general probe", "answer passes the rule", f"{len(second)} of {len(items)}", right, ""])
    return table(["set", "label", "read twice", "agree", "Cohen's kappa"], rows)


def probe_answers() -> dict[str, str]:
    """What the second reader answered to items of the probe, without sight of answers and rules."""
    lines = (data.HERE / "probe" / "second_labels.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["answer"] for row in map(json.loads, lines)}


def second_labels():
    """Per label: set, field, first labels and second labels by id."""
    sets = {**load(), "preferences": listed(data.load_preferences())}
    every = {name: {row["id"]: row for part in splits.values() for row in part} for name, splits in sets.items()}
    first = {
        "extract": {i: {**data.record_of(r), "wants": r["wants"]} for i, r in every["extract"].items()},
        "tone": {i: {"tone": r["messages"][-1]["content"]} for i, r in every["tone"].items()},
        "answer": {i: {} for i in every["answer"]},
        "reply": {i: {"product": r["product"], "name": r["name"], "articles": sorted({s["article"] for s in r["sources"]})} for i, r in every["reply"].items()},
        "preferences": {i: {"failure": r["failure"]} for i, r in every["preferences"].items()},
    }
    editions = {e: {r["id"]: r for part in data.load_answer(e).values() for r in part} for e in (1, 2)}
    for name in first:
        second = {r["id"]: r for r in map(json.loads, (data.HERE / name / "second_labels.jsonl").read_text(encoding="utf-8").splitlines())}
        if name == "answer":
            gold = {i: editions[s["edition"]][i] for i, s in second.items()}
            rest = {i: None for i in every["answer"] if i not in second}
            yield name, "answerable", {i: r["kind"] != "unanswerable" for i, r in gold.items()} | rest, {i: bool(s["articles"]) for i, s in second.items()}
            yield name, "articles", {i: sorted(r["articles"]) for i, r in gold.items()} | rest, {i: sorted(s["articles"]) for i, s in second.items()}
            # the reader's own words: the gold answer where the course's score of answers counts them as right
            right = evaluation.answer_right([s["answer"] for s in second.values()], [gold[i] for i in second], anywhere=True)
            said = {i: gold_answer(gold[i]) if ok else s["answer"] for (i, s), ok in zip(second.items(), right)}
            yield name, "answer", {i: gold_answer(r) for i, r in gold.items()} | rest, said
            continue
        if name == "preferences":  # the reader saw the two replies as A and B, in random order
            yield name, "better reply", {i: second[i]["good"] if i in second else None for i in every[name]}, {i: s["better"] for i, s in second.items()}
        values = {i: s["record"] | {"wants": s["wants"]} if name == "extract" else s for i, s in second.items()}
        for field in next(iter(first[name].values())):
            yield name, field, {i: v[field] for i, v in first[name].items()}, {i: v[field] for i, v in values.items()}


def gold_answer(row: dict) -> str:
    return row["messages"][-1]["content"]


def disagreements() -> str:
    rows = []
    for name in ("extract", "tone", "answer", "reply", "preferences"):
        for line in (data.HERE / name / "second_labels.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("settled"):
                rows.append([f"`{row['id']}`", row["settled"]])
    return table(["row", "how it was settled"], rows) if rows else "No reader disagreed."


def difficulty() -> str:
    rows = []
    for recipe in results.DIFFICULTY.runs:
        row = results.DIFFICULTY.find(recipe, results.read(results.DIFFICULTY.path))
        cell = lambda name: "not measured on today's data" if row is None else f"{row[name][0]:.2f} [{row[name][1]:.2f}, {row[name][2]:.2f}]"
        rows.append([f"`{recipe.need}`", "base model, zero-shot" if not recipe.epochs else f"LoRA, {recipe.epochs} epochs", cell("exact"), cell("hard"), cell("easy"),
                     "" if row is None else row["rows"]])
    return table(["need", "system", "exact, all test rows", "hard rows", "easy rows", "test rows"], rows)


def figures() -> str:
    """The generated part of the card, as Markdown."""
    sets = load()
    parts = {"Sizes and splits": sizes(sets), "Labels": labels(sets), "Knowledge base": knowledge(), "Parallel sentences": parallel(), "Likeness": repeats(sets),
             "A second reader": agreement(), "Disagreements, settled": disagreements(), "Difficulty": difficulty()}
    return "\n\n".join(f"### {title}\n\n{body}" for title, body in parts.items())


def with_figures(card: str) -> str:
    """The card with the figures of today between its two markers."""
    if card.count(BEGIN) != 1 or card.count(END) != 1:
        raise SystemExit(f"{CARD}: expected the lines {BEGIN!r} and {END!r}, each once. Fix: put them back where the figures belong.")
    before, rest = card.split(BEGIN)
    return f"{before}{BEGIN}\n\n{figures()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    CARD.write_text(with_figures(CARD.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    print(f"figures written into {CARD.relative_to(Path.cwd()) if CARD.is_relative_to(Path.cwd()) else CARD}")
