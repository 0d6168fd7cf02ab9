"""The notebook check and the refresh command, proven on small notebooks: each row says what must pass and what must fail.

The rows of AGREE and DIFFER are the cells of two notebooks whose outputs are stored by hand, as JupyterLab stores them.
The check runs both in one go; refresh must then come to the same verdict about every cell.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from ipykernel.ipkernel import IPythonKernel
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import nbcheck
import refresh

TESTS = Path(__file__).resolve().parent


# ---------------------------------------------------------------- making notebooks


def png(grey: int, size: int = 8, speck: int = 0) -> str:
    """A square picture of one grey (0 to 255), one pixel of it lighter by `speck`, in base64 as a notebook stores it."""
    buffer = io.BytesIO()
    picture = Image.new("RGB", (size, size), (grey, grey, grey))
    picture.putpixel((0, 0), (grey + speck,) * 3)
    picture.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def out(text: str, name: str = "stdout") -> Any:
    return new_output("stream", name=name, text=text)


def err(text: str) -> Any:
    return out(text, name="stderr")


def shown(**data: Any) -> Any:
    """A display: `text`, `html` or `png` stand for the MIME types."""
    kinds = {"text": "text/plain", "html": "text/html", "png": "image/png"}
    return new_output("display_data", {kinds[k]: v for k, v in data.items()})


def result(**data: Any) -> Any:
    return new_output("execute_result", shown(**data).data)


def raised(ename: str, evalue: str) -> Any:
    return new_output("error", ename=ename, evalue=evalue, traceback=[f"{ename}: {evalue}"])


@dataclass(frozen=True)
class Case:
    """One cell with what is stored for it, and a part of the message it must fail with ("" where it must pass)."""

    name: str
    source: str
    stored: tuple = ()
    tags: tuple[str, ...] = ()
    fails: str = ""
    run: bool = True  # whether it has an execution count
    stops_refresh: bool = False  # whether refresh gives up at this cell

    def cell(self, count: int) -> Any:
        cell = new_code_cell(self.source, execution_count=count if self.run else None, outputs=copy.deepcopy(list(self.stored)))
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
        if self.tags:
            cell.metadata["tags"] = list(self.tags)
        return cell


def write(path: Path, cells: list[Any], **metadata: Any) -> Path:
    """Write a notebook as refresh would, so that a refresh that changes nothing leaves the very bytes."""
    notebook = new_notebook(cells=cells, metadata={
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": IPythonKernel.language_info, **metadata})
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    return path


def write_cases(path: Path, cases: list[Case]) -> Path:
    return write(path, [case.cell(count) for count, case in enumerate(cases, 1)])


def outputs(path: Path) -> list[Any]:
    """The outputs of each code cell of a notebook file."""
    return [c.outputs for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def frame(loss: float) -> pd.DataFrame:
    return pd.DataFrame({"loss": [loss, 0.5]}, index=["train", "test"])


NEAR, FAR = frame(10.0001), frame(10.5)
CELL_FRAME = "import pandas as pd\npd.DataFrame({'loss': [9.9999, 0.5]}, index=['train', 'test'])"
UPDATE = "live = display({'text/plain': 'first'}, raw=True, display_id=True)\nlive.update({'text/plain': 'second'}, raw=True)"
CLEAR = "print('first')\nclear_output()\nprint('second')"
WAIT = "print('first')\nclear_output(wait=True)\nprint('second')"
LIVE = f"""live = display({{'text/plain': 'step 0'}}, raw=True, display_id=True)
for step in (1, 2):
    live.update({{'image/png': {png(100)!r}}}, raw=True)
