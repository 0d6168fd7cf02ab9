"""Figures say in words what they draw, and refuse what they cannot draw."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers import plots
from helpers.evaluation import Interval


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


def test_score_curves_draw_each_point_with_its_interval_and_name_it():
    points = [(10, Interval(0.2, 0.1, 0.3)), (100, Interval(0.5, 0.4, 0.7))]
    figure = plots.score_curves({"fixed": points, "nearest": points[:1]}, "It grows", x="tokens", log=True)
    axes = figure.axes[0]
    lines = [c.lines[0] for c in axes.containers]
    assert [list(map(list, zip(line.get_xdata(), line.get_ydata()))) for line in lines] == [[[10, 0.2], [100, 0.5]], [[10, 0.2]]]
    whiskers = axes.containers[0].lines[2][0].get_segments()
    assert [(round(s[0][1], 6), round(s[1][1], 6)) for s in whiskers] == [(0.1, 0.3), (0.4, 0.7)]
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 2, "told apart without colour"
    assert axes.get_xscale() == "log" and repr(figure).startswith("[figure] It grows (fixed: 10 0.200 [0.100, 0.300], 100 0.500")


@pytest.mark.parametrize("number", [0, 7])
def test_score_curves_refuse_more_series_than_they_can_tell_apart(number):
    with pytest.raises(ValueError, match=f"expected one to 6 series, got {number}. Fix"):
        plots.score_curves({str(n): [(1, Interval(0.5, 0.4, 0.6))] for n in range(number)}, "x", x="k")


def test_the_reliability_curve_draws_the_filled_bins_of_each_system():
    from helpers.evaluation import calibration

    found = {"careful": calibration([0.2, 0.3, 0.9], [0, 1, 1], bins=2), "sure": calibration([0.9] * 4, [1, 0, 0, 0], bins=2)}
    figure = plots.reliability_curve(found, "Too sure")
    diagonal, careful, sure = figure.axes[0].lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    assert careful.get_xdata().tolist() == pytest.approx([0.25, 0.9]) and careful.get_ydata().tolist() == [0.5, 1]
    assert sure.get_xdata().tolist() == pytest.approx([0.9]) and sure.get_ydata().tolist() == [0.25], "an empty bin is no point"
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}) == 3
    assert {t.get_text() for t in figure.axes[0].texts} == {"2", "1", "4"} and "sure: error 0.65; said 0.90 right 0.25 in 1.00 of rows" in repr(figure)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_power_curve_draws_and_names_every_point():
    figure = plots.power_curve({10: 200, 5: 800, 2: 5000}, "Small differences need many rows", have=128)
    line, across = figure.axes[0].lines
    assert list(line.get_xdata()) == [2, 5, 10] and list(line.get_ydata()) == [5000, 800, 200] and set(across.get_ydata()) == {128}
    assert "5 points 800 rows" in repr(figure) and "you have 128" in [t.get_text() for t in figure.axes[0].texts]


@pytest.mark.parametrize("call", [
    lambda: plots.reliability_curve({}, "x"), lambda: plots.reliability_curve(dict.fromkeys("abcd"), "x"), lambda: plots.power_curve({}, "x"),
])
def test_pictures_of_nothing_are_refused(call):
    with pytest.raises(ValueError, match="expected.*got.*Fix"):
        call()


def test_run_curves_draw_each_point_and_mark_a_step():
    figure = plots.run_curves({"training": [(1, 2.0), (2, 0.5)], "validation": [(2, 1.5)]}, "It turns", mark=(2, "kept"))
    lines = [list(zip(line.get_xdata(), line.get_ydata())) for line in figure.axes[0].lines]
    assert lines[:2] == [[(1, 2.0), (2, 0.5)], [(2, 1.5)]] and [x for x, _ in lines[2]] == [2, 2]
    assert figure.numbers == "training: first 2.00, last 0.50; validation: first 1.50, last 1.50"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_speed_dots_draw_every_repeat_and_name_the_median():
    figure = plots.speed_dots({"plain": [100, 120, 110], "recipe": [300, 200, 250]}, "Faster")
    axes = figure.axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[100, 120, 110], [300, 200, 250]]
    assert [bar.get_width() for bar in axes.patches] == [110, 250] and figure.numbers == "plain: median 110; recipe: median 250"


@pytest.mark.parametrize("call", [
    lambda: plots.run_curves({}, "x"), lambda: plots.speed_dots({}, "x"), lambda: plots.speed_dots({"plain": []}, "x"),
])
def test_figures_of_lesson_07_refuse_what_they_cannot_draw(call):
    with pytest.raises(ValueError, match="expected .* Fix: "):
        call()
