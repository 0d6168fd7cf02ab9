"""Make the student editions of the labs from their solutions, with nbgrader's own converter.

    python tests/student_edition.py [LAB …]        (all labs by default)

`labs/solutions/NN_topic.ipynb` is the source. The steps are those of `nbgrader generate_assignment`, in its order, without the one that
writes to a course's database: what stands between `### BEGIN SOLUTION` and `### END SOLUTION` becomes a stub, outputs go, checks are
locked. Then the links are turned to the student edition's place, one folder up. tests/test_labs.py proves that the committed student
editions are what this makes, and that the real command makes the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbgrader.converters.generate_assignment import GenerateAssignment
from nbgrader.preprocessors import IncludeHeaderFooter, InstantiateTests, SaveCells
from traitlets.config import Config

LABS = Path(__file__).resolve().parent.parent / "labs"
STUB = "raise NotImplementedError"
NOT_NEEDED = (IncludeHeaderFooter, InstantiateTests, SaveCells)  # no header file, no generated tests, no database


def settings() -> Config:
    """The settings of nbgrader that a course with these labs uses."""
    config = Config()
    config.ClearSolutions.code_stub = {"python": STUB}
    return config


def student_edition(solution: Path) -> str:
    """The text of the student edition of one solution notebook. Raises nbgrader's errors where a mark or an id is wrong."""
    notebook, resources = nbformat.read(solution, as_version=4), {}
    for step in GenerateAssignment.class_traits()["preprocessors"].default():
        if step not in NOT_NEEDED:
            notebook, resources = step(config=settings(), enabled=True).preprocess(notebook, resources)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../../", "](../")
    return nbformat.writes(notebook) + "\n"


def main(names: list[str]) -> int:
    paths = [Path(n).resolve() for n in names] or sorted((LABS / "solutions").glob("[0-9][0-9]_*.ipynb"))
    for path in paths:
        target = LABS / path.name
        part = target.with_name(target.name + ".part")
        part.write_text(student_edition(path), encoding="utf-8", newline="\n")
        os.replace(part, target)
        print(f"{target.relative_to(LABS.parent)}: made")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
