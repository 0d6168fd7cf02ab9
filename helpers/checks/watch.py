"""What a kernel that grades refuses and writes down: a call to the network, and a change to a file outside its folder.

This is for accidents and for naming them, not against attackers: other programs that the code starts, and compiled code, are not seen.
So grading belongs into a container or a throw-away account (labs/GRADING.md). Standard library only; `start` runs inside the kernel.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from helpers import fetch

EVENTS = "GRADING_EVENTS"  # names the file that takes what was refused, one JSON object per line
CELL = "GRADING_CELL"  # names the file that says which cell runs
MOST = 20  # events that are written down
LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")
NETWORK = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}  # event -> where the address stands
CHANGES = {"os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.truncate": (0,), "os.chmod": (0,), "shutil.rmtree": (0,),
           "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,)}  # event -> which arguments are paths
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def allowed_folders(own: str) -> list[str]:
    """Where a kernel may write: its own throw-away folder, the caches of the course and of the libraries, and devices."""
    home = os.path.expanduser("~")
    caches = [os.path.join(home, *part.split("/")) for part in (".cache", ".config/matplotlib", ".triton", "Library/Caches", "AppData/Local")]
    named = [os.environ[name] for name in ("HF_HOME", "MPLCONFIGDIR") if os.environ.get(name)]
    return [os.path.realpath(path) for path in (own, str(fetch.cache_dir()), *caches, *named, "/dev", "/proc")]


def refusal(event: str, arguments: tuple, folders: list[str]) -> tuple[str, str] | None:
    """(kind, what) of an audit event that is refused, None for all others. Kinds: `network`, `outside`."""
    if event in NETWORK:
        address = arguments[NETWORK[event]]
        if isinstance(address, tuple):  # (host, port, …); a text is a socket in the file system
            address = address[0]
        elif event in ("socket.connect", "socket.sendto"):
            return None
        host = address.decode(errors="replace") if isinstance(address, bytes) else str(address or "localhost")
        return None if host.startswith(LOOPBACK) else ("network", host)
    for path in _changed(event, arguments):
        where = os.path.realpath(os.fsdecode(path))
        if not any(where == folder or where.startswith(folder + os.sep) for folder in folders):
            return "outside", where
    return None


def _changed(event: str, arguments: tuple) -> list[Any]:
    """The paths that an event would change."""
    if event == "open":
        path, mode, flags = arguments
        writes = flags & WRITING if isinstance(flags, int) else set(mode or "") & set("wax+")
        return [path] if writes and isinstance(path, (str, bytes, os.PathLike)) else []
    if any(isinstance(a, int) and a >= 0 for a in arguments) and event in ("os.remove", "os.rmdir", "os.rename"):
        return []  # a name inside an open folder; shutil.rmtree has told the folder before
    return [arguments[n] for n in CHANGES.get(event, ()) if isinstance(arguments[n], (str, bytes, os.PathLike))]


def start(own: str) -> None:
    """Watch this process from now on; `own` is the folder that it may change. What is refused raises PermissionError in the code."""
    folders, written = allowed_folders(own), 0
    sink = os.open(os.environ[EVENTS], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple) -> None:
        nonlocal written
        if event != "open" and event not in NETWORK and event not in CHANGES:
            return
        found = refusal(event, arguments, folders)
        if found is None:
            return
        if (written := written + 1) <= MOST:
            os.write(sink, (json.dumps(found) + "\n").encode())
        raise PermissionError(f"while grading there is no network: {found[1]}" if found[0] == "network" else
                              f"while grading, code may only change files in its own folder: {found[1]}")

    sys.addaudithook(hook)


def tell_cell(cell: Any, cell_index: int, **_: Any) -> None:
    """nbgrader calls this before each cell; so it is known which cell ran when a kernel died."""
    with open(os.environ[CELL], "w", encoding="utf-8") as stream:
        json.dump({"grade_id": cell.metadata.get("nbgrader", {}).get("grade_id"), "cell": cell_index + 1}, stream)


def hook_line(own: str) -> str:
    """The line of Python that a kernel runs first."""
    return f"from helpers.checks import watch; watch.start({own!r})"
