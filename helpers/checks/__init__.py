"""Checks of the labs: each names the mistake it found. Progress is kept in one small local file; `quiz` asks a question with feedback.

A lab calls `checks.lab08.exercise_2(my_function)`. `exercise` says what an exercise is and judges an answer, `compare` brings answers of
other forms together and says where they differ, `limit` ends a loop that does not end, `progress` keeps what was reached. Each lab's
exercises stand in a file of its own (`lab08.py`); `python -m helpers.checks` prints the progress.
"""

import importlib
import re
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """`checks.lab08`, `checks.progress` and so on are loaded when they are first used: progress needs none of the labs' libraries."""
    if re.fullmatch(r"lab\d\d|exercise|progress|quiz", name):
        return importlib.import_module(f"helpers.checks.{name}")
    raise AttributeError(f"module 'helpers.checks' has no attribute {name!r}")
