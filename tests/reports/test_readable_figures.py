"""What a reader meets: plain numbers on axes, labels clear of the line of the floor, no `at least unscored`."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from simulated_runs import simulated

from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.summary import summarise
from leakgauge.reports.figures.curves import learning_curves
from leakgauge.reports.figures.figures import _bare_svg, _plots, plots
from leakgauge.reports.figures.frontier import frontier
from leakgauge.reports.figures.palette import marks

NAN = float("nan")


def curve_at(level, rise):
    curve = LearningCurve(40)
    for step in range(0, 41, 10):
        curve.add(step, 1.0, level + rise * step / 40)
    return curve


def panel(curve):
    looks = marks(["plain"], "plain")
    cell = {"operating_point": "plain", "verdict": "conclusive"}
    figure = learning_curves({"slow": [(cell, curve)]}, looks, ["plain"])
    FigureCanvasAgg(figure).draw()
    return figure.axes[0]


@pytest.mark.parametrize(("level", "rise"), [(11.8734, 0.0012), (11.8734, 0.0), (25.0, 9.0)])
def test_learning_curves_have_plain_scales_of_at_least_one_decibel(level, rise):
    axes = panel(curve_at(level, rise))
    low, high = axes.get_ylim()
    assert high - low >= max(1.0, rise)
    assert low <= level <= level + rise <= high
    assert axes.yaxis.get_major_formatter().get_offset() == ""
    assert axes.xaxis.get_major_formatter().get_offset() == ""


def test_no_label_lies_on_the_line_of_the_floor_where_there_is_room():
    row = {"channel": "ideal", "threat_model": "server", "quality": 0.8, "quality_lo": 0.7, "quality_hi": 0.9}
    rows = [
        {**row, "operating_point": name, "verdict": "conclusive", "payload_bytes": x, "strongest_leakage": y}
        | {"strongest_leakage_lo": y - 0.2, "strongest_leakage_hi": y + 0.2}
        for name, x, y in (("plain", 1000.0, 9.0), ("merged", 400.0, 0.0), ("other", 700.0, 0.1))
    ]
    figure, _ = frontier(rows, "payload_bytes", "bytes", marks([str(r["operating_point"]) for r in rows], "plain"))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    top = figure.axes[0]
    level = top.transData.transform((0.0, 0.0))[1]
    names = [text for text in top.texts if text.get_text() in {"merged", "other"}]
    assert len(names) == 2
    for text in names:
        box = text.get_window_extent(canvas.get_renderer())
        assert box.y0 > level or box.y1 < level, text.get_text()


@pytest.mark.parametrize("verdict", ["conclusive", "lower bound", "inconclusive"])
def test_what_is_unscored_is_not_at_least_anything(tmp_path, verdict):
    run = simulated(tmp_path / "run")
    rows = [dict(row, verdict=verdict) for row in point_rows(run)]
    level = ("strongest_leakage", "strongest_leakage_lo", "strongest_leakage_hi")
    change = ("leakage_change", "leakage_change_lo", "leakage_change_hi")
    for names in (change, (*level, *change)):
        text = summarise(run, [row | dict.fromkeys(names, NAN) for row in rows]).findings[0].text
        assert "at least unscored" not in text
        assert "unscored above" not in text
        assert "no interval" not in text
        assert ("leakage unscored" in text) == (len(names) > 3)


def test_the_spread_of_leakage_is_drawn_for_every_setting_and_ends_at_its_own_images(tmp_path):
    run = simulated(tmp_path / "run")
    found = [plot for plot in plots(run) if "-spread-" in plot.name]
    assert len(found) == len(run.settings)
    axes = found[0].figure.axes[0]
    low, high = axes.get_ylim()
    assert low == 0
    assert high >= 1
    labels = {line.get_label() for line in axes.lines}
    assert set(run.points_at(run.settings[0])) <= labels


def test_whatever_is_asked_of_a_figure_first_it_is_written_the_same(tmp_path):
    run = simulated(tmp_path / "run")
    one, other = (_plots(run, point_rows(run))[0] for _ in range(2))
    pdf = one.pdf
    assert (other.bare_svg, other.white_svg, other.pdf) == (one.bare_svg, one.white_svg, pdf)
    other.figure.set_layout_engine("none")
    assert _bare_svg(other.figure, "none") != other.bare_svg, "a layout for PDF is another"
    third = _plots(run, point_rows(run))[0]
    assert _bare_svg(third.figure, "white") == one.white_svg
    assert plots(run)[0] is plots(run)[0], "one drawing for all writers"