live.update({{'text/plain': ''}}, raw=True)
print('done')"""
INSIDE = "box = ipywidgets.Output()\nwith box:\n    print('inside')\nprint('outside')"

AGREE = [
    Case("imports", "import sys, ipywidgets\nfrom IPython.display import clear_output, display\nprint('ready')", (out("ready\n"),)),
    Case("no output", "x = 1"),
    Case("exact without tags", "print('loss 0.25 after 3 steps')", (out("loss 0.25 after 3 steps\n"),)),
    Case("rtol in stdout", "print('loss 0.5001')", (out("loss 0.5\n"),), ("rtol=1e-3",)),
    Case("atol in stdout", "print('shift -0.001')", (out("shift 0.002\n"),), ("atol=0.01",)),
    Case("float in text/plain", "0.50004", (result(text="0.5"),), ("rtol=1e-3",)),
    Case("float in stderr", "print('loss 0.5001', file=sys.stderr)", (err("loss 0.5\n"),), ("rtol=1e-3",)),
    Case("exponents", "print(1.0004e-05)", (out("1e-05\n"),), ("rtol=1e-3",)),
    Case("table whose columns move", CELL_FRAME, (result(text=repr(NEAR), html=NEAR._repr_html_()),), ("rtol=1e-3",)),
    Case("nan and inf", "print(float('nan'), float('inf'), 0.5001)", (out("nan inf 0.5\n"),), ("rtol=1e-3",)),
    Case("exact words among floats", "print('trl 1.16.0 of 2026.11.15, 100 rows: 0.5001')",
         (out("trl 1.16.0 of 2026.11.15, 100 rows: 0.5\n"),), ("rtol=1e-3",)),
    Case("two streams", "print('a')\nprint('b', file=sys.stderr)\nprint('c')", (out("a\nc\n"), err("b\n"))),
    Case("display update", UPDATE, (shown(text="second"),)),
    Case("display update after a print", "print('a')\n" + UPDATE, (out("a\n"), shown(text="second"))),
    Case("display with one name twice", "for word in ('first', 'second'):\n    display({'text/plain': word}, raw=True, display_id='named')",
         (shown(text="second"), shown(text="second"))),
    Case("clear_output", CLEAR, (out("second\n"),)),
    Case("clear_output, wait", WAIT, (out("second\n"),)),
    Case("live picture taken away", LIVE, (out("done\n"),)),
    Case("named display taken away", "named = display({'text/plain': 'a'}, raw=True, display_id='again')\n"
         "named.update({'text/plain': ''}, raw=True)"),
    Case("same name in a later cell", "print('a')\nagain = display({'text/plain': 'b'}, raw=True, display_id='again')",
         (out("a\n"), shown(text="b"))),
    Case("output widget", INSIDE, (out("outside\n"),)),
    Case("widget, stored without its live view", "display(ipywidgets.Output())", (shown(text="Output()"),)),
    Case("picture with nearly the same pixels", f"display({{'image/png': {png(100, speck=9)!r}}}, raw=True)", (shown(png=png(100)),)),
    Case("expected error", "raise ValueError('as the lesson says')", (raised("ValueError", "as the lesson says"),), ("raises-exception",)),
    Case("after the expected error", "print('goes on')", (out("goes on\n"),)),
    Case("same cell", "print('twice')", (out("twice\n"),)),
    Case("same cell again", "print('twice')", (out("twice\n"),)),
    Case("empty cell", ""),
    Case("other tags", "print('a')", (out("a\n"),), ("hide-input", "timeout=300")),
]

DIFFER = "Cell outputs differ"
NEVER = "never run"
FAIL = [
    Case("float without tags", "import sys, ipywidgets\nfrom IPython.display import clear_output, display\nprint(0.5001)",
         (out("0.5\n"),), fails=DIFFER),
    Case("float beyond rtol", "print('loss 0.51')", (out("loss 0.5\n"),), ("rtol=1e-3",), DIFFER),
    Case("float beyond atol", "print('loss 0.52')", (out("loss 0.5\n"),), ("atol=0.01",), DIFFER),
    Case("one float of two", "print(0.5001, 0.9)", (out("0.5 0.7\n"),), ("rtol=1e-3",), DIFFER),
    Case("float in text/plain", "0.51", (result(text="0.5"),), ("rtol=1e-3",), DIFFER),
    Case("float in a table", CELL_FRAME, (result(text=repr(FAR), html=FAR._repr_html_()),), ("rtol=1e-3",), DIFFER),
    Case("float in HTML alone", CELL_FRAME, (result(text=repr(NEAR), html=FAR._repr_html_()),), ("rtol=1e-3",), DIFFER),
    Case("word", "print('loss falls')", (out("loss rises\n"),), fails=DIFFER),
    Case("word beside a float", "print('falls to 0.5001')", (out("rises to 0.5\n"),), ("rtol=1e-3",), DIFFER),
    Case("integer", "print('right: 41')", (out("right: 40\n"),), fails=DIFFER),
    Case("integer under a tolerance", "print('right: 41')", (out("right: 40\n"),), ("rtol=0.5", "atol=5"), DIFFER),
    Case("integer that ends a sentence", "print('It got 41. Good.')", (out("It got 40. Good.\n"),), ("rtol=0.5",), DIFFER),
    Case("version", "print('trl 1.16.1')", (out("trl 1.16.0\n"),), ("rtol=0.5", "atol=5"), DIFFER),
    Case("date", "print('on 2026-11-16')", (out("on 2026-11-15\n"),), ("rtol=0.5", "atol=5"), DIFFER),
    Case("date with points", "print('on 2026.11.16')", (out("on 2026.11.15\n"),), ("rtol=0.5", "atol=5"), DIFFER),
    Case("nan for a float", "print(float('nan'))", (out("0.5\n"),), ("rtol=0.5", "atol=5"), DIFFER),
    Case("float for a nan", "print(0.5)", (out("nan\n"),), ("rtol=0.5", "atol=5"), DIFFER),
    Case("infinite for finite", "print(float('inf'))", (out("1e308\n"),), ("rtol=0.5",), DIFFER),
    Case("prints nothing now", "x = 1", (out("loss 0.5\n"),), fails=DIFFER),
    Case("prints more now", "print('a')\nprint('b')", (out("a\n"),), fails=DIFFER),
    Case("nothing stored", "print('loss 0.5')", fails=DIFFER),
    Case("shows nothing now", "x = 1", (shown(png=png(100)),), fails=DIFFER),
    Case("shows a picture now", f"display({{'image/png': {png(100)!r}}}, raw=True)", fails=DIFFER),
    Case("stderr", "print('warning: b', file=sys.stderr)", (err("warning: a\n"),), fails=DIFFER),
    Case("stderr for stdout", "print('a', file=sys.stderr)", (out("a\n"),), fails=DIFFER),
    Case("stored before the display update", UPDATE, (shown(text="first"),), fails=DIFFER),
    Case("stored before clear_output", CLEAR, (out("first\nsecond\n"),), fails=DIFFER),
    Case("stored before clear_output, wait", WAIT, (out("first\nsecond\n"),), fails=DIFFER),
    Case("stored what an output widget took", INSIDE, (out("inside\noutside\n"),), fails=DIFFER),
    Case("stored a live picture's steps", LIVE, (shown(text="step 0"), out("done\n")), fails=DIFFER),
    Case("never run, no outputs", "print('a')", run=False, fails=NEVER),
    Case("never run, with outputs", "print('a')", (out("a\n"),), run=False, fails=NEVER),
    Case("never run, prints nothing", "x = 1", run=False, fails=NEVER),
    Case("expected error does not come", "print('a')", (raised("ValueError", "a"),), ("raises-exception",), DIFFER),
    Case("expected error says other words", "raise ValueError('b')", (raised("ValueError", "a"),), ("raises-exception",), DIFFER),
    Case("expected error of another kind", "raise KeyError('a')", (raised("ValueError", "'a'"),), ("raises-exception",), DIFFER),
    Case("outputs of an empty cell", "", (out("a\n"),), fails=DIFFER),
    Case("a tag that skips the cell", "print('b')", (), ("skip-execution",), DIFFER),
    Case("error", "print('a')\nraise ValueError('unexpected')", (out("a\n"),), fails="The cell raised an error", stops_refresh=True),
    Case("malformed tag", "print('a')", (out("a\n"),), ("rtol=abc",), "tag 'rtol=abc'", stops_refresh=True),
    Case("after all that", "print('b')", (out("a\n"),), fails=DIFFER),
]


def case_id(case: Case) -> str:
    return case.name.replace(" ", "-")


# ---------------------------------------------------------------- the check


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run pytest with the plugin alone: none of the project's own options."""
    (folder / "neutral.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-c", "neutral.ini", "--rootdir", ".", "-p", "no:cacheprovider", "-p", "nbcheck",
               "--nbval", "--nbval-current-env", "--strict-markers", *arguments]
    return subprocess.run(command, cwd=folder, env=dict(os.environ, PYTHONPATH=str(TESTS)), capture_output=True, text=True)


