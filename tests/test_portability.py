"""The lessons' stored outputs hold on another machine in small: with kernels forced to AVX2, and with one thread.

Each variant re-runs lessons in a pytest of its own, with the notebook check comparing all outputs. All lessons in all variants
would take hours, so each pair below stands for a kind: lesson 00 generates, 05 trains. The others were run by hand with
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python course.py test lessons/NN_topic.ipynb`, as CONTRIBUTING.md asks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "one-thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}
PAIRS = [("avx2", "lessons/00_start_here.ipynb"), ("avx2", "lessons/05_lora.ipynb"), ("one-thread", "lessons/00_start_here.ipynb")]


def run_python(code: str, **changes: str) -> str:
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **changes}, capture_output=True, text=True, check=True).stdout.strip()


def test_the_variants_really_change_what_runs():
    """Else the comparison below would prove nothing."""
    assert run_python("import torch; print(torch.get_num_threads())", **VARIANTS["one-thread"]) == "1"
    native = run_python("import torch; print(torch.backends.cpu.get_cpu_capability())")
    forced = run_python("import torch; print(torch.backends.cpu.get_cpu_capability())", **VARIANTS["avx2"])
    assert forced == "AVX2" or native not in ("AVX512", "AMX"), (native, forced)


@pytest.mark.trains
@pytest.mark.parametrize("variant, lesson", PAIRS)
def test_stored_outputs_hold(variant, lesson):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", lesson]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **VARIANTS[variant]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
