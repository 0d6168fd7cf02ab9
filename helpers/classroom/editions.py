"""Editions of the course for a class: a clean folder without what a learner should not see yet. Standard library only.

student: lessons and labs, without the solutions, the tests and the third hint of each exercise, which is the answer.
solution: the student edition with all hints and labs/solutions, to hand out after the class.
instructor: everything.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
STUB = "raise NotImplementedError"
FOR_MAKERS = ("tests/", ".ci/", "CONTRIBUTING.md", "labs/INSTRUCTOR.md", "labs/GRADING.md")
LEFT_OUT = {"student": (*FOR_MAKERS, "labs/solutions/"), "solution": FOR_MAKERS, "instructor": ()}
KINDS = tuple(LEFT_OUT)
ANSWER_HINT = re.compile(r"\s*<details><summary>Hint 3: .*?</details>", re.S)
FEWER = ": a nudge and a pointer"
PROMISES = (("three hints", "two hints"), (" go from a nudge to the answer", FEWER), (", from a nudge to the answer", FEWER))


class EditionError(RuntimeError):
    """An edition that cannot be made; the message says how to mend it."""


class File(NamedTuple):
    """One file of the course, `content` in bytes."""

    content: bytes
    executable: bool = False


class Edition(NamedTuple):
    """The files of an edition by their path in the course, and one sentence about where they come from."""

    files: dict[str, File]
    origin: str


def edition(kind: str, root: Path = ROOT) -> Edition:
    """The files of one edition of the course in `root`. Raises EditionError for an unknown kind, or a lab that holds an answer."""
    if kind not in KINDS:
        raise EditionError(f"Unknown edition: expected {', '.join(KINDS)}, got {kind!r}.")
    held = _label(root)
    if held not in (kind, "instructor"):
        raise EditionError(f"{root} is itself the edition {held!r}, from which the edition {kind!r} can't be made. Use the whole course, or "
                           f"make the edition {held!r}.")
    files, origin, commit = _course(root)
    files = {name: file for name, file in files.items() if not _matches(name, LEFT_OUT[kind])}
    if kind == "student":
        files = {name: _for_students(name, file) for name, file in files.items()}
    label = {"edition": kind, "commit": commit}
    files["edition.json"] = File((json.dumps(label, indent=1) + "\n").encode())
    return Edition(files, origin)


def write(kind: str, folder: Path, force: bool = False, root: Path = ROOT) -> Edition:
    """Write an edition to `folder`, whole or not at all.

    A folder that is not empty is refused; with `force` it is kept beside the new one under another name.
    Raises EditionError, and OSError when the disk is full or may not be written.
    """
    folder = outside(folder, root)
    if folder.exists() and not folder.is_dir():
        raise EditionError(f"{folder} is a file: expected a folder that does not exist yet, or an empty one.")
    full = folder.is_dir() and any(folder.iterdir())
    if full and not force:
        raise EditionError(f"{folder} is not empty: expected a new or an empty folder. Give another one, or add --force: "
                           "the old folder is then kept under another name.")
    made = edition(kind, root)
    fresh = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    try:
        for name, file in made.files.items():
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
            target.chmod(0o755 if file.executable else 0o644)
        _swap(fresh, folder, keep=full)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return made


def _swap(fresh: Path, folder: Path, keep: bool) -> None:
    """Put `fresh` where `folder` is. What was there stands aside until then, and comes back when it fails."""
    aside = _free_name(folder) if folder.exists() else None
    if aside:
        folder.replace(aside)
    try:
        fresh.replace(folder)
    except BaseException:
        if aside and not folder.exists():
            aside.replace(folder)
        raise
    if aside and not keep:
        aside.rmdir()


def _label(root: Path) -> str:
    """Which edition lies in `root`; the course itself is as good as the instructor's."""
    path = root / "edition.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["edition"] if path.is_file() else "instructor"
    except (ValueError, LookupError, TypeError) as error:
        raise EditionError(f"{path} is damaged: expected JSON with the key 'edition'. Take this file from the edition as you got it, then run "
                           "the command again.") from error