@dataclass(frozen=True)
class Verdicts:
    """What one run of the check said: per (notebook, cell number) its outcome and message, and pytest's exit code."""

    cells: dict[tuple[str, int], tuple[str, str]]
    exit_code: int


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    folder = tmp_path_factory.mktemp("check")
    write_cases(folder / "agree.ipynb", AGREE)
    write_cases(folder / "differ.ipynb", FAIL)
    write_cases(folder / "dead.ipynb", [Case("", "import os\nos._exit(1)"), Case("", "x = 1")])
    write_cases(folder / "slow.ipynb", [Case("", "import time\ntime.sleep(20)", tags=("timeout=0.5",)), Case("", "x = 1")])
    write(folder / "trains.ipynb", [Case("", "x = 1").cell(1)], course={"trains": True})
    run = check(folder, "--junitxml", "report.xml", "-m", "not trains", ".")
    cells = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        bad = next(iter(case), None)
        verdict = ("passed", "") if bad is None else (bad.tag, f"{bad.get('message')}\n{bad.text}")
        cells[case.get("classname").removesuffix(".ipynb"), int(case.get("name").removeprefix("Cell "))] = verdict
    return Verdicts(cells, run.returncode)


@pytest.mark.parametrize("number", range(len(AGREE)), ids=map(case_id, AGREE))
def test_passes(verdicts: Verdicts, number: int):
    assert verdicts.cells["agree", number] == ("passed", "")


