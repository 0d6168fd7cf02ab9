"""The drift gate: every keyword that lessons, labs, starters and helpers pass to trl, peft, transformers or bitsandbytes exists as installed.

Nothing of them is run. Names are followed from their imports to the installed object, and keywords are held against its signature.
Keywords reach a call in four ways, and all four are followed: written there; in a dictionary of the same file (`**settings`); in
`**training.quiet_settings(…)`; and through a function of the same file that hands its own `**knobs` on.
"""

from __future__ import annotations

import ast
import functools
import inspect
import pkgutil
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import nbformat
import pytest

from helpers import training

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("trl", "peft", "transformers", "bitsandbytes")
# taken by **kwargs and refused, warned about or ignored only when the model loads
REMOVED = {"torch_dtype", "load_in_4bit", "load_in_8bit", "use_auth_token"}
SWALLOWS = {"BitsAndBytesConfig"}  # takes **kwargs and drops what it does not know without a word


class Found(NamedTuple):
    """What a file passes: calls held against a signature, calls whose target takes any keyword, splats that nobody can follow, mistakes."""

    checked: list[str]
    unchecked: list[str]
    mistakes: list[str]


def sources() -> Iterator[tuple[str, str]]:
    """(name, Python text) of every notebook, starter and helper; lines of IPython magic are left out."""
    for path in sorted([*ROOT.glob("lessons/*.ipynb"), *ROOT.glob("labs/**/*.ipynb")]):
        cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and not c.source.startswith("%%")]
        yield path.name, "\n".join(line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith(("%", "!")))
    for path in sorted([*ROOT.glob("labs/starters/*.py"), *ROOT.glob("helpers/**/*.py")]):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def imported(tree: ast.AST) -> tuple[dict[str, Any], list[str]]:
    """Name in the file -> object of a library, and the names that a library no longer has."""
    names, gone = {}, []
    for node in ast.walk(tree):
        relative = isinstance(node, ast.ImportFrom) and node.level
        for a in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) and not relative else ():
            full = f"{node.module}.{a.name}" if isinstance(node, ast.ImportFrom) else a.name
            if full.split(".")[0] not in LIBRARIES:
                continue
            try:
                thing = pkgutil.resolve_name(full)
            except (ImportError, AttributeError):
                gone.append(f"there is no {full}")
                continue
            plain = isinstance(node, ast.Import) and not a.asname  # `import trl.trainer` binds `trl`
            names[full.split(".")[0] if plain else a.asname or a.name] = pkgutil.resolve_name(full.split(".")[0]) if plain else thing
    return names, gone


def target(node: ast.expr, names: dict[str, Any]) -> tuple[str, Any] | None:
    """(dotted name, object) of what is called, if it belongs to a library."""
    if isinstance(node, ast.Name):
        return (node.id, names[node.id]) if node.id in names else None
    if isinstance(node, ast.Attribute) and (owner := target(node.value, names)):
        return f"{owner[0]}.{node.attr}", getattr(owner[1], node.attr, AttributeError)
    return None


@functools.cache
def keywords_of(thing: Any) -> tuple[frozenset[str], bool]:
    """The keywords that a class or function takes, and whether it takes any other."""
    parameters = inspect.signature(thing).parameters.values()
    named = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def passed(call: ast.Call, dicts: dict[str, list[ast.expr]], seen: tuple[str, ...] = ()) -> tuple[set[str], set[str]]:
    """The keywords of a call, and the names of splats that could not be followed."""
    splats = [followed(k.value, dicts, seen) for k in call.keywords if k.arg is None]
    return {k.arg for k in call.keywords if k.arg}.union(*(keys for keys, _ in splats)), set().union(*(ends for _, ends in splats))


