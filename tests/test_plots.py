"""Figures say in words what they draw, and refuse what they cannot draw."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers import plots


def counts(parts: int) -> pd.DataFrame:
    return pd.DataFrame({"leak": range(1, parts + 1), "noise": range(10, 10 + parts)}, index=[f"part {n}" for n in range(parts)])


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_split_bars_draw_each_count_and_name_it(parts):
    figure = plots.split_bars(counts(parts), "Two problems")
    widths = [[bar.get_width() for bar in container] for container in figure.axes[0].containers]
    assert widths == [[1 + n, 10 + n] for n in range(parts)]
    starts = [bar.get_x() for container in figure.axes[0].containers for bar in container][::2]
    assert starts == [sum(range(1, n + 1)) for n in range(parts)], "the parts of a bar follow one another"
    assert repr(figure).startswith("[figure] Two problems (leak 1") and "noise 10" in repr(figure)
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("parts", [0, 4])
def test_split_bars_refuse_more_parts_than_they_have_patterns(parts):
    with pytest.raises(ValueError, match=f"expected one to three splits, found {parts}. Fix"):
        plots.split_bars(counts(parts), "x")