@pytest.mark.parametrize("number", range(len(FAIL)), ids=map(case_id, FAIL))
def test_fails(verdicts: Verdicts, number: int):
    outcome, message = verdicts.cells["differ", number]
    assert outcome == "failure", "the check let it pass"
    assert FAIL[number].fails in message


def test_the_run_as_a_whole_fails(verdicts: Verdicts):
    assert verdicts.exit_code == pytest.ExitCode.TESTS_FAILED
    assert len([k for k in verdicts.cells if k[0] in ("agree", "differ")]) == len(AGREE) + len(FAIL)


@pytest.mark.parametrize("notebook, message", [("dead", "kernel died"), ("slow", "longer than its 0.5 s")])
def test_a_lost_kernel_fails_at_once(verdicts: Verdicts, notebook: str, message: str):
    outcome, text = verdicts.cells[notebook, 0]
    assert outcome == "failure" and message in text
    # nbval reports the cells behind it as expected failures; none may wait for the kernel or pass.
    outcome, text = verdicts.cells[notebook, 1]
    assert outcome == "skipped" and "Previous cell timed out" in text


def test_the_diff_shows_only_real_differences(verdicts: Verdicts):
    _, message = verdicts.cells["differ", [case.name for case in FAIL].index("one float of two")]
    assert "0.5 0.7" in message and "0.5 0.9" in message and "0.5001 0.9" not in message


def test_trains_is_left_out(verdicts: Verdicts, tmp_path: Path):
    assert not [k for k in verdicts.cells if k[0] == "trains"]
    write(tmp_path / "trains.ipynb", [Case("", "x = 1").cell(1)], course={"trains": True})
    write(tmp_path / "light.ipynb", [Case("", "x = 1").cell(1)], course={"trains": False})
    chosen = check(tmp_path, "--collect-only", "-q", "-m", "trains", ".").stdout
    assert "trains.ipynb::Cell 0" in chosen and "light.ipynb" not in chosen


def test_the_kernel_is_this_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another kernel installed as python3 on this machine must not be taken."""
    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["/other/python"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    client = nbcheck.new_client(new_notebook(), tmp_path)
    assert client.create_kernel_manager().kernel_spec.argv[0] == sys.executable


def test_no_output_widget_is_waited_for(tmp_path: Path):
    """The widget's message back to the kernel must not swallow the reply: one cell in thirty would wait out its 5 s."""
    cells = [new_code_cell("import ipywidgets")] + [new_code_cell(INSIDE, metadata={"tags": ["timeout=5"]}) for _ in range(150)]
    client = nbcheck.new_client(new_notebook(cells=cells), tmp_path)
    with client.setup_kernel():
        nbcheck.run_cell(client, cells[0], 0)
        for index, cell in enumerate(cells[1:], 1):
            start = time.monotonic()
            assert nbcheck.run_cell(client, cell, index) == [out("outside\n")]
            assert time.monotonic() - start < 4


