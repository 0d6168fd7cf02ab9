"""Grade a class with nbgrader, one submission at a time, so that none takes the others down. labs/GRADING.md is the guide.

    python -m helpers.checks.grading new DIR 01 08                 make a course folder for nbgrader with these labs
    python -m helpers.checks.grading grade DIR 01_when_to_fine_tune   grade what was collected; table as CSV and Markdown

nbgrader is the grader. Each submission runs through `nbgrader autograde` in a process and a throw-away course folder of its own, with
limits of time and memory; there lie no solutions and nobody else's work. Then a second `nbgrader autograde`, which runs no code, takes the
graded notebooks into the class's gradebook. What can't be graded gets no score, and the table names the cause.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Sequence

from helpers.classroom import editions

from . import causes, gradebook, process, watch
from .gradebook import AUTOGRADE, REFUSED, Batch, GradingError, Row
from .process import Limits

ROOT = Path(__file__).parents[2]
COURSE_ID = "fine-tuning"
LEARNER = "learner"  # everybody's name in the throw-away folder
PRIVATE = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|_PROXY$", re.I)
CONFIG = f'''c = get_config()
c.CourseDirectory.course_id = "{COURSE_ID}"
c.ClearSolutions.code_stub = {{"python": "raise NotImplementedError"}}
c.Execute.timeout = 300  # seconds for a cell
c.Execute.skip_cells_with_tag = "no cell is skipped"  # else a check tagged skip-execution gets full points
c.OverwriteCells.add_missing_cells = True  # a deleted check is put back
'''
THROW_AWAY = '''c.Execute.timeout = {cell_seconds}
c.Execute.iopub_timeout = 30
c.Execute.extra_arguments = [{first_line!r}]
c.OverwriteCells.add_missing_cells = {restore}
from helpers.checks import watch
c.Execute.on_cell_start = watch.tell_cell
'''


# ---------------------------------------------------------------- a class


def new(course: Path, labs: Sequence[str], exchange: Path | None = None) -> list[str]:
    """Make a course folder for nbgrader: nbgrader_config.py, and the solutions of `labs` ("01" or a lab's full name) in source/,
    without the third hints, which are the answers.

    What is there already is kept. Gives back the names of the assignments. Raises GradingError for a lab that there is not.
    """
    names = []
    for lab in labs:
        found = sorted((ROOT / "labs" / "solutions").glob(f"{lab.removesuffix('.ipynb')}*.ipynb"))
        if len(found) != 1:
            there = ", ".join(path.stem for path in sorted((ROOT / "labs" / "solutions").glob("*.ipynb")))
            raise GradingError(f"expected a lab, found {lab!r}. Fix: choose of {there}")
        target = course / "source" / found[0].stem / found[0].name
        if not target.exists():
            text = _for_a_class(found[0])
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(target, text)
        names.append(found[0].stem)
    config = course / "nbgrader_config.py"
    if not config.exists():
        _replace(config, CONFIG + (f"c.Exchange.root = {str(exchange.resolve())!r}\n" if exchange else ""))
    if exchange and not exchange.exists():
        exchange.mkdir(parents=True)
        exchange.chmod(0o777)  # everybody of the class hands in here
    return names


def _for_a_class(solution: Path) -> str:
    try:
        notebook = json.loads(solution.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = editions.without_answer_hints("".join(cell["source"])).splitlines(keepends=True)
    except (ValueError, LookupError, TypeError) as error:
        raise GradingError(f"{solution.name} is not a whole notebook: expected JSON with cells, found {type(error).__name__}: {str(error)[:80]}. "
                           "Fix: bring the solution back as it came with the course") from error
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def grade(course: Path, assignment: str, students: Sequence[str] = (), limits: Limits = Limits(), jobs: int = 1,
          say: Callable[[str], None] = lambda line: None) -> list[Row]:
    """Grade what stands in `submitted/`, of all students or of the named ones; one row for each, by name.

    `jobs`: how many at the same time. `say` gets a line when a submission has run. Raises GradingError when the class's folder is not ready, or when nbgrader can't write into the gradebook.
    """
    course = course.resolve()
    names = _ready(course, assignment, students)
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
        batch = Batch(course, assignment, Path(folder).resolve(), limits)
        gradebook.blank(course, batch.blank)
        with ThreadPoolExecutor(jobs) as pool:
            work = [pool.submit(_one, batch, name, say) for name in names]
            try:
                rows = [one.result() for one in work]
            except BaseException:  # Ctrl-C: what has not begun never does
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        taken = gradebook.take_in(batch, [row.name for row in rows if row.maximum >= 0])
        return [gradebook.with_score(batch, row, taken) for row in rows]


def _ready(course: Path, assignment: str, students: Sequence[str]) -> list[str]:
    if not list((course / "release" / assignment).glob("*.ipynb")) or not (course / "gradebook.db").is_file():
        raise GradingError(f"{course}: expected the folder release/{assignment} and gradebook.db, found none. "
                           f"Fix: in that folder, run: nbgrader generate_assignment {assignment}")
    if len(list((course / "release" / assignment).glob("*.ipynb"))) > 1:
        raise GradingError(f"release/{assignment}: expected one notebook, found several. Fix: make one assignment of each lab.")
    there = [path.parent.name for path in sorted((course / "submitted").glob(f"*/{assignment}")) if path.is_dir()]
    if absent := sorted(set(students) - set(there)) or ([] if there else ["anybody"]):
        raise GradingError(f"submitted/: expected work of {', '.join(absent)}, found none. "
                           f"Fix: run: nbgrader collect {assignment}, or put files into submitted/NAME/{assignment}/")
    return [name for name in there if not students or name in students]


# ---------------------------------------------------------------- one submission


def _one(batch: Batch, name: str, say: Callable[[str], None]) -> Row:
    """Run one submission; the row has no score yet, and is not graded when its `maximum` is negative. It raises nothing."""
    try:
        row = _run_one(batch, name)
    except Exception as error:  # a submission of a kind that nobody thought of must not stop the others
        row = Row(name, None, -1, (f"it could not be prepared: {causes.clean(f'{type(error).__name__}: {error}')}",))
    say(f"{causes.clean(name)}: {'not graded' if row.maximum < 0 else 'ran'}, {row.seconds:.0f} s")
    return row


def _run_one(batch: Batch, name: str) -> Row:
    given = batch.course / "submitted" / name / batch.assignment
    found = causes.before(given, batch.released)
    if found.refused:
        return Row(name, None, -1, (found.refused, *found.odd))
    folder = Path(tempfile.mkdtemp(dir=batch.work))
    try:
        own = _throw_away(batch, folder, given, found)
        ended = process.run([*AUTOGRADE, batch.assignment, "--student", LEARNER], folder, _environment(folder), batch.limits, folder / "log.txt")
        refused = causes.watched(folder / "events.txt")
        if ended.code or ended.limit or not (own / batch.released.name).is_file():
            log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-200_000:]
            return Row(name, None, -1, (causes.stopped(log, ended.limit, _last_cell(folder)), *refused, *found.odd), ended.seconds)
        _take(own, batch.graded / name / batch.assignment, given, folder / "taken")
        return Row(name, None, 0, (*refused, *found.odd), ended.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _throw_away(batch: Batch, folder: Path, given: Path, found: causes.Before) -> Path:
    """A course folder for one submission. Gives back where the graded notebook will lie. It holds no solution."""
    shutil.copyfile(batch.blank, folder / "gradebook.db")
    shutil.copytree(given, folder / "submitted" / LEARNER / batch.assignment, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    if found.file != batch.released.name:
        (folder / "submitted" / LEARNER / batch.assignment / found.file).rename(folder / "submitted" / LEARNER / batch.assignment / batch.released.name)
    source = batch.course / "source" / batch.assignment
    shutil.copytree(source, folder / "source" / batch.assignment, ignore=shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints"))
    for part in ("tmp", "jupyter", "ipython"):
        (folder / part).mkdir()
    first_line = f"--IPKernelApp.exec_lines={watch.hook_line(str(folder))}"
    text = CONFIG + THROW_AWAY.format(cell_seconds=batch.limits.cell_seconds, first_line=first_line, restore=found.restore)
    (folder / "nbgrader_config.py").write_text(text, encoding="utf-8")
    return folder / "autograded" / LEARNER / batch.assignment


def _environment(folder: Path) -> dict[str, str]:
    """What the grading process sees: no passwords, no settings of the instructor's Jupyter, temporary files in its own folder.

    The course's folder comes first among the paths, so that a submitted file `helpers.py` can't take the place of the checks.
    """
    kept = {name: value for name, value in os.environ.items() if not PRIVATE.search(name)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "COURSE_PROGRESS": "off", "TMPDIR": str(folder / "tmp"),
                   "JUPYTER_CONFIG_DIR": str(folder / "jupyter"), "JUPYTER_RUNTIME_DIR": str(folder / "jupyter"), "IPYTHONDIR": str(folder / "ipython"),
                   watch.EVENTS: str(folder / "events.txt"), watch.CELL: str(folder / "cell.json")}


def _last_cell(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "cell.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _take(own: Path, target: Path, given: Path, part: Path) -> None:
    """Copy what was graded out of the throw-away folder, wholly or not at all, with the stamps that were handed in.

    Links, pipes and what can't be read are left behind. `part` lies on the same disk as `target`.
    """
    shutil.copytree(own, part, ignore=_not_plain)
    for stamp in causes.OURS:  # the learner's code may have written another time of handing in
        (part / stamp).unlink(missing_ok=True)
        if (given / stamp).is_file():
            shutil.copyfile(given / stamp, part / stamp)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.rename(target)


def _not_plain(folder: str, names: list[str]) -> set[str]:
    """The names that are no plain files or folders, or that can't be read; also folders named like nbgrader's stamps."""
    paths = [Path(folder, name) for name in names]
    return {p.name for p in paths if p.is_symlink() or not (p.is_file() or p.is_dir()) or not os.access(p, os.R_OK)
            or (p.is_dir() and (p.name in causes.OURS or not os.access(p, os.X_OK)))}


# ---------------------------------------------------------------- the table


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown; a submission without a score has a dash."""
    lines = ["| name | score | maximum | cause | seconds |", "|---|---|---|---|---|"]
    for row in rows:
        score = "–" if row.score is None else f"{row.score:g}"
        lines.append(f"| {causes.clean(row.name)} | {score} | {row.maximum:g} | {row.cause} | {row.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """The table as CSV; the score of a submission without one is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "score", "maximum", "cause", "seconds"])
    writer.writerows([causes.clean(row.name), "" if row.score is None else f"{row.score:g}", f"{row.maximum:g}", row.cause, f"{row.seconds:.0f}"]
                     for row in rows)
    return text.getvalue()


