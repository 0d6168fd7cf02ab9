"""Buttons to compare two answers side by side, and a static form of the first pair. Explained in lesson 08."""

from __future__ import annotations

from html import escape
from typing import Sequence

import ipywidgets
from IPython.display import display

from helpers.ratings import VERDICTS, Pair, Ratings

LABELS = {"left": "Left is better", "right": "Right is better", "tie": "Equally good", "both bad": "Both are bad"}
BOX = "white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #666; border-radius: 4px; padding: 8px; margin: 4px 0; text-align: left"


class Rating:
    """The view that `rate` makes. `buttons`: verdict -> button, and "back"; `progress`, `pair`, `result`: the HTML that is shown."""

    def __init__(self, pairs: Sequence[Pair], ratings: Ratings, rater: str) -> None:
        if not pairs:
            raise ValueError("rate: expected at least one pair, got none. Fix: make pairs with ratings.pairs.")
        self.pairs, self.ratings, self.rater = list(pairs), ratings, rater
        wide = ipywidgets.Layout(width="auto", min_width="9em")
        self.buttons = {verdict: ipywidgets.Button(description=LABELS[verdict], tooltip=f"Vote: {LABELS[verdict].lower()}", layout=wide) for verdict in VERDICTS}
        self.buttons["back"] = ipywidgets.Button(description="Back one pair", tooltip="Go back one pair and vote again", layout=wide)
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._back() if name == "back" else self._vote(name))
        self.progress, self.pair, self.result = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.widget = ipywidgets.VBox([self.progress, self.pair, ipywidgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"}), self.result])
        self.position, self.message = self._first_open(), ""
        self._show()

    @property
    def current(self) -> Pair | None:
        """The pair that is shown, None after the last one."""
        return self.pairs[self.position] if self.position < len(self.pairs) else None

    def _first_open(self) -> int:
        rated = {vote.key for vote in self.ratings.votes()}
        return next((n for n, pair in enumerate(self.pairs) if pair.key(self.rater) not in rated), len(self.pairs))

    def _vote(self, verdict: str) -> None:
        if self.current is None:
            return
        try:
            self.ratings.add(self.current, verdict, self.rater)
        except OSError as error:
            self.message = f"The vote was not stored: {error}. Fix: make room on the disk, or choose another file, and vote again."
        else:
            self.message = f"Stored: pair {self.position + 1}, {LABELS[verdict].lower()}."
            self.position += 1
        self._show()

    def _back(self) -> None:
        self.position = max(self.position - 1, 0)
        self.message = f"Back at pair {self.position + 1}: a new vote replaces the old one."
        self._show()

    def _show(self) -> None:
        pair, notes = self.current, self.ratings.read()[1]
        done = pair is None
        where = f"All {len(self.pairs)} pairs are rated." if done else f"Pair {self.position + 1} of {len(self.pairs)}"
        self.progress.value = f"<b>{escape(where)}</b>"
        self.pair.value = "" if done else _sides(pair)
        lines = [self.message, *notes] + (str(self.ratings.summary()).splitlines() if done else [])
        self.result.value = '<div role="status" aria-live="polite">' + "<br>".join(escape(line) for line in lines if line) + "</div>"
        for name, button in self.buttons.items():
            button.disabled = self.position == 0 if name == "back" else done

    def _ipython_display_(self) -> None:
        text = f"Buttons to rate {len(self.pairs)} pairs. They need a running kernel: run this cell."
        view = {"model_id": self.widget.model_id, "version_major": 2, "version_minor": 0}
        display({"application/vnd.jupyter.widget-view+json": view, "text/plain": text}, raw=True)
        display({"text/html": static(self.pairs), "text/plain": static_text(self.pairs)}, raw=True)


def rate(pairs: Sequence[Pair], ratings: Ratings, rater: str = "me") -> Rating:
    """Buttons to compare two answers side by side; every vote goes to the file of `ratings` at once.

    The names of the systems are not shown until the last pair is rated. It starts at the first pair that this rater has no vote on,
    so closing the notebook loses nothing. All buttons can be reached with Tab and pressed with Space; what happened is said in text.
    Below stands the first pair as plain text, for where no kernel runs. Raises ValueError when there is no pair. Lesson 08.
    """
    return Rating(pairs, ratings, rater)


def static(pairs: Sequence[Pair]) -> str:
    """The first pair as plain HTML, folded."""
    return f"<details><summary>Without buttons: the first of {len(pairs)} pairs</summary>{_sides(pairs[0])}</details>"


def static_text(pairs: Sequence[Pair]) -> str:
    """The first pair as text."""
    first = pairs[0]
    return f"Pair 1 of {len(pairs)}\n\nQuestion:\n{first.question}\n\nLeft:\n{first.left}\n\nRight:\n{first.right}"


def _sides(pair: Pair) -> str:
    """Question and both answers. What a model wrote is text, never markup."""
    block = lambda text: f'<div style="{BOX}">{escape(text) or "<i>(nothing)</i>"}</div>'
    head = f"<b>Question</b>{block(pair.question)}" if pair.question else ""
    cells = "".join(f'<td style="width: 50%; vertical-align: top; text-align: left">{block(text)}</td>' for text in (pair.left, pair.right))
    names = "".join(f'<th scope="col" style="text-align: left">{side}</th>' for side in ("Left", "Right"))
    return f'{head}<table style="width: 100%; table-layout: fixed"><thead><tr>{names}</tr></thead><tbody><tr>{cells}</tr></tbody></table>'