# ---------------------------------------------------------------- its parts


@pytest.mark.parametrize("test, reference, rtol, atol, expected", [
    ("0.5", "0.5", 0, 0, "0.5"),
    ("0.5001", "0.5", 0, 0, "0.5001"),
    ("0.5001", "0.5", 1e-3, 0, "0.5"),
    ("0.5001", "0.5", 0, 1e-3, "0.5"),
    ("0.51", "0.5", 1e-3, 1e-3, "0.51"),
    ("-0.001", "0.001", 0, 0.01, "0.001"),
    ("-0.5", "0.5", 0.1, 0.1, "-0.5"),
    ("-0.0", "0.0", 0, 0, "0.0"),
    ("a 0.5001 b 0.9", "a 0.5 b 0.7", 1e-3, 0, "a 0.5 b 0.9"),  # only the real difference stays
    ("a 0.5001 c", "a 0.5 b", 1e-3, 0, "a 0.5001 c"),
    ("0.5001 0.7", "0.5", 1e-3, 0, "0.5001 0.7"),
    ("x   9.999", "x 10.001", 1e-3, 0, "x 10.001"),
    ("x9.999", "x 9.999", 1e-3, 0, "x9.999"),
    ("(0.5001)", "(0.5)", 1e-3, 0, "(0.5)"),
    ("<td>0.5001</td>", "<td>0.5</td>", 1e-3, 0, "<td>0.5</td>"),
    ("score 0.5001.", "score 0.5.", 1e-3, 0, "score 0.5."),  # at the end of a sentence
    ("[0.5001, .2501]", "[0.5, .25]", 1e-3, 0, "[0.5, .25]"),
    ("12.51 %", "12.5 %", 1e-2, 0, "12.5 %"),
    ("1.0001e-05", "1e-05", 1e-3, 0, "1e-05"),
    ("1.e-05", "1.0e-05", 0, 0, "1.0e-05"),
    ("1E+5", "100001.0", 1e-3, 0, "100001.0"),
    ("2e-5", "1e-5", 1e-3, 0, "2e-5"),
    ("41", "40", 9, 9, "41"),
    ("41.", "40.", 9, 9, "41."),
    ("41.0", "41", 9, 9, "41.0"),
    ("1,041.5", "1,040.5", 1e-2, 0, "1,041.5"),
    ("1.16.1", "1.16.0", 9, 9, "1.16.1"),
    ("v1.17", "v1.16", 9, 9, "v1.17"),
    ("1.16rc1", "1.16rc2", 9, 9, "1.16rc1"),
    ("2.13.1+cpu", "2.13.0+cpu", 9, 9, "2.13.1+cpu"),
    ("2026-11-16", "2026-11-15", 9, 9, "2026-11-16"),
    ("2026.11.16", "2026.11.15", 9, 9, "2026.11.16"),
    ("1.6s", "1.5s", 9, 9, "1.6s"),
    ("12e45ab", "12e46ab", 9, 9, "12e45ab"),
    ("12e4567", "99e9999", 9, 9, "12e4567"),  # both too large for a float: words, such as a digest
    ("nan", "nan", 9, 9, "nan"),
    ("nan", "0.5", 9, 9, "nan"),
    ("0.5", "nan", 9, 9, "0.5"),
    ("inf", "-inf", 9, 9, "inf"),
    ("", "", 9, 9, ""),
    ("", "0.5", 9, 9, ""),
    ("0.5", "", 9, 9, "0.5"),
])
def test_snap(test: str, reference: str, rtol: float, atol: float, expected: str):
    assert nbcheck.snap(test, reference, rtol, atol) == expected


@pytest.mark.parametrize("tags, expected", [
    ([], {"rtol": 0, "atol": 0, "timeout": nbcheck.DEFAULT_TIMEOUT}),
    (["hide-input", "rtol=1e-3"], {"rtol": 1e-3, "atol": 0, "timeout": nbcheck.DEFAULT_TIMEOUT}),
    (["atol=0.02", "timeout=300"], {"rtol": 0, "atol": 0.02, "timeout": 300}),
])
def test_limits(tags: list[str], expected: dict[str, float]):
    assert nbcheck.limits(Case("", "", tags=tuple(tags)).cell(1)) == expected


