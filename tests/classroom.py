"""A class for the tests: lab 01 released through nbgrader's exchange, and what twenty-odd learners hand in, some of it broken.

`HANDED_IN` says who hands in what and what must come of it. All of nbgrader's steps are its own commands, run in this process. The lab
holds its real answers and checks; the cells that only use the answers are left out, for they import torch, twenty times.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

import nbformat

from helpers.checks import gradebook, grading

LAB = "01_when_to_fine_tune"
SOLUTION = grading.ROOT / "labs" / "solutions" / f"{LAB}.ipynb"
OPENING = "import math\n\nfrom helpers import checks, evaluation"  # what the answers and the checks need
FULL = 13.0
CELL_SECONDS = 30  # for one cell; the two endless loops wait that long, asleep
Change = Callable[[Path, Any], None]


@dataclass(frozen=True)
class HandedIn:
    """`change`: what the learner did to the folder and to the solved notebook. `score`: nbgrader's, None for none. `cause`: stands in the table."""

    change: Change
    score: float | None
    cause: str


def nbgrader(*arguments: str, folder: Path) -> None:
    """Run `nbgrader …` in a folder. Raises AssertionError when it fails."""
    from jupyter_core.application import NoStart
    from nbgrader.apps.nbgraderapp import NbGraderApp

    app = NbGraderApp.instance()
    with contextlib.chdir(folder), contextlib.suppress(NoStart):
        try:
            app.initialize(list(arguments))
            app.start()
        except SystemExit as error:
            assert not error.code, f"nbgrader {' '.join(arguments)} stopped with {error.code}"
        finally:
            app.reset()


@contextlib.contextmanager
def at_home(folder: Path) -> Iterator[None]:
    """Jupyter's own folders lie in `folder`: nothing of this machine's user is read or written."""
    old = dict(os.environ)
    os.environ.update(JUPYTER_DATA_DIR=str(folder / "data"), JUPYTER_CONFIG_DIR=str(folder / "config"), JUPYTER_RUNTIME_DIR=str(folder / "run"))
    gradebook.find_tools()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(old)


def released(folder: Path) -> Path:
    """Make the course folder with lab 01, and release it through an exchange in `folder`. Gives back the course folder."""
    course = folder / "course"
    assert grading.new(course, ["01"], exchange=folder / "exchange") == [LAB]
    file = course / "source" / LAB / f"{LAB}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    opening = next(c for c in notebook.cells if c.cell_type == "code")
    assert all(name in opening.source for name in ("math", "checks", "evaluation")), "lab 01 imports something else now"
    opening.source = OPENING
    notebook.cells = [c for c in notebook.cells if c is opening or c.cell_type == "markdown" or "nbgrader" in c.metadata]
    nbformat.write(notebook, file)
    nbgrader("generate_assignment", LAB, "--create", folder=course)
    nbgrader("release_assignment", LAB, folder=course)
    return course


def submit(course: Path, folder: Path, name: str) -> None:
    """One learner fetches the lab, changes it and hands it in, with a configuration and a folder of their own."""
    own = folder / "learners" / name
    own.mkdir(parents=True)
    shutil.copyfile(course / "nbgrader_config.py", own / "nbgrader_config.py")
    nbgrader("fetch_assignment", LAB, folder=own)
    notebook = solved(own / LAB / f"{LAB}.ipynb")
    HANDED_IN[name].change(own / LAB, notebook)
    nbgrader("submit", LAB, f"--student={name}", f"--Exchange.cache={own / 'cache'}", folder=own)


def solved(file: Path) -> Any:
    """The fetched notebook with all answers of the solution in it."""
    notebook, solution = nbformat.read(file, as_version=4), nbformat.read(SOLUTION, as_version=4)
    for number in range(1, 6):
        cell(notebook, number).source = cell(solution, number).source
    return notebook


# ---------------------------------------------------------------- what a learner does


def cell(notebook: Any, number: int, check: bool = False) -> Any:
    """The answer cell, or the check cell, of an exercise."""
    wanted = f"lab01_exercise_{number}{'' if check else '_answer'}"
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == wanted)


def save(change: Callable[[Any], Any]) -> Change:
    """Change the notebook and save it under its name."""
    def act(folder: Path, notebook: Any) -> None:
        change(notebook)
        write(folder, notebook)
    return act


def write(folder: Path, notebook: Any, name: str = LAB) -> None:
    (folder / f"{LAB}.ipynb").unlink()
    nbformat.write(notebook, folder / f"{name}.ipynb")


def put(number: int, source: str, before: bool = False) -> Change:
    """Write `source` into the answer of an exercise, or in front of what stands there."""
    def change(notebook: Any) -> None:
        own = cell(notebook, number)
        own.source = f"{source}\n{own.source}" if before else source
    return save(change)


def stubs(notebook: Any, *numbers: int) -> None:
    for number in numbers:
        own = cell(notebook, number)
        head = [line for line in own.source.splitlines() if line.startswith("def ")]
        own.source = "\n\n".join(f"{line}\n    raise NotImplementedError" for line in head)


