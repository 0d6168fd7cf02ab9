"""JupyterLab as a person meets it: `course.py lab` in a real browser. Skipped where there is no Chrome or Chromium."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = {  # name -> its heading
    path.stem: json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0].removeprefix("# ").strip()
    for path in sorted((ROOT / "lessons").glob("*.ipynb"))
}
WORKSHEET, MATRIX = "01_when_to_fine_tune", "09_decision_matrix"  # run whole
SCRATCH = ROOT / "lessons" / "zz_browser_test.ipynb"  # under the server's root; removed again
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = [
    pytest.mark.skipif(CHROME is None, reason="no Chrome or Chromium on this machine"),
    pytest.mark.skipif(Path(sys.prefix).resolve() != (ROOT / ".venv").resolve(), reason="runs in the environment that course.py makes"),
]


@pytest.fixture(scope="module")
def lab_url():
    """The address that `course.py lab --no-browser` prints."""
    command = [sys.executable, str(ROOT / "course.py"), "lab", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        for line in server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/lab/\S+", line):
                yield found.group()
                break
        else:
            pytest.fail("course.py lab printed no address")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


@pytest.fixture(scope="module")
def page(lab_url):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.outside = []
        page.on("request", lambda r: page.outside.append(r.url) if not re.match(r"(http|ws)://127\.0\.0\.1|data:|blob:", r.url) else None)
        yield page
        browser.close()


def open_lesson(page, url: str, name: str) -> None:
    page.goto(url.replace("00_start_here", name).replace("/lab/tree/", "/lab/workspaces/auto-t/tree/") + "&reset", wait_until="domcontentloaded")
    page.wait_for_selector(f".jp-NotebookPanel:not(.lm-mod-hidden) h1:has-text('{LESSONS[name].split(':')[0]}')", timeout=60_000)
    page.wait_for_timeout(3000)


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_opens_clean_and_stays_as_it_is_on_disk(page, lab_url, name):
    path = ROOT / "lessons" / f"{name}.ipynb"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    open_lesson(page, lab_url, name)
    assert page.locator(".jp-Dialog").count() == 0, "a dialog stands over the lesson"
    assert page.locator(".Toastify__toast").count() == 0, "a pop-up stands over the lesson"
    text = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").inner_text()
    for bad in ("VBox(", "HBox(", "Invalid Notebook", "Error displaying widget", "Loading widget", "<Figure size"):
        assert bad not in text, bad
    stored = json.loads(path.read_text(encoding="utf-8"))["metadata"]["language_info"]["version"]
    if stored == platform.python_version():  # another Python writes its version into the notebook
        assert page.locator(".jp-NotebookPanel-toolbar").count() and not page.locator(".lm-TabBar-tab.jp-mod-dirty").count(), "opening changed it"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert not page.outside, f"requests left the machine: {page.outside[:5]}"


@pytest.fixture
def kept():
    """JupyterLab saves by itself every two minutes; what a test does to the files is taken back."""
    before = {name: (ROOT / "lessons" / f"{name}.ipynb").read_bytes() for name in LESSONS}
    yield
    for name, content in before.items():
        path = ROOT / "lessons" / f"{name}.ipynb"
        if path.read_bytes() != content:
            path.write_bytes(content)


def run_all(page, least: int = 6) -> None:
    """Run all cells of the open notebook, at least so many, by the menu, from a fresh kernel and without old outputs, and wait for the last."""
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_text("Clear Outputs of All Cells", exact=True).click()
    page.wait_for_function("() => !document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output').length")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.wait_for_function(  # the counter of every code cell is a number again
        "() => { const p = [...document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')];"  # a folded cell shows no counter
        f" return p.length >= {least} && p.every(e => /\\[\\d+\\]/.test(e.textContent)) }}",
        timeout=240_000,
    )
    assert page.locator(f"{PANEL} [data-mime-type='application/vnd.jupyter.error']").count() == 0


@pytest.mark.trains  # takes a minute
def test_lesson_00_runs_in_the_browser(page, lab_url, kept):
    """Run all cells by the menu, without saving; the last cell's result appears, and no error."""
    open_lesson(page, lab_url, "00_start_here")
    run_all(page)
    shown = " ".join(page.locator(f"{PANEL} .jp-OutputArea-output").all_text_contents())  # also of cells that are scrolled out of sight
    assert "This machine is ready." in shown and "exact match, share with 95 % interval" in shown


# ---------------------------------------------------------------- forms, by keyboard only


FOCUSED = """() => { const e = document.activeElement, label = e.labels && e.labels[0];
                     return ((label ? label.textContent : e.getAttribute('aria-label') || e.textContent) || '').trim() }"""  # as a screen reader says it


