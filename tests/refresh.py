"""Re-run notebooks and store again only the outputs that changed beyond what their cell allows.

    python course.py refresh [NOTEBOOK …]        (all lessons and lab solutions by default)

A cell whose new outputs agree with the stored ones keeps the stored ones, pictures included, so a diff shows only
real changes. After the first cell that changed the tolerance is zero: what follows may come from the change, and one
notebook must not tell of two runs. The file is written to a temporary file and renamed; when a cell fails it is left as it was.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
import numpy as np
from ipykernel.ipkernel import IPythonKernel
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from PIL import Image

from nbcheck import as_stored, limits, new_client, run_cell, snap_outputs

ROOT = Path(__file__).resolve().parent.parent
KEPT_METADATA = ("kernelspec", "language_info", "course")
SAME_PICTURE = 0.001  # mean difference of pixels (0 to 1) below which a picture counts as the same


def same_picture(new: str, old: str) -> bool:
    """Whether two base64 PNG pictures look the same: equal size, nearly equal pixels."""
    a, b = (np.asarray(Image.open(io.BytesIO(base64.b64decode(p))).convert("RGB"), dtype=float) / 255 for p in (new, old))
    return a.shape == b.shape and float(np.abs(a - b).mean()) < SAME_PICTURE


def agree(new: list, old: list, rtol: float, atol: float) -> bool:
    """Whether fresh outputs say what the stored ones say, within the cell's tolerance."""
    copies = [nbformat.from_dict(o) for o in new]
    if len(copies) != len(old):
        return False
    for a, b in zip(snap_outputs(copies, old, rtol, atol), old):
        if any(a.get(key) != b.get(key) for key in ("output_type", "name", "text", "ename", "evalue")):
            return False
        left, right = a.get("data", {}), b.get("data", {})
        if set(left) != set(right):
            return False
        for kind in left:
            same = same_picture(left[kind], right[kind]) if kind == "image/png" else left[kind] == right[kind]
            if not same:
                return False
    return True


def refresh(path: Path) -> list[int]:
    """Run one notebook, store what changed; return the positions of the code cells whose outputs were stored anew."""
    notebook = nbformat.read(path, as_version=4)
    before = path.read_text(encoding="utf-8")
    client = new_client(notebook, path.parent)
    changed, count = [], 0
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            stated, old = limits(cell), as_stored([nbformat.from_dict(o) for o in cell.outputs])
            never_run = cell.execution_count is None
            count += 1
            new = as_stored(run_cell(client, cell, index))
            rtol, atol = (0.0, 0.0) if changed else (stated["rtol"], stated["atol"])
            if never_run or not agree(new, old, rtol, atol):
                changed.append(count - 1)
            else:
                cell.outputs = old
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count
            cell.metadata = {k: v for k, v in cell.metadata.items() if k not in ("execution", "ExecuteTime")}
            print(f"\r{path.name}: cell {count} ", end="", flush=True)
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = dict(IPythonKernel.language_info)  # else JupyterLab sets it, and the file counts as changed
    text = nbformat.writes(notebook) + "\n"
    if text != before:
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    return changed


def main(names: list[str]) -> int:
    paths = [Path(n).resolve() for n in names] or sorted([*(ROOT / "lessons").glob("*.ipynb"), *(ROOT / "labs" / "solutions").glob("*.ipynb")])
    failed = 0
    for path in paths:
        if not path.is_file():
            print(f"{path}: no such notebook")
            failed += 1
            continue
        try:
            changed = refresh(path)
        except (CellExecutionError, CellControlSignal, DeadKernelError, ValueError) as error:
            print(f"\r{path.name}: left as it was, a cell failed:\n{error}")
            failed += 1
            continue
        print(f"\r{path.name}: " + (f"{len(changed)} cell(s) stored anew: {changed}" if changed else "nothing changed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