def outside(folder: Path, root: Path = ROOT) -> Path:
    """`folder` as an absolute path. Raises EditionError where it lies in the course, or the course in it."""
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    if folder.resolve().is_relative_to(root) or root.is_relative_to(folder.resolve()):
        raise EditionError(f"{folder} lies in the course's own folder, or around it: expected a folder elsewhere, for example "
                           f"{root.with_name('class')}.")
    return folder


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    return aside


def _matches(name: str, rules: tuple[str, ...]) -> bool:
    return any(name.startswith(rule) if rule.endswith("/") else name == rule for rule in rules)


# ---------------------------------------------------------------- where the files come from


def _course(root: Path) -> tuple[dict[str, File], str, str | None]:
    """The course's files, where they come from in words, and their commit.

    With git these are the files of the last commit: what somebody tried in the notebooks stays out.
    """
    if _git(root, "rev-parse", "--show-prefix") != b"\n":  # no git, no commit yet, or the course lies in a larger repository
        return _walk(root), f"from the folder {root}, which git does not know: with all changes that were made in it", None
    commit = (_git(root, "rev-parse", "HEAD") or b"").decode().strip()
    archive = _git(root, "archive", "--format=tar", "HEAD")
    if not archive:
        return _walk(root), f"from the folder {root}: git could not give the last commit", None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: File(tar.extractfile(member).read(), bool(member.mode & 0o100)) for member in tar if member.isfile()}
    changed = (_git(root, "status", "--porcelain", "--untracked-files=no") or b"").splitlines()
    changes = f"; {len(changed)} changed file(s) are not committed and stay out" if changed else ""
    return files, f"from the commit {commit[:12]}{changes}", commit


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _walk(root: Path) -> dict[str, File]:
    """All files below `root` but those that .gitignore names, for a copy of the course without git."""
    ignore = root / ".gitignore"
    rules = [line.strip() for line in ignore.read_text(encoding="utf-8").splitlines()] if ignore.is_file() else []
    rules = [".git", ".venv", *(rule.rstrip("/") for rule in rules if rule and not rule.startswith("#"))]
    files = {}
    for folder, folders, names in os.walk(root):
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        folders[:] = sorted(name for name in folders if not _ignored(here / name, rules))
        for name in sorted(names):
            path = Path(folder) / name
            if not _ignored(here / name, rules) and path.is_file() and not path.is_symlink():
                files[str(here / name)] = File(path.read_bytes(), os.name != "nt" and os.access(path, os.X_OK))
    return files


def _ignored(path: PurePosixPath, rules: list[str]) -> bool:
    return any(fnmatch.fnmatch(str(path) if "/" in rule else path.name, rule) for rule in rules)


# ---------------------------------------------------------------- what a student does not get


def _for_students(name: str, file: File) -> File:
    if name == "README.md":
        return File(without_answer_hints(file.content.decode("utf-8")).encode("utf-8"))
    if not (name.startswith("labs/") and name.endswith(".ipynb")):
        return file
    try:
        return File(_without_answers(name, json.loads(file.content)))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EditionError(f"{name} is not a whole notebook: expected JSON with cells, got {type(error).__name__}: {str(error)[:80]}. Bring the "
                           "lab back as it came with the course, then make the edition again.") from error


def _without_answers(name: str, notebook: dict) -> bytes:
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = without_answer_hints(source).splitlines(keepends=True)
        else:
            cell.update(outputs=[], execution_count=None)
            if cell["metadata"].get("nbgrader", {}).get("solution") and STUB not in source:
                raise EditionError(f"{name}, cell {cell.get('id', '?')}, holds an answer: expected `{STUB}`, got {source.strip()[:60]!r}. "
                                   "Bring the lab back as it came with the course, then make the edition again.")
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def without_answer_hints(text: str) -> str:
    """The text of a lab's cell without the third hint, which is the answer; what the text says of three hints follows."""
    text = ANSWER_HINT.sub("", text)
    for old, new in PROMISES:
        text = text.replace(old, new)
    return text