def tab_to(page, label: str, most: int = 60) -> None:
    """Press Tab until the field with this label has the focus."""
    said = []
    for _ in range(most):
        said.append(page.evaluate(FOCUSED))
        if said[-1].startswith(label):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"no field {label!r} within {most} presses of Tab, only {said[:20]}")


def enter_form(page, task: str):
    """The output with the form of this task; the focus is at its first field, where Tab from the cell leads."""
    form = page.locator(f"{PANEL} .jp-OutputArea-output", has_text=task).filter(has=page.locator("[role=status]")).first
    form.wait_for(state="attached", timeout=60_000)
    form.evaluate("e => e.scrollIntoView({block: 'start'})")
    page.wait_for_timeout(500)
    form.locator("input, select, textarea").first.focus()
    return form


def wait_for(page, form, text: str) -> None:
    """Until the form's text result, which a screen reader says, holds this."""
    try:
        page.wait_for_function("([form, text]) => form.querySelector('[role=status]').textContent.includes(text)",
                               arg=[form.element_handle(), text], timeout=60_000)
    except Exception as error:
        pytest.fail(f"expected {text!r} in the result, found {form.locator('[role=status]').first.text_content()!r} ({type(error).__name__})")


def type_over(page, text: str) -> None:
    """Put a text into the field that has the focus, and leave it."""
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.type(text)
    page.keyboard.press("Tab")


def violations(page) -> list[str]:
    """What axe-core finds in the outputs, two things apart that are not ours: JupyterLab draws the pictures of any notebook as `img` without a
    text (a view says its picture in words below it), and pandas leaves the corner of a table empty."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, {"include": [[f"{PANEL} .jp-OutputArea-output"]]}).response["violations"]
    return [f"{one['id']} ({one['impact']}): {node['html'][:200]}" for one in found for node in one["nodes"]
            if not (one["id"] == "image-alt" and "jp-RenderedImage" in str(node["target"]))
            and not (one["id"] == "empty-table-header" and node["html"] == "<th></th>")]


@pytest.mark.trains  # takes a minute
def test_the_matrix_runs_and_no_output_shuts_a_reader_out(page, lab_url, kept):
    open_lesson(page, lab_url, MATRIX)
    run_all(page)
    assert not violations(page)


@pytest.mark.trains  # takes a minute
def test_the_worksheet_works_by_keyboard_and_shuts_no_reader_out(page, lab_url, kept):
    """Choose a worked case, empty an answer, type another: each time the recommendation follows."""
    from helpers import decisions

    asked = next(question.text for question in decisions.QUESTIONS if question.name == "prompt")
    open_lesson(page, lab_url, WORKSHEET)
    run_all(page)
    assert not violations(page)
    form = enter_form(page, "Fill in what you know about a use case of your own.")
    tab_to(page, "Start from")
    page.keyboard.type("sorting mail")
    wait_for(page, form, "Recommendation: prompt.")
    for answer, verdict in (("", "measure first"), ("0.5", "LoRA")):
        tab_to(page, asked)
        type_over(page, answer)
        wait_for(page, form, f"Recommendation: {verdict}.")
        form.locator("input, select, textarea").first.focus()


@pytest.fixture
def scratch():
    """A notebook with three explorers in the server's folder."""
    cells = ["from helpers import widgets\n\nwidgets.stopping_explorer()", "widgets.rate_explorer()", "widgets.planner()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Scratch"), *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(notebook, SCRATCH)
    yield SCRATCH.stem
    SCRATCH.unlink(missing_ok=True)


@pytest.mark.trains  # takes a minute
def test_three_explorers_work_by_keyboard_and_shut_no_reader_out(page, lab_url, scratch, monkeypatch):
    monkeypatch.setitem(LESSONS, scratch, "Scratch")
    open_lesson(page, lab_url, scratch)
    run_all(page, least=3)
    form = enter_form(page, "Compare patience 1 and 2.")
    wait_for(page, form, "stops after step 15 of 25")
    tab_to(page, "Patience")
    page.keyboard.press("ArrowDown")
    wait_for(page, form, "stops after step 25 of 25 and keeps step 20")

    form = enter_form(page, "Find the learning rate with the best score")
    tab_to(page, "Learning rate, LoRA")
    page.keyboard.press("ArrowDown")
    wait_for(page, form, "LoRA at 0.002: 0.781")

    form = enter_form(page, "Turn one knob at a time.")
    tab_to(page, "Memory of the machine, GB")
    type_over(page, "1")
    wait_for(page, form, "does not fit into 1 GB")
    form.locator("input, select, textarea").first.focus()
    tab_to(page, "Batch, rows at once")
    type_over(page, "0")
    wait_for(page, form, "batch: expected")
    assert not violations(page)
