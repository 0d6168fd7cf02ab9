"""The table of labs/starters/README.md: tune.py as it is, with the course's model, on data for which nobody chose a setting.

    python tests/starters_table.py               # three runs, seven minutes on two free cores
    python tests/starters_table.py --files       # only the files of rows
    python tests/starters_table.py --folder DIR  # default: starters-table

A run whose metrics.json stands is not repeated; one that was stopped goes on. Have nothing else running: minutes and memory are measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"tone": "helpers/data/tone/messages.jsonl", "library": "labs/data/library.jsonl", "bicycles": "labs/data/bicycles.jsonl"}
TITLES = {"tone": "`tone` of the desk, chat JSONL", "library": "`library`, another trade, chat JSONL", "bicycles": "`bicycles`, another trade, CSV"}
SUFFIX = {"tone": "jsonl", "library": "jsonl", "bicycles": "csv"}


def write_files(folder: Path) -> None:
    """One file for each split of each source; the CSV file has the message and the answer only, without the system prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in SOURCES.items():
        rows = [json.loads(line) for line in (ROOT / source).read_text(encoding="utf-8").splitlines()]
        for split in sorted({row["split"] for row in rows}):
            part = [row for row in rows if row["split"] == split]
            with open(folder / f"{name}-{split}.{SUFFIX[name]}", "w", encoding="utf-8", newline="") as stream:
                if SUFFIX[name] == "csv":
                    pairs = [[turn["content"] for turn in row["messages"] if turn["role"] != "system"] for row in part]
                    csv.writer(stream).writerows([["text", "label"], *pairs])
                else:
                    stream.writelines(json.dumps({"id": row["id"], "messages": row["messages"]}, ensure_ascii=False) + "\n" for row in part)


def command(name: str, folder: Path) -> list[str]:
    """The run as a practitioner types it, with no flag but the method, the files and the columns."""
    output, suffix = f"tuned-{name}", SUFFIX[name]
    flags = ["--method", "lora", "--train", f"{name}-train.{suffix}", "--eval", f"{name}-test.{suffix}", "--output", output]
    flags += ["--columns", "text,label"] if suffix == "csv" else []
    flags += ["--resume"] if (folder / f"{output}.part" / "tune.yaml").is_file() else []
    flags += ["--force"] if (folder / f"{output}.part").exists() and "--resume" not in flags else []  # stopped before there was anything
    return [sys.executable, str(ROOT / "labs/starters/tune.py"), *flags]


def line_of(name: str, metrics: dict) -> str:
    """A line of the table: the score that fits the gold answers (labels, else the whole answer), and the training's costs."""
    score = "label_accuracy" if "label_accuracy" in metrics["scores"] else "exact_match"
    cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*metrics["scores"][score][side]) for side in ("before", "after", "difference")]
    minutes = f"{metrics['minutes']}" + f" from {metrics['minutes_from']} on" * (metrics["minutes_from"] != "the start")
    rows = f"{metrics['data']['train']['rows']} / {metrics['data']['eval']['rows']}"
    return f"| {TITLES[name]} | {rows} | {score} | {' | '.join(cells)} | {minutes} | {metrics['peak_gb']} |"


def table(folder: Path) -> str:
    lines = ["| data | rows to learn / to judge by | score | before | after | difference on the same rows | minutes | peak GB |", "|---" * 8 + "|"]
    for name in SOURCES:
        file = folder / f"tuned-{name}" / "metrics.json"
        lines.append(line_of(name, json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else f"| {TITLES[name]} |" + " not measured |" * 7)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("starters-table"), help="where rows and results go (%(default)s)")
    parser.add_argument("--files", action="store_true", help="write the files of rows, and train nothing")
    options = parser.parse_args()
    write_files(options.folder)
    failed = []
    for name in () if options.files else SOURCES:
        if (options.folder / f"tuned-{name}" / "metrics.json").is_file():
            continue
        print(f"--- {name}", file=sys.stderr)
        if subprocess.run(command(name, options.folder), cwd=options.folder).returncode:
            failed.append(name)
    print(table(options.folder))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}. Fix: read what tune.py said above, then run this again; finished runs are kept.")


if __name__ == "__main__":
    main()
