"""Tokens with their labels, and tokens per word. Explained in lesson 04."""

from __future__ import annotations

import html
from itertools import groupby
from typing import Sequence

from helpers.evaluation import Interval

from .chart import BLUE, Chart

TRAINED = "trained"
STYLES = {True: f"background:{BLUE};color:#ffffff;font-weight:bold;border:1px solid {BLUE}", False: "background:#ffffff;color:#333333;border:1px dotted #767676"}


class TokenStrip:
    """Tokens in their order, in runs of the same state: a table in a notebook, the same table as text elsewhere.

    The state stands in words at the start of each run, so nothing is told by colour alone.
    """

    def __init__(self, tokens: Sequence[str], states: Sequence[str]) -> None:
        if len(tokens) != len(states) or not len(tokens):
            raise ValueError(f"token_strip: expected one state per token, got {len(tokens)} tokens and {len(states)} states. Fix: pass two lists of the same length.")
        visible = [token.replace("\n", "\u21b5") for token in tokens]
        self.runs = [(state, [token for token, _ in run]) for state, run in groupby(zip(visible, states), key=lambda pair: pair[1])]

    def __repr__(self) -> str:
        width = max(len(state) for state, _ in self.runs)
        return "\n".join(f"{state:<{width}} {len(run):>4}  {'·'.join(run)}" for state, run in self.runs)

    def _repr_html_(self) -> str:
        lines = ["<table><tr><th>the loss</th><th>tokens</th><th style='text-align:left'>text, one box a token</th></tr>"]
        for state, run in self.runs:
            style = STYLES[state == TRAINED]
            boxes = "&#8203;".join(f"<span style='{style};white-space:pre-wrap'>{html.escape(token)}</span>" for token in run)
            lines.append(f"<tr><th>{html.escape(state)}</th><td>{len(run)}</td><td style='text-align:left'>{boxes}</td></tr>")
        return "".join(lines) + "</table>"


def token_strip(tokens: Sequence[str], states: Sequence[str]) -> TokenStrip:
    """Show what happens to each token: `tokens` as text, `states` such as "masked" and "trained" (drawn in bold on blue), both shape (tokens,).

    A line break inside a token is shown as an arrow. Raises ValueError for no tokens, or another number of states than of tokens.
    """
    return TokenStrip(tokens, states)


def fertility_bars(counts: dict[str, Interval], title: str) -> Chart:
    """Tokens per word of each language, as bars with their intervals as whiskers, the value written beside each.

    Raises ValueError for no language.
    """
    if not counts:
        raise ValueError("fertility_bars: expected at least one language, got none. Fix: pass language -> Interval.")
    figure = Chart(figsize=(7, 0.6 * len(counts) + 1.2), layout="constrained")
    axes = figure.subplots()
    for row, (name, found) in enumerate(counts.items()):
        axes.barh(row, found.estimate, color=BLUE, height=0.55)
        axes.errorbar(found.estimate, row, xerr=[[max(found.estimate - found.low, 0)], [max(found.high - found.estimate, 0)]], color="black", capsize=4)
        axes.text(found.high * 1.01 + 0.1, row, f"{found.estimate:.1f}", va="center", fontsize=11)
    axes.set(yticks=range(len(counts)), yticklabels=list(counts), xlim=(0, 1.12 * max(found.high for found in counts.values())),
             xlabel="tokens per word (whiskers: 95 % interval over sentences)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, wrap=True)
    figure.numbers = "; ".join(f"{name} {found}" for name, found in counts.items())
    return figure
