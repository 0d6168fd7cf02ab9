"""End code that takes too long, in a notebook's kernel, on every system."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from typing import Any, Callable

AGAIN = 0.2  # seconds after which code that swallowed the interruption gets another; it may swallow several


class TimeUp(BaseException):
    """The code was ended because its time was up. No `except Exception` of the code swallows it."""


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """`work()`, ended when it takes longer than `seconds`; then TimeUp is raised and the kernel is as it was.

    Loops and, on Linux and macOS, sleeps are ended. What can't be ended: code that catches everything with a bare `except:`, and one
    long call into compiled code; there the Stop button and Kernel > Restart help. Outside the main thread nothing can be ended, and
    `work` runs without a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    return _by_alarm(seconds, work) if hasattr(signal, "setitimer") else _by_thread(seconds, work)


def _by_alarm(seconds: float, work: Callable[[], Any]) -> Any:
    """Linux and macOS: the system's alarm clock."""
    over = False

    def ring(*_: Any) -> None:
        if not over:
            raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        try:
            return work()
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _by_thread(seconds: float, work: Callable[[], Any]) -> Any:
    """Windows, which has no such alarm: a thread presses the Stop button."""
    over, lock, fired = threading.Event(), threading.Lock(), False

    def watch() -> None:
        nonlocal fired
        wait = seconds
        while not over.wait(wait):
            with lock:
                if over.is_set():
                    return
                fired, wait = True, AGAIN
                _thread.interrupt_main()

    try:
        threading.Thread(target=watch, daemon=True).start()
        try:
            return work()
        finally:
            with lock:
                over.set()
            if fired:
                time.sleep(0.05)  # an interruption on its way arrives here, and not in the next cell
    except KeyboardInterrupt:
        over.set()
        if not fired:
            raise  # the learner pressed Stop
        raise TimeUp from None
