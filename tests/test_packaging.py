"""pyproject.toml, constraints.txt and environment.yml say the same, and what is installed is what they say."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.\-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
}
DECLARED = [Requirement(line) for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for line in group]


@pytest.mark.parametrize("requirement", [r for r in DECLARED if r.name != PROJECT["name"]], ids=str)
def test_every_range_holds_its_pin(requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"{name} has no pin in constraints.txt"
    assert requirement.specifier.contains(PINS[name], prereleases=True)


def test_every_line_of_the_constraints_is_an_exact_pin():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert not line.strip() or line.startswith("#") or re.fullmatch(r"[\w.\-]+==[^\s;+]+( ; .+)?", line), line


def closure(name: str, extras: tuple[str, ...] = (), seen: set[str] | None = None) -> set[str]:
    """All installed packages that `name[extras]` needs on this machine."""
    seen = set() if seen is None else seen
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        active = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras))
        child = canonicalize_name(requirement.name)
        if active and (child, tuple(sorted(requirement.extras))) not in seen:
            seen.add((child, tuple(sorted(requirement.extras))))
            closure(child, tuple(requirement.extras), seen)
    return {child for child, _ in seen}


def test_the_constraints_are_complete_and_are_what_is_installed():
    needed = closure(PROJECT["name"], ("lab", "test")) - {canonicalize_name(PROJECT["name"])}
    # torch pins its CUDA packages exactly by itself, and only its CUDA build needs them
    own_pins = {n for n in needed if n.startswith(("nvidia-", "cuda-")) or n in ("triton", "setuptools", "pip")}
    missing = {n for n in needed - own_pins if n not in PINS}
    assert not missing, f"not in constraints.txt: {sorted(missing)}"
    other = {n: metadata.version(n) for n in needed - own_pins if metadata.version(n).split("+")[0] != PINS[n]}
    assert not other, f"installed otherwise than pinned: {other}"


def test_environment_yml_installs_the_same_course():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert re.search(r"- -c constraints\.txt\n\s+- -e \.\[lab\]", text)
    low_high = re.search(r"- python(\S+)", text).group(1)
    assert SpecifierSet(low_high) == SpecifierSet(PROJECT["requires-python"])
    assert f"name: {PROJECT['name']}" in text


def test_course_py_names_the_same_pythons():
    text = (ROOT / "course.py").read_text(encoding="utf-8")
    low, high = re.search(r"LOWEST, HIGHEST = \((.+?)\), \(3, (\d+)\)", text).groups()
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={low.replace(', ', '.')},<3.{int(high) + 1}")


def test_nothing_large_and_no_weights_in_git():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / f for f in listed.stdout.splitlines() if (ROOT / f).is_file()]
    assert sum(f.stat().st_size for f in files) < 40e6
    assert not [f for f in files if f.suffix in (".safetensors", ".gguf", ".bin", ".pt", ".pth") or f.stat().st_size > 4e6]