@pytest.mark.parametrize("tag", ["rtol=abc", "rtol=", "rtool=1e-3", "timeout=5 s", "rtol = 1e-3", "rtol=-1", "atol=inf", "rtol=nan",
                                 "timeout=0", "timeout=inf"])
def test_limits_refuses(tag: str):
    with pytest.raises(ValueError, match=f"tag '{tag}': expected rtol=, atol= or timeout="):
        nbcheck.limits(Case("", "", tags=(tag,)).cell(1))


def test_a_live_widget_is_not_stored(tmp_path: Path):
    """Without a kernel JupyterLab would show an error in its place; its text and the check of it stay."""
    path = write(tmp_path / "lesson.ipynb", [new_code_cell("import ipywidgets\nipywidgets.Output()")])
    assert refresh.refresh(path) == [0]
    assert outputs(path)[0][0].data == {"text/plain": "Output()"}
    assert refresh.refresh(path) == [] and check(tmp_path, ".").returncode == 0


def test_tidy():
    picture = shown(png=png(100), text="")
    assert nbcheck.tidy([out("a"), shown(text=""), out("b\n"), picture, err("c"), shown(), out("50 %\r100 %\n")]) == [
        out("ab\n100 %\n"), picture, err("c")]
    assert nbcheck.tidy([]) == []


# ---------------------------------------------------------------- refresh


def test_refresh_keeps_what_agrees(tmp_path: Path):
    """Every output that the check passes stays as it is, to the byte."""
    path = write_cases(tmp_path / "agree.ipynb", AGREE)
    before = path.read_bytes()
    assert refresh.refresh(path) == []
    assert path.read_bytes() == before


def test_refresh_stores_what_differs(tmp_path: Path):
    """Every cell that the check fails is stored anew, and the next refresh is content."""
    cases = [case for case in FAIL if not case.stops_refresh]
    path = write_cases(tmp_path / "differ.ipynb", cases)
    assert refresh.refresh(path) == list(range(len(cases)))
    stored = dict(zip([case.name for case in cases], outputs(path)))
    assert stored["float beyond rtol"] == [out("loss 0.51\n")]
    assert stored["never run, no outputs"] == [out("a\n")]
    assert stored["stored before the display update"] == [shown(text="second")]
    assert stored["stored before clear_output, wait"] == [out("second\n")]
    assert stored["stored a live picture's steps"] == [out("done\n")]
    assert stored["expected error says other words"][0].evalue == "b"
    assert stored["shows nothing now"] == stored["outputs of an empty cell"] == []
    counts = [cell.execution_count for cell in nbformat.read(path, as_version=4).cells]
    assert counts == list(range(1, len(cases) + 1))


def test_after_a_change_nothing_of_the_old_run_stays(tmp_path: Path):
    """A later number that moved within its tolerance is stored anew as well; an equal one, and an earlier one, stay."""
    near = new_code_cell("print('loss 0.5001')", execution_count=1, outputs=[out("loss 0.5000\n")], metadata={"tags": ["rtol=1e-2"]})
    changed = new_code_cell("print('rows 41')", execution_count=2, outputs=[out("rows 40\n")])
    equal = new_code_cell("print('done')", execution_count=4, outputs=[out("done\n")])
    path = write(tmp_path / "lesson.ipynb", [near, changed, nbformat.from_dict({**near, "execution_count": 3}), equal])
    assert refresh.refresh(path) == [1, 2]
    assert outputs(path) == [[out("loss 0.5000\n")], [out("rows 41\n")], [out("loss 0.5001\n")], [out("done\n")]]


