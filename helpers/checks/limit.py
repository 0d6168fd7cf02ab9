"""End code that takes too long, in a notebook's kernel, on every system."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from typing import Any, Callable

AGAIN = 1.0  # seconds after which a loop that swallowed the interruption gets another


class TimeUp(Exception):
    """The code was ended because its time was up."""


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """`work()`, interrupted when it takes longer than `seconds`; then TimeUp is raised.

    The interruption is the one of the Stop button (KeyboardInterrupt), so it ends loops and sleeps, and leaves the kernel as it was. It
    can't end a loop that catches everything with a bare `except:`, nor one long call into compiled code; there the Stop button and then
    Kernel > Restart help. Outside the main thread nothing can be interrupted, and `work` runs without a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    over, lock, fired = threading.Event(), threading.Lock(), False

    def watch() -> None:
        nonlocal fired
        wait = seconds
        while not over.wait(wait):
            with lock:
                if over.is_set():
                    return
                fired, wait = True, AGAIN
                _interrupt()

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


def _interrupt() -> None:
    """A KeyboardInterrupt in the main thread; where the system has signals, a real one, which also ends a sleep."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        _thread.interrupt_main()