def stored(table: Path) -> list[Row]:
    """The rows of a table that was written as CSV; none where there is no file. Raises GradingError for another kind of file."""
    if not table.is_file():
        return []
    try:
        with open(table, encoding="utf-8-sig", newline="") as stream:
            return [Row(row["name"], float(row["score"]) if row["score"] else None, float(row["maximum"]), (row["cause"].removeprefix(REFUSED),),
                        float(row["seconds"])) for row in csv.DictReader(stream)]
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise GradingError(f"{table}: expected the table that grading wrote, found another form "
                           f"({causes.clean(repr(error), 80)}). Fix: move it away.") from error


def _write(target: Path, rows: Sequence[Row]) -> None:
    """Both tables; rows of others that an earlier run wrote stay."""
    names, file = {causes.clean(row.name) for row in rows}, target.with_name(target.name + ".csv")
    whole = sorted([*rows, *(row for row in stored(file) if row.name not in names)], key=lambda row: row.name)
    _replace(file, as_csv(whole))
    _replace(target.with_name(target.name + ".md"), markdown(whole))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)


def main(arguments: list[str] | None = None) -> int:
    """0 when all is well, also when submissions could not be graded: the table says so. 1 with a line that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m helpers.checks.grading", description="Grade a class with nbgrader; labs/GRADING.md is the guide.")
    commands = parser.add_subparsers(dest="command", required=True)
    make, run = commands.add_parser("new", help="make a course folder for nbgrader"), commands.add_parser("grade", help="grade what was collected")
    make.add_argument("course", type=Path, metavar="DIR")
    make.add_argument("labs", nargs="+", metavar="LAB", help="01, or a lab's full name")
    make.add_argument("--exchange", type=Path, metavar="DIR", help="the folder through which a class on one machine hands in")
    run.add_argument("course", type=Path, metavar="DIR")
    run.add_argument("assignment", help="for example 01_when_to_fine_tune")
    run.add_argument("--student", action="append", default=[], metavar="NAME", help="only this one; may be given several times")
    run.add_argument("--cell-seconds", type=int, default=Limits.cell_seconds, metavar="N", help="for one cell (default %(default)s)")
    run.add_argument("--minutes", type=float, default=Limits.seconds / 60, metavar="N", help="for one submission (default %(default)g)")
    run.add_argument("--memory-gb", type=float, default=Limits.memory_gb, metavar="N", help="for one submission (default %(default)g)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="submissions at the same time (default %(default)s)")
    run.add_argument("--out", type=Path, metavar="DIR", help="where the table goes (default: DIR/results)")
    options = parser.parse_args(arguments)
    if options.command == "grade" and options.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, found {options.jobs}")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        if options.command == "new":
            print(f"{options.course}: ready for {', '.join(new(options.course, options.labs, options.exchange))}")
            return 0
        limits = Limits(options.cell_seconds, options.minutes * 60, options.memory_gb)
        target = (options.out or options.course / "results") / options.assignment
        stored(target.with_name(target.name + ".csv"))  # an earlier table that can't be read is said now, not after hours
        rows = grade(options.course, options.assignment, options.student, limits, options.jobs, lambda line: print(line, flush=True))
        print(markdown(rows))
        _write(target, rows)
    except ImportError as error:
        print(f"Stopped: expected nbgrader, found {error}. Fix: pip install -c constraints.txt -e .[classroom]")
        return 1
    except (GradingError, OSError) as error:
        print(f"Stopped: {error}")
        return 1
    print(f"{len(rows)} submissions, {sum(row.score is None for row in rows)} of them not graded. Written to {target}.csv and .md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
