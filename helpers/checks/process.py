"""A program with limits: time, memory of all its processes together, and nothing of it left behind."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

import psutil

MARK = "GRADING_ID"  # set in the environment of a program and all that it starts
LOOK = 0.25  # seconds between two looks
LARGEST_FILE = 2 << 30  # bytes


@dataclass(frozen=True)
class Limits:
    """`cell_seconds`: of one cell. `seconds`: of a whole submission. `memory_gb`: of all its processes together (1 GB = 1e9 bytes)."""

    cell_seconds: int = 300
    seconds: float = 1200
    memory_gb: float = 6


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, how long it took, and which limit ended it: `time`, `memory` or nothing."""

    code: int
    seconds: float
    limit: str = ""


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: Limits, log: Path) -> Ended:
    """Run a program in `folder`; what it prints goes to `log`. When a limit is passed, it and all that it started are killed.

    On Linux one process alone can't pass the memory limit: Python gets a MemoryError, and the program may go on. Elsewhere, and for
    several processes, the program is killed.
    """
    mark, started, limit = uuid.uuid4().hex, time.monotonic(), ""
    with open(log, "wb") as stream:
        process = psutil.Popen(command, cwd=folder, env={**environment, MARK: mark}, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        _fence(process, limits)
        while process.poll() is None and not limit:
            time.sleep(LOOK)
            if time.monotonic() - started > limits.seconds:
                limit = "time"
            elif _memory(process) > limits.memory_gb * 1e9:
                limit = "memory"
    finally:
        _end(process, mark)
    return Ended(process.wait(), time.monotonic() - started, limit)


def _fence(process: psutil.Process, limits: Limits) -> None:
    """The system's own limits, where there are any (Linux); what the process starts inherits them."""
    if not hasattr(process, "rlimit"):
        return
    try:
        for kind, most in ((psutil.RLIMIT_DATA, int(limits.memory_gb * 1e9)), (psutil.RLIMIT_FSIZE, LARGEST_FILE), (psutil.RLIMIT_CORE, 0)):
            process.rlimit(kind, (most, most))
    except psutil.NoSuchProcess:
        pass


def _memory(process: psutil.Process) -> int:
    """Resident bytes of a process and all that it started."""
    total = 0
    for one in _family(process):
        try:
            total += one.memory_info().rss
        except psutil.Error:
            pass
    return total


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def _end(process: psutil.Process, mark: str) -> None:
    """Kill the program and what it started, also what has cut itself loose: that still carries the mark. Nothing else is touched."""
    left = _family(process) if process.poll() is None else []
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and one.environ().get(MARK) == mark:
                left.append(one)
        except (psutil.Error, OSError):
            pass
    for one in left:
        try:
            one.kill()
        except psutil.Error:
            pass