def other_forms(notebook: Any) -> None:
    cell(notebook, 3).source = """import numpy as np
def enough_rows(curve):
    counts = [n for n in sorted(curve) if all(curve[m][1] > 0 for m in curve if m >= n)]
    return np.float64(counts[0]) if counts else np.inf"""
    cell(notebook, 5).source = """def overturned_by(decide, answers, changes):
    before = decide(dict(answers))
    return (name for name in changes if decide(dict(answers, **changes[name])) != before)"""


def partly(notebook: Any) -> None:
    cell(notebook, 1).source = "def against(right, rows, target):\n    return 'reached' if right / rows >= target else 'missed'"
    stubs(notebook, 4, 5)


def untouched(folder: Path, notebook: Any) -> None:
    """The file as it was fetched."""


def metadata(notebook: Any) -> None:
    mine = cell(notebook, 1, check=True).metadata
    mine.nbgrader["points"], mine.nbgrader["locked"], mine["tags"] = 200, False, ["skip-execution"]
    cell(notebook, 1).source = "def against(right, rows, target):\n    return 'reached'"


def tampered(notebook: Any) -> None:
    cell(notebook, 3).source = "def enough_rows(curve):\n    return 7"
    cell(notebook, 3, check=True).source = "print('right. All well.\\n3 of 3 points.')"


def silenced(notebook: Any) -> None:
    cell(notebook, 1).source = "from types import SimpleNamespace\nchecks.lab01 = SimpleNamespace(exercise_1=lambda answer: None)\nagainst = None"
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id", "lab01_exercise_1").startswith("lab01_exercise_1")]


def renamed(folder: Path, notebook: Any) -> None:
    write(folder, notebook, f"{LAB} (1)")


def as_text(text: str) -> Change:
    return lambda folder, notebook: (folder / f"{LAB}.ipynb").write_text(text) and None


def own_checks(folder: Path, notebook: Any) -> None:
    """A file that would take the place of the course's package, and answers that are wrong."""
    (folder / "helpers.py").write_text("class checks:\n    class lab01:\n        exercise_5 = lambda *_: None\n")
    cell(notebook, 5).source = "def overturned_by(decide, answers, changes):\n    return []"
    write(folder, notebook)


ENDLESS = "import time\nwhile True:\n    time.sleep(0.1)"
STUBBORN = "import time\nwhile True:\n    try:\n        time.sleep(0.1)\n    except BaseException:\n        pass"
NETWORK = "import urllib.request\nurllib.request.urlopen('http://example.org/answers')"
OUTSIDE = "from pathlib import Path\nPath.home().joinpath('grading-escaped.txt').write_text('out')"
GONE = "import os\nos._exit(1)"
FLOOD = "for number in range(100_000):\n    print('spam', number)"
FORGED = "checks.lab01.exercise_5 = lambda *_: print('1.1.1 of 2 points.')"

HANDED_IN = {
    "a_endless_loop": HandedIn(put(2, ENDLESS), 10, "exercise 2: took too long and was stopped"),
    "a_endless_stubborn": HandedIn(put(2, STUBBORN), None, "a cell did not end and could not be interrupted in exercise 2"),
    "answer_deleted": HandedIn(save(lambda n: n.cells.remove(cell(n, 3))), 10, "exercise 3: the answer cell is missing"),
    "check_deleted": HandedIn(save(lambda n: n.cells.remove(cell(n, 2, True))), FULL, "exercise 2: the check cell is missing"),
    "check_silenced": HandedIn(save(silenced), 2, "exercise 1: nbgrader gave 2 points, the check said nothing: look at the notebook by hand"),
    "check_tampered": HandedIn(save(tampered), 10, "exercise 3: the check cell was changed; nbgrader put it back"),
    "empty_file": HandedIn(as_text(""), None, "the file is empty"),
    "extra_file": HandedIn(own_checks, 11, "extra file: helpers.py"),
    "file_outside": HandedIn(put(5, OUTSIDE, before=True), 11, "wanted to change a file outside its folder"),
    "good": HandedIn(save(lambda n: None), FULL, "all checks passed"),
    "good_other_form": HandedIn(save(other_forms), FULL, "all checks passed"),
    "kernel_death": HandedIn(put(1, GONE), None, "the kernel died in exercise 1"),
    "memory_hog": HandedIn(put(5, "hog = bytearray(10**12)"), 11, "exercise 5: asked for more memory than there is"),
    "metadata_changed": HandedIn(save(metadata), 11, "exercise 1: metadata of the check cell changed (points, locked)"),
    "network": HandedIn(put(1, NETWORK), 11, "wanted the network, which is closed: example.org"),
    "not_json": HandedIn(as_text("<html>please log in</html>"), None, "the file is not JSON"),
    "output_flood": HandedIn(put(5, FLOOD, before=True), FULL, "exercise 5: its output was cut"),
    "partly": HandedIn(save(partly), 6, "exercise 1: 0 of 2; not yet right. You hold the share against the target."),
    "points_forged": HandedIn(put(5, FORGED, before=True), FULL, "exercise 5: nbgrader gave 2 points, the check said nothing: look at the notebook by hand"),
    "renamed": HandedIn(renamed, FULL, f"the file was named {LAB} (1).ipynb; graded as {LAB}.ipynb"),
    "stub_untouched": HandedIn(untouched, 0, "exercise 1: not attempted"),
    "syntax_error": HandedIn(put(4, "def rule(a)\n    return 'prompt'"), 10, "exercise 4: SyntaxError"),
}
