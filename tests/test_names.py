"""No module uses a name that nobody defined: a renamed function fails here, not in the one place that was forgotten.

What is asked of another module (`editions.edition`) and what notebooks use is run by their own tests.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pyflakes.checker import Checker
from pyflakes.messages import UndefinedExport, UndefinedLocal, UndefinedName

ROOT = Path(__file__).resolve().parent.parent
MODULES = [ROOT / "course.py", *(path for folder in ("helpers", "labs/starters", "tests") for path in sorted((ROOT / folder).rglob("*.py")))]


def undefined(source: str) -> list[str]:
    found = Checker(ast.parse(source)).messages
    return [f"line {m.lineno}: {m.message_args[0]}" for m in found if isinstance(m, (UndefinedExport, UndefinedLocal, UndefinedName))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_is_defined(path):
    assert undefined(path.read_text(encoding="utf-8")) == []


def test_a_renamed_function_is_seen():
    assert undefined("def new():\n    pass\n\ndef use():\n    return old()\n") == ["line 5: old"]
