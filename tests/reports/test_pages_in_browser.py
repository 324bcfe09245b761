"""The pages of several runs and of a gate, opened in a browser: they fit, all of them is named, and it can be read."""

from __future__ import annotations

import pytest
from browser import LOW_CONTRAST, NAMELESS, chromium, opened
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.gate.baseline import baseline_of, write_baseline
from leakgauge.reports.writers.html import write_html


@pytest.fixture(scope="module")
def folders(make_run, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [make_run(place / name) for name in ("one", "two", "three")]


@pytest.fixture(scope="module")
def pages(folders, tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    write_baseline(baseline_of(load_runs(folders[:1])[0]), place / "base.json")
    (place / "limits.yaml").write_text("minimum_images: 2\nabsolute: [{measure: leakage, at_most: -100.0}]\n")
    options = ["--baseline", place / "base.json", "--limits", place / "limits.yaml", "--html", place / "gate.html"]
    CliRunner().invoke(app, [str(one) for one in ("gate", folders[0].path, *options)])
    return {"runs": write_html(folders, place / "runs")[0], "gate": place / "gate.html"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.mark.parametrize("name", ["runs", "gate"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_it_fits_is_named_and_can_be_read(browser, pages, name, width, scheme):
    with opened(browser, pages[name], width, color_scheme=scheme) as found:
        assert found.overflow() <= 0
        assert found.page.evaluate(NAMELESS) == []
        assert found.page.evaluate(LOW_CONTRAST) == []
        found.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert found.overflow() <= 0
        assert found.page.locator(".sidebyside img").count() > 0


def test_every_run_shows_the_same_images_before_anything_is_scrolled(browser, pages):
    with opened(browser, pages["runs"], 1280, 800) as found:
        strips = found.page.locator("table.first .strip")
        shown = [strips.nth(row).locator("img").count() for row in range(strips.count())]
        assert shown[0] == 3, "the originals"
        assert shown.count(3) >= 4, "and what every run rebuilds of them"
        assert strips.nth(3).bounding_box()["y"] < 800