def test_refresh_again_and_again(tmp_path: Path, capsys: pytest.CaptureFixture):
    """One notebook whose cells read their numbers from a file: noise, a change, an error."""
    inputs = tmp_path / "inputs.json"
    show = "import json\nfrom IPython.display import display\ninputs = json.load(open('inputs.json'))\n"
    cells = [
        new_markdown_cell("# A lesson"),
        new_code_cell(show + "print('loss', inputs['loss'])", metadata={"tags": ["rtol=1e-3"], "execution": {"iopub.status.busy": "then"}}),
        new_code_cell("display({'image/png': inputs['picture'], 'text/plain': 'a picture'}, raw=True)", metadata={"tags": ["remember"]}),
        new_code_cell("print(inputs['rows'], 'rows')"),
        new_code_cell("assert not inputs['fail'], 'told to fail'"),
    ]
    path = write(tmp_path / "lesson.ipynb", cells, widgets={"broken": {}}, vscode={"x": 1}, course={"trains": False, "minutes": 5})

    def run(**values: Any) -> tuple[int, str, bytes]:
        inputs.write_text(json.dumps({"loss": 0.5, "picture": png(100), "rows": 40, "fail": False, **values}))
        code = refresh.main([str(path)])
        assert not list(tmp_path.glob("*.part"))
        return code, capsys.readouterr().out.split("\r")[-1], path.read_bytes()

    code, said, first = run()
    assert code == 0 and said == "lesson.ipynb: 4 cell(s) stored anew: [0, 1, 2, 3]\n"
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) == {"course", "kernelspec", "language_info"}
    assert notebook.metadata.course == {"trains": False, "minutes": 5}
    assert [cell.metadata for cell in notebook.cells] == [{}, {"tags": ["rtol=1e-3"]}, {"tags": ["remember"]}, {}, {}]
    assert notebook.cells[0].source == "# A lesson"
    assert outputs(path) == [[out("loss 0.5\n")], [shown(png=png(100), text="a picture")], [out("40 rows\n")], []]

    # Noise: nothing is written, neither numbers nor pictures.
    os.utime(path, (1, 1))
    code, said, bytes_ = run(loss=0.5001, picture=png(100, speck=9))
    assert (code, said, bytes_) == (0, "lesson.ipynb: nothing changed\n", first)
    assert path.stat().st_mtime == 1

    # A failing cell behind one that changed: the file stays.
    code, said, bytes_ = run(loss=0.6, fail=True)
    assert code == 1 and bytes_ == first
    assert said.startswith("lesson.ipynb: left as it was, a cell failed:\n") and "told to fail" in said

    # One change and one other picture: the rest stays, noise and all.
    code, said, bytes_ = run(loss=0.5001, picture=png(200), rows=41)
    assert code == 0 and said == "lesson.ipynb: 2 cell(s) stored anew: [1, 2]\n"
    assert outputs(path) == [[out("loss 0.5\n")], [shown(png=png(200), text="a picture")], [out("41 rows\n")], []]
    assert bytes_ == first.replace(png(100).encode(), png(200).encode()).replace(b"40 rows", b"41 rows")


@pytest.mark.parametrize("case, message", [
    (Case("malformed tag", "print('b')", (out("a\n"),), ("rtol=abc",)), "tag 'rtol=abc'"),
    (Case("dead kernel", "import os\nos._exit(1)"), "Kernel died"),
    (Case("too slow", "import time\ntime.sleep(20)", tags=("timeout=0.5",)), "timed out"),
], ids=["malformed-tag", "dead-kernel", "too-slow"])
def test_refresh_leaves_the_file(tmp_path: Path, capsys: pytest.CaptureFixture, case: Case, message: str):
    path = write_cases(tmp_path / "lesson.ipynb", [Case("changed", "print('b')", (out("a\n"),)), case])
    before = path.read_bytes()
    assert refresh.main([str(path)]) == 1
    said = capsys.readouterr().out.split("\r")[-1]
    assert said.startswith("lesson.ipynb: left as it was") and message in said
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["lesson.ipynb"]


def test_refresh_refuses_a_missing_notebook(tmp_path: Path):
    run = subprocess.run([sys.executable, str(TESTS / "refresh.py"), "none.ipynb"], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (1, f"{tmp_path.resolve() / 'none.ipynb'}: no such notebook\n", "")


def test_same_picture():
    assert refresh.same_picture(png(100), png(100, speck=9))
    assert not refresh.same_picture(png(100), png(102))
    assert not refresh.same_picture(png(100), png(120))
    assert not refresh.same_picture(png(100), png(100, size=9))
