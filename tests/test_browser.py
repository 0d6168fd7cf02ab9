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

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = {  # name -> its heading
    path.stem: json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0].removeprefix("# ").strip()
    for path in sorted((ROOT / "lessons").glob("*.ipynb"))
}
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
    """JupyterLab saves by itself every two minutes; what this test does to the file is taken back."""
    path = ROOT / "lessons" / "00_start_here.ipynb"
    before = path.read_bytes()
    yield
    if path.read_bytes() != before:
        path.write_bytes(before)


@pytest.mark.trains  # takes a minute
def test_lesson_00_runs_in_the_browser(page, lab_url, kept):
    """Run all cells by the menu, without saving; the last cell's result appears, and no error."""
    open_lesson(page, lab_url, "00_start_here")
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_text("Clear Outputs of All Cells", exact=True).click()
    page.wait_for_function("() => !document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output').length")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    cells = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    page.wait_for_function(  # the counter of every code cell is a number again
        "() => { const p = [...document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')];"  # a folded cell shows no counter
        " return p.length > 5 && p.every(e => /\\[\\d+\\]/.test(e.textContent)) }",
        timeout=240_000,
    )
    assert cells.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    shown = " ".join(cells.locator(".jp-OutputArea-output").all_text_contents())  # also of cells that are scrolled out of sight
    assert "This machine is ready." in shown and "exact match, share with 95 % interval" in shown
