"""Figures for papers: as wide as asked, type no smaller than papers ask for, refusals in one line."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from simulated_runs import simulated
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import Setting, load_runs
from leakgauge.reports.figures.paper_figures import DPI, inches, paper_frontier, paper_gallery, save_figure, setting_of

SETTING = Setting("ideal", "server")
SMALLEST_POINTS = 6.0


@pytest.fixture(scope="module")
def folder(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def run(folder):
    return load_runs([folder])[0]


@pytest.mark.parametrize(
    ("width", "expected"), [("3.3in", 3.3), ("84mm", 84 / 25.4), ("8.4 cm", 8.4 / 2.54), ("240pt", 240 / 72.27)]
)
def test_widths_are_read_in_the_units_of_papers(width, expected):
    assert inches(width) == pytest.approx(expected)


@pytest.mark.parametrize("width", ["84", "in", "-3in", "3,3in", "nanin", "1e9in", "0in", "0.2in", "900cm", "3.3in;"])
def test_what_is_no_width_is_refused(width):
    with pytest.raises(ConfigError) as caught:
        inches(width)
    assert "--width" in str(caught.value)


@pytest.mark.parametrize("draw", [paper_frontier, paper_gallery])
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_figures_are_as_wide_as_asked_and_the_same_every_time(run, tmp_path, draw, kind):
    written = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{kind}"
        save_figure(draw(run, SETTING, 3.3), path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    if kind == "png":
        assert Image.open(io.BytesIO(written[0])).width == round(3.3 * DPI)
    if kind == "svg":
        assert float(re.search(rb'width="([\d.]+)pt"', written[0])[1]) == pytest.approx(3.3 * 72)
    if kind == "pdf":
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", written[0])
        assert float(box[1]) == pytest.approx(3.3 * 72)


@pytest.mark.parametrize("draw", [paper_frontier, paper_gallery])
def test_type_is_readable_and_inside_the_figure(run, draw):
    figure = draw(run, SETTING, 3.3)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    shown = [text for text in figure.findobj(lambda a: hasattr(a, "get_fontsize")) if text.get_text().strip()]
    assert shown
    for text in shown:
        if not text.get_visible():
            continue
        assert text.get_fontsize() >= SMALLEST_POINTS, text.get_text()
    # Of all that is drawn: ticks past the ends of an axis are not.
    drawn = figure.get_tightbbox(renderer)
    assert drawn.x0 >= -0.01
    assert drawn.x1 <= 3.3 + 0.01


def test_the_frontier_shows_every_scored_point_from_zero_up(run):
    rows = point_rows(run)
    for against, name in (("bytes", "payload_bytes"), ("tokens", "tokens"), ("flops", "gflops_total")):
        axes = paper_frontier(run, SETTING, 3.3, against).axes[0]
        marked = {line.get_label(): line.get_ydata()[0] for line in axes.lines if not line.get_label().startswith("_")}
        assert marked == {row["operating_point"]: row["strongest_leakage"] for row in rows}
        assert axes.get_xlim()[0] == 0
        assert axes.get_ylim()[0] <= 0
        assert max(row[name] for row in rows) > 0


def test_an_inconclusive_point_is_hollow_and_said_to_be_a_bound(run):
    axes = paper_frontier(run, SETTING, 3.3).axes[0]
    faces = {line.get_label(): line.get_markerfacecolor() for line in axes.lines}
    assert faces["merged"] == "white"
    assert faces["plain"] != "white"
    texts = {text.get_text() for text in paper_gallery(run, SETTING, 3.3).texts}
    assert any(text.startswith("merged") and "≥" in text for text in texts)
    assert any(text.startswith("plain") and "≥" not in text for text in texts)


def test_pictures_are_those_of_the_run(run, folder):
    figure = paper_gallery(run, SETTING, 3.3, images=2)
    shown = [image.get_array() for axes in figure.axes for image in axes.images]
    originals = folder.read_images("originals", 10, 8, 8)
    for picture in shown[:2]:
        assert any(np.array_equal(picture, original) for original in originals)


def test_what_cannot_be_drawn_is_refused(run, make_run, tmp_path):
    with pytest.raises(ConfigError, match="no cells at nope"):
        setting_of(run, "nope", None)
    assert setting_of(run, None, "server") == SETTING
    with pytest.raises(ConfigError, match="cannot write"):
        save_figure(paper_frontier(run, SETTING, 3.3), tmp_path / "figure.gif")
    empty = make_run(tmp_path / "empty", status="running")
    empty.write_tables([], [])
    loaded = load_runs([empty])[0]
    for draw in (paper_frontier, paper_gallery):
        with pytest.raises(StoreError):
            draw(loaded, SETTING, 3.3)
    pictureless = simulated(tmp_path / "pictureless")
    with pytest.raises(StoreError, match="no picture"):
        paper_gallery(pictureless, SETTING, 3.3)


def test_the_command_writes_the_file_and_tells_where(folder, tmp_path):
    out = tmp_path / "g.svg"
    args = ["figure", "gallery", str(folder.path), "--width", "84mm", "--out", str(out)]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert out.is_file()
    assert "figure:" in result.output


@pytest.mark.parametrize("change", [["--width", "84"], ["--out", "x.gif"], ["--channel", "nope"]])
def test_the_command_refuses_before_it_writes(folder, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["figure", "frontier", str(folder.path), "--out", "f.pdf", *change])
    assert result.exit_code not in {0, 1} or isinstance(result.exception, ConfigError)
    assert not list(tmp_path.glob("*.pdf"))
    assert not list(tmp_path.glob("*.gif"))
