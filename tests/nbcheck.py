"""The notebook check: a pytest plugin on nbval.

nbval collects the notebooks, reads the tags and compares outputs. This plugin changes three things:

* cells run through nbclient, so that display updates, `clear_output` and output widgets are applied as JupyterLab does;
* a cell may state how far its floats may move, and how long it may take, with the tags `rtol=1e-3`, `atol=0.02`,
  `timeout=300`; words and integers stay exact;
* a cell that was never run fails, because nothing of it would be compared.

Notebook metadata `{"course": {"trains": true}}` gives all cells of a notebook the marker `trains`
(`python course.py test --fast` leaves them out).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbval.plugin import IPyNbCell, IPyNbFile, coalesce_streams
from traitlets import default

os.environ["COURSE_PROGRESS"] = "off"  # what a check or a refresh runs is nobody's progress in the labs
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
DEFAULT_TIMEOUT = 60  # seconds a cell may take without a tag of its own

# A float has a point with digits behind it, or an exponent; `40.` is an integer that ends a sentence.
# What stands next to a letter, a digit or another point is a version, a date, a name.
FLOAT = re.compile(r"(?<![\w.])[-+]?(?:\d*\.\d+|\d+\.?(?=[eE][-+]?\d))(?:[eE][-+]?\d+)?(?!\w|\.\w)")
TAG = re.compile(r"(rtol|atol|timeout)=(.+)")


# ---------------------------------------------------------------- the comparison, without pytest


def limits(cell: Any) -> dict[str, float]:
    """What a cell's tags state: rtol, atol (0 by default) and timeout in seconds.

    Raises ValueError for a tag such as `rtol=abc`, `rtol=inf` or `rtool=1e-3`.
    """
    stated = {"rtol": 0.0, "atol": 0.0, "timeout": float(DEFAULT_TIMEOUT)}
    for tag in cell.metadata.get("tags", []):
        if "=" not in tag:
            continue
        found = TAG.fullmatch(tag)
        try:
            name, value = found.group(1), float(found.group(2))
            if not 0 <= value < math.inf or (name, value) == ("timeout", 0):
                raise ValueError
        except (AttributeError, ValueError):
            raise ValueError(f"tag {tag!r}: expected rtol=, atol= or timeout= and a number, for example rtol=1e-3") from None
        stated[name] = value
    return stated


def snap(test: str, reference: str, rtol: float, atol: float) -> str:
    """`test` with every float that agrees with `reference` replaced by the reference's, if the words around them agree.

    Runs of spaces count as one. So what differs afterwards is a real difference, and a diff shows nothing else.
    """
    words, ref_words = FLOAT.split(test), FLOAT.split(reference)
    if [_spaces(w) for w in words] != [_spaces(w) for w in ref_words]:
        return test
    floats, ref_floats = FLOAT.findall(test), FLOAT.findall(reference)
    out = [ref_words[0]]
    for value, ref, word in zip(floats, ref_floats, ref_words[1:]):
        # A number too large for a float is a word (a digest such as 12e4567): two of them are not equal.
        close = math.isfinite(float(ref)) and math.isclose(float(value), float(ref), rel_tol=rtol, abs_tol=atol)
        out += [ref if close else value, word]
    return "".join(out)


def _spaces(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def snap_outputs(test: list[Any], reference: list[Any], rtol: float, atol: float) -> list[Any]:
    """`snap` for every text of a cell's outputs, output by output."""
    if len(test) != len(reference):
        return test
    for new, old in zip(test, reference):
        if new.output_type != old.output_type:
            continue
        if new.output_type == "stream" and new.name == old.name:
            new.text = snap(new.text, old.text, rtol, atol)
        for kind in set(new.get("data", {})) & set(old.get("data", {})):
            if isinstance(new.data[kind], str) and isinstance(old.data[kind], str) and not kind.startswith("image/"):
                new.data[kind] = snap(new.data[kind], old.data[kind], rtol, atol)
    return test


def tidy(outputs: list[Any]) -> list[Any]:
    """Outputs as they are stored: streams merged, emptied displays (a live picture that was taken away) dropped."""
    kept = [o for o in outputs if not (o.output_type == "display_data" and not any(o.data.values()))]
    return coalesce_streams(kept)


def as_stored(outputs: list[Any]) -> list[Any]:
    """Outputs without live widgets: a stored view has no kernel behind it, and JupyterLab shows an error in its place.

    What stands beside the view, its text or a static form, is what a reader sees before the first run.
    """
    for output in outputs:
        output.get("data", {}).pop(WIDGET_VIEW, None)
    return tidy(outputs)


def kinds(outputs: list[Any]) -> Counter:
    """How many outputs of each MIME type there are. nbval compares no pictures; this sees that they are there."""
    return Counter(kind for output in outputs for kind in output.get("data", {}))


