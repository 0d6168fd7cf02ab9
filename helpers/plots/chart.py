"""The figure that all plots return, its colours (Okabe and Ito 2008, safe for colour-blind readers) and its text form."""

from __future__ import annotations

import base64
import io

from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#666666"
PINK, RED = "#CC79A7", "#D55E00"
MARKS = ((BLUE, "o", "-"), (RED, "s", "--"), (GREEN, "^", ":"), (PINK, "D", "-."), (ORANGE, "v", (0, (5, 1))), (GREY, "X", (0, (1, 1))))


class Chart(Figure):
    """A matplotlib figure that shows itself in any notebook.

    Its text form is its title, which says the finding, and what it draws in numbers: for screen readers, and for the
    notebook check, which compares texts and no pictures.
    """

    numbers = ""

    def __repr__(self) -> str:
        return f"[figure] {self.axes[0].get_title(loc='left')} ({self.numbers})"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()


def as_png(figure: Chart) -> dict[str, str]:
    """The figure as a display bundle, picture and text."""
    return {"image/png": base64.b64encode(figure._repr_png_()).decode(), "text/plain": repr(figure)}
