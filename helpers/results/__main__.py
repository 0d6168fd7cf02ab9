"""Re-make the measured rows that are missing or out of date in lessons/results/."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import asdict

from helpers import results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.results", description=__doc__)
    parser.add_argument("--family", choices=sorted(results.FAMILIES), help="only the rows of this file")
    parser.add_argument("--need", choices=sorted(results.rows.FILES), help="only this need")
    parser.add_argument("--force", action="store_true", help="measure again even where the stored row is up to date")
    parser.add_argument("--run", type=int, help="measure this one run of --family in this process (used for each row, so that memory is its own)")
    chosen = parser.parse_args()
    families = [results.FAMILIES[chosen.family]] if chosen.family else list(results.FAMILIES.values())
    if chosen.run is not None:
        if not chosen.family or not 0 <= chosen.run < len(families[0].runs):
            parser.error("--run: expected --family and the number of one of its runs.")
        results.store(families[0].measure(families[0].runs[chosen.run]), families[0].path)
        return
    for family in families:
        for number in family.due(results.read(family.path), chosen.need, chosen.force):
            recipe = family.runs[number]
            name = family.name + ": " + ", ".join(f"{key} {value}" for key, value in asdict(recipe).items())
            print(f"{name}: measuring …", flush=True)
            if code := subprocess.run([sys.executable, "-m", "helpers.results", "--family", family.name, "--run", str(number)]).returncode:
                raise SystemExit(f"{name}: the run stopped with code {code}, see above. Rows measured before it are stored; the same command goes on.")
            print({key: value for key, value in family.stored(recipe).items() if key not in ("recipe", "provenance")}, flush=True)


if __name__ == "__main__":
    main()