def run_cell(client: NotebookClient, cell: Any, index: int) -> list[Any]:
    """Run one cell in the client's kernel; return its tidied outputs. Raises nbclient's errors.

    A display is settled when its cell ends: an update from a later cell is not applied.
    """
    client.timeout = math.ceil(limits(cell)["timeout"])  # nbclient takes whole seconds, and 0 as no limit
    cell.outputs = []  # nbclient leaves an empty cell as it is
    client.nb.cells[index] = cell  # where nbclient applies display updates
    client.execute_cell(cell, index)
    client.clear_display_id_mapping(index)  # its positions are those before tidying
    cell.outputs = tidy(cell.outputs)
    return cell.outputs


class ShellChannel(AsyncZMQSocketChannel):
    """Sends through the event loop, so that a reply that arrives at the same moment is heard.

    Without it one cell in thirty that fills an output widget waits until its time is up (nbclient issue 312).
    """

    def send(self, msg: dict[str, Any]) -> None:
        self.socket.send_multipart(self.session.serialize(msg))


class OwnKernel(AsyncKernelManager):
    """Starts this interpreter, whatever kernel the machine has installed under the name python3."""

    @default("kernel_spec_manager")
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    def client(self, **kwargs: Any) -> Any:
        client = super().client(**kwargs)
        client.shell_channel_class = ShellChannel
        return client


def new_client(notebook: Any, folder: Path) -> NotebookClient:
    """A client whose kernel is this interpreter and works in the notebook's folder. No tag makes it skip a cell."""
    return NotebookClient(notebook, kernel_name="python3", kernel_manager_class=OwnKernel, resources={"metadata": {"path": str(folder)}},
                          record_timing=False, allow_errors=False, coalesce_streams=True, iopub_timeout=30, skip_cells_with_tag="")


# ---------------------------------------------------------------- the pytest side


class CheckedCell(IPyNbCell):
    """An nbval cell that runs through nbclient and knows its own limits."""

    def runtest(self) -> None:
        if self.options["skip"]:
            pytest.skip()
        if self.parent.timed_out:
            self.raise_cell_error("Not run: an earlier cell took too long or killed the kernel.")
        if self.cell.execution_count is None:
            self.raise_cell_error("This cell was never run: nothing of it would be compared. Run: python course.py refresh")
        try:
            stated = limits(self.cell)
        except ValueError as error:
            self.raise_cell_error(str(error))
        fresh = nbformat.from_dict(dict(self.cell, outputs=[]))
        try:
            outputs = run_cell(self.parent.client, fresh, self.parent.nb.cells.index(self.cell))
        except CellTimeoutError:
            self.parent.timed_out = True
            self.raise_cell_error(f"The cell took longer than its {stated['timeout']:g} s (a tag such as timeout=300 states more).")
        except DeadKernelError:
            self.parent.timed_out = True
            self.raise_cell_error("The kernel died (out of memory?).")
        except CellExecutionError as error:
            self.raise_cell_error("The cell raised an error", str(error))
        outputs = self.test_outputs = as_stored(outputs)
        if self.options["check"]:
            reference = as_stored([nbformat.from_dict(o) for o in self.cell.outputs])
            if not self.compare_outputs(snap_outputs(outputs, reference, stated["rtol"], stated["atol"]), reference):
                self.raise_cell_error("Cell outputs differ", "\n".join(self.comparison_traceback))
            if kinds(outputs) != kinds(reference):
                self.raise_cell_error("Cell outputs differ", f"expected {dict(kinds(reference))}, got {dict(kinds(outputs))}")


class CheckedNotebook(IPyNbFile):
    """An nbval file whose kernel is driven by nbclient and whose cells are `CheckedCell`s."""

    client = None

    def setup(self) -> None:
        # The client works on a copy: the stored notebook is the reference.
        self.client = new_client(nbformat.from_dict(self.nb), self.path.parent)
        self.client.create_kernel_manager()
        self.client.start_new_kernel(cwd=str(self.path.parent))
        self.client.start_new_kernel_client()

    def teardown(self) -> None:
        if self.client is not None:
            self.client._cleanup_kernel()

    def collect(self):
        for item in super().collect():
            cell = CheckedCell.from_parent(self, name=item.name, cell_num=item.cell_num, cell=item.cell, options=item.options)
            if self.nb.metadata.get("course", {}).get("trains"):
                cell.add_marker("trains")
            yield cell


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: Any):
    """Swap nbval's collector for ours."""
    found = yield
    return [CheckedNotebook.from_parent(parent, path=file_path) if isinstance(node, IPyNbFile) else node for node in found]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "trains: takes minutes: trains the model, or runs a lesson in the browser (left out by --fast)")