def followed(node: ast.expr, dicts: dict[str, list[ast.expr]], seen: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Keys of an expression that is splatted: a dictionary, a name of one, `dict(…)`, `quiet_settings(…)`."""
    keys, ends, parts = set(), set(), []
    if isinstance(node, ast.Dict):
        pairs = list(zip(node.keys, node.values))
        keys, parts = {k.value for k, _ in pairs if isinstance(k, ast.Constant)}, [v for k, v in pairs if k is None]
        ends = {ast.unparse(k) for k, _ in pairs if k is not None and not isinstance(k, ast.Constant)}
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Name) and node.id in dicts and node.id not in seen:
        parts, seen = dicts[node.id], (*seen, node.id)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "quiet_settings":
        keys = set(training.quiet_settings())
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "dict":
        return passed(node, dicts, seen)
    else:
        ends = {ast.unparse(node)}
    for more, open_ends in (followed(part, dicts, seen) for part in parts):
        keys, ends = keys | more, ends | open_ends
    return keys, ends


def look(source: str, where: str = "here") -> Found:
    """Hold every call of one file against the installed signatures."""
    tree = ast.parse(source)
    names, gone = imported(tree)
    found = Found([], [], [f"{where}: {what}" for what in gone])
    dicts: dict[str, list[ast.expr]] = {}
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Assign) and isinstance(n.value, (ast.Dict, ast.Call))):
        for name in (t.id for t in node.targets if isinstance(t, ast.Name)):
            dicts.setdefault(name, []).append(node.value)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.args.kwarg]
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    for call in calls:
        if (what := target(call.func, names)) is None:
            continue
        keys, ends = passed(call, dicts)
        hold(found, f"{where}:{call.lineno} {what[0]}", what, keys)
        for end in ends:  # a function that hands its **knobs on: its callers' keywords arrive here
            givers = [f for f in functions if f.args.kwarg.arg == end and any(n is call for n in ast.walk(f))]
            for f in givers:
                own = {a.arg for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)}
                for caller in (n for n in calls if isinstance(n.func, ast.Name) and n.func.id == f.name):
                    hold(found, f"{where}:{caller.lineno} {f.name} -> {what[0]}", what, passed(caller, dicts)[0] - own)
            if not givers:
                found.unchecked.append(f"{where}:{call.lineno} {what[0]}(**{end})")
    return found


def hold(found: Found, label: str, what: tuple[str, Any], keys: set[str]) -> None:
    name, thing = what
    if thing is AttributeError:
        return found.mistakes.append(f"{label}: there is no such name")
    try:
        takes, any_other = keywords_of(thing)
    except (TypeError, ValueError):  # no signature to be had
        return found.unchecked.append(label)
    strict = not any_other or name.split(".")[-1] in SWALLOWS
    wrong = sorted(keys - takes) if strict else sorted(keys & REMOVED)
    (found.checked if strict else found.unchecked).append(label)
    found.mistakes.extend(f"{label}: does not take {key}=" for key in wrong)


@pytest.fixture(scope="module")
def everything() -> list[Found]:
    return [look(text, name) for name, text in sources()]


def test_every_keyword_exists_in_the_installed_signature(everything):
    assert not [mistake for found in everything for mistake in found.mistakes]


def test_the_gate_looked_at_something(everything):
    """A gate that finds no calls passes always: the classes that every training needs must be among what it held."""
    checked, unchecked = [x for f in everything for x in f.checked], [x for f in everything for x in f.unchecked]
    assert len(checked) >= 12 and len(checked) >= len(unchecked) / 2, (len(checked), unchecked)
    for name in ("SFTConfig", "SFTTrainer", "LoraConfig"):
        assert any(line.endswith(name) for line in checked), name
    assert any(".ipynb" in line for line in checked) and any("helpers" in line for line in checked)


@pytest.mark.parametrize("planted, word", [
    ("from trl import SFTConfig\nSFTConfig(max_seq_length=1)", "max_seq_length"),
    ("from trl import SFTTrainer as T\nT(None, tokenizer=1)", "tokenizer"),
    ("import peft\npeft.LoraConfig(rank=8)", "rank"),
    ("import trl.trainer\ntrl.SFTConfig(evaluation_strategy='no')", "evaluation_strategy"),
    ("from transformers import BitsAndBytesConfig\nBitsAndBytesConfig(bnb_4bit_quant='nf4')", "bnb_4bit_quant"),
    ("from transformers import AutoModelForCausalLM as A\nA.from_pretrained('x', load_in_4bit=True)", "load_in_4bit"),
    ("import bitsandbytes as bnb\nbnb.optim.NoSuchOptimizer([])", "NoSuchOptimizer"),
    ("from trl import DataCollatorForCompletionOnlyLM", "DataCollatorForCompletionOnlyLM"),
    ("from trl import SFTConfig\nsettings = {'seed': 0, 'logging_dir': 'x'}\nSFTConfig(**settings)", "logging_dir"),
    ("from trl import SFTConfig\nsettings = dict(warmup_ratio=0.1)\nSFTConfig(**{**settings} | {'seed': 0})", "warmup_ratio"),
    ("from trl import SFTConfig\ndef run(rows, **knobs):\n    return SFTConfig(**{'seed': 0, **knobs})\nrun(1, rows=2, no_cuda=True)", "no_cuda"),
    ("from trl import SFTConfig\ndef run(**knobs):\n    s = {'seed': 0, **knobs}\n    return SFTConfig(**s)\nrun(group_by_length=True)", "group_by_length"),
])
def test_a_planted_mistake_is_caught(planted, word):
    found = look(planted)
    assert len(found.mistakes) == 1 and word in found.mistakes[0], found


@pytest.mark.parametrize("right", [
    "from trl import SFTConfig\nfrom helpers import training\nSFTConfig(max_length=1, **training.quiet_settings(0))",
    "from trl import SFTConfig\ndef run(rows, **knobs):\n    return SFTConfig(**knobs)\nrun(rows=1, learning_rate=1e-3)",
    "from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained('x', dtype='auto', gguf_file='y')",
    "from other import SFTConfig\nSFTConfig(max_seq_length=1)",
])
def test_what_is_right_or_not_theirs_passes(right):
    assert look(right).mistakes == []


def test_what_cannot_be_followed_is_listed():
    found = look("from trl import SFTConfig\nfrom transformers import AutoConfig\nSFTConfig(**load())\nAutoConfig.from_pretrained('x')")
    assert len(found.unchecked) == 2 and "load()" in found.unchecked[0]
