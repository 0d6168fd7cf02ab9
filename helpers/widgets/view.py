"""What all explorers share: controls with labels, a result that is said in text, a picture, and a form for where no kernel runs.

Built on `observe`: what a view cannot compute is said in its result, never swallowed. Tests set `.value` without a browser.
"""

from __future__ import annotations

from html import escape
from typing import Any, Callable, Mapping, NamedTuple

import ipywidgets
from IPython.display import display

from helpers import plots

WIDE = {"description_width": "19em"}
NEEDS_KERNEL = "The controls need a running kernel: run this cell."


class Shown(NamedTuple):
    """What a view shows: `text` says the result in a sentence or two, for everybody; `figure` and `html` (markup that is safe) show it."""

    text: str
    figure: plots.Chart | None = None
    html: str = ""


class View:
    """Controls over a pure function. `controls`: name -> widget; `result`: the HTML that says the result; `details`: what stands below it.

    `compute` is called with the values of the controls by name and returns `Shown`; a ValueError from it is shown as the result.
    """

    def __init__(self, task: str, controls: Mapping[str, ipywidgets.Widget], compute: Callable[..., Shown]) -> None:
        self.task, self.controls, self.compute = task, dict(controls), compute
        self.result, self.details = ipywidgets.HTML(), ipywidgets.HTML()
        self._picture: Any = None
        self._held = False
        for control in self.controls.values():
            control.observe(lambda _: self.update(), names="value")
        self.shown = self._computed()
        self.widget = ipywidgets.VBox([ipywidgets.HTML(f"<p><b>Your task.</b> {escape(task)}</p>"), *self._arranged(), self.result, self.details])
        self._show()

    @property
    def text(self) -> str:
        """The result as text."""
        return self.shown.text

    def set(self, **values: Any) -> Shown:
        """Set controls by name, compute once, and return what is shown."""
        self._held = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.update()
        return self.shown

    def update(self) -> None:
        """Compute again from the controls."""
        if self._held:
            return
        self.shown = self._computed()
        self._show()

    def _arranged(self) -> list[ipywidgets.Widget]:
        return list(self.controls.values())

    def _computed(self) -> Shown:
        try:
            return self.compute(**{name: control.value for name, control in self.controls.items()})
        except ValueError as error:  # what a person typed cannot be; the message says how to mend it
            return Shown(str(error))

    def _show(self) -> None:
        self.result.value = f'<div role="status" aria-live="polite" style="white-space: pre-wrap; line-height: 1.4">{escape(self.shown.text)}</div>'
        self.details.value = self._below()
        if self._picture is not None and self.shown.figure is not None:
            self._picture.update(plots.as_png(self.shown.figure), raw=True)

    def _below(self) -> str:
        """What stands below the result; a picture in words too, because JupyterLab shows pictures without a text for screen readers."""
        words = "" if self.shown.figure is None else f"<details><summary>The picture in words</summary><p>{escape(repr(self.shown.figure))}</p></details>"
        return self.shown.html + words

    def _ipython_display_(self) -> None:
        view = {"model_id": self.widget.model_id, "version_major": 2, "version_minor": 0}
        display({"application/vnd.jupyter.widget-view+json": view, "text/plain": f"{self.task}\n{NEEDS_KERNEL}"}, raw=True)
        if self.shown.figure is not None:  # one picture: it stays without a kernel, and follows the controls with one
            self._picture = display(plots.as_png(self.shown.figure), raw=True, display_id=True)
        display(self.static(), raw=True)

    def static(self) -> dict[str, str]:
        """The result of the first settings, folded, for where no kernel runs."""
        body = f'<div style="white-space: pre-wrap">{escape(self.shown.text)}</div>{self._below()}'
        return {"text/html": f"<details><summary>Without a kernel: the result of the first settings</summary>{body}</details>",
                "text/plain": self.shown.text}


def number(label: str, value: float, whole: bool = False) -> ipywidgets.Widget:
    """A field for a number that counts once it is typed to the end."""
    kind = ipywidgets.IntText if whole else ipywidgets.FloatText
    return kind(value=value, description=label, tooltip=label, continuous_update=False, style=WIDE, layout={"width": "32em"})


def choice(label: str, options: Any, value: Any = None) -> ipywidgets.Dropdown:
    """A list to choose from, by keyboard too."""
    found = ipywidgets.Dropdown(options=options, description=label, tooltip=label, style=WIDE, layout={"width": "36em"})
    if value is not None:
        found.value = value
    return found


def check(label: str, value: bool) -> ipywidgets.Checkbox:
    """A box to tick."""
    return ipywidgets.Checkbox(value=value, description=label, tooltip=label, indent=False, layout={"width": "auto"})


def line(label: str, value: str, placeholder: str = "") -> ipywidgets.Text:
    """One line of text."""
    return ipywidgets.Text(value=value, description=label, tooltip=label, placeholder=placeholder, continuous_update=False, style=WIDE,
                           layout={"width": "46em"})


def area(label: str, value: str, rows: int = 3) -> ipywidgets.Textarea:
    """Several lines of text."""
    return ipywidgets.Textarea(value=value, description=label, tooltip=label, rows=rows, continuous_update=False, style=WIDE,
                               layout={"width": "46em"})


def table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table; every cell is text, never markup."""
    heads = "".join(f'<th scope="col" style="text-align: left">{escape(name)}</th>' for name in head)
    lines = ["".join(f'<td style="text-align: left; vertical-align: top">{escape(str(cell))}</td>' for cell in row) for row in rows]
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(f'<tr>{one}</tr>' for one in lines)}</tbody></table>"
