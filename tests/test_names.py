"""No module and no notebook uses a name that nobody defined: a renamed function fails here, not in the one place that was forgotten."""

from __future__ import annotations

import ast
import importlib
import json
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType

import pytest
from pyflakes.checker import Checker
from pyflakes.messages import UndefinedExport, UndefinedLocal, UndefinedName

ROOT = Path(__file__).resolve().parent.parent
MODULES = [ROOT / "course.py", *(path for folder in ("helpers", "labs/starters", "tests") for path in sorted((ROOT / folder).rglob("*.py")))]
NOTEBOOKS = [path for folder in ("lessons", "labs", "labs/solutions") for path in sorted((ROOT / folder).glob("*.ipynb"))]


def undefined(source: str) -> list[str]:
    found = Checker(ast.parse(source)).messages
    return [f"line {m.lineno}: {m.message_args[0]}" for m in found if isinstance(m, (UndefinedExport, UndefinedLocal, UndefinedName))]


def missing(source: str, package: str = "") -> list[str]:
    """What is asked of a module of `helpers` that it does not have: names imported from it, and attributes of it."""
    tree, modules, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), package)
            for name in node.names if home.split(".")[0] == "helpers" else ():
                try:
                    module = importlib.import_module(home)
                    thing = getattr(module, name.name) if hasattr(module, name.name) else importlib.import_module(f"{home}.{name.name}")
                except ImportError:
                    found.append(f"line {node.lineno}: {home}.{name.name}")
                    continue
                if isinstance(thing, ModuleType):
                    modules[name.asname or name.name] = thing
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)} | {
        node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules.keys() - own:
            module = modules[node.value.id]
            if not hasattr(module, node.attr) and not (hasattr(module, "__path__") and find_spec(f"{module.__name__}.{node.attr}")):
                found.append(f"line {node.lineno}: {module.__name__}.{node.attr}")
    return found


def code_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


@pytest.mark.parametrize("path", [*MODULES, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_is_defined(path):
    source = code_of(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    if path.suffix == ".py":  # notebooks delete names with `del` and bind them again, which is run and not read
        assert undefined(source) == []
    assert missing(source, ".".join(path.relative_to(ROOT).parent.parts)) == []


def test_a_renamed_function_is_seen():
    assert undefined("def new():\n    pass\n\ndef use():\n    return old()\n") == ["line 5: old"]
    assert missing("from helpers.classroom import editions\nx = editions.old('a')\n") == ["line 2: helpers.classroom.editions.old"]
    assert missing("from .classroom import editions\n\ndef f(editions):\n    return editions.old\n", "helpers") == []
    assert missing("from helpers.models import old\n") == ["line 1: helpers.models.old"]
