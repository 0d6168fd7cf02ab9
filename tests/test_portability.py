"""The lessons' stored outputs hold on another machine in small: with kernels forced to AVX2, and with one thread.

Each variant re-runs the lessons in a pytest of its own, with the notebook check comparing all outputs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ["lessons/00_start_here.ipynb", "lessons/05_lora.ipynb"]
VARIANTS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "one-thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}


def run_python(code: str, **changes: str) -> str:
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **changes}, capture_output=True, text=True, check=True).stdout.strip()


def test_the_variants_really_change_what_runs():
    """Else the comparison below would prove nothing."""
    assert run_python("import torch; print(torch.get_num_threads())", **VARIANTS["one-thread"]) == "1"
    native = run_python("import torch; print(torch.backends.cpu.get_cpu_capability())")
    forced = run_python("import torch; print(torch.backends.cpu.get_cpu_capability())", **VARIANTS["avx2"])
    assert forced == "AVX2" or native not in ("AVX512", "AMX"), (native, forced)


@pytest.mark.trains
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("lesson", LESSONS)
def test_stored_outputs_hold(lesson, variant):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", lesson]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **VARIANTS[variant]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
