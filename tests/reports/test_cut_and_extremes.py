"""Leakage by cut layer, the best and worst cases, and the slider's pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import Simulation, simulated, suite_of

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import Suite
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import Setting, load_runs
from leakgauge.reports.analysis.strongest import strongest_rows
from leakgauge.reports.figures.against_cut import _common, cut_lines
from leakgauge.reports.figures.frontier import against_quality, frontier
from leakgauge.reports.figures.palette import marks
from leakgauge.reports.writers.gallery import extreme_cases
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown

SETTING = Setting("ideal", "server")
POINTS = [
    {"name": "plain_cut3", "cut": 3},
    {"name": "plain_cut1", "cut": 1},
    {"name": "merged_cut1", "cut": 1, "reduction": "tome"},
    {"name": "merged_cut3", "cut": 3, "reduction": "tome"},
    {"name": "lone", "cut": 2, "codec": "float16"},
]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    suite = Suite.model_validate({**suite_of().model_dump(), "operating_points": POINTS})
    return simulated(tmp_path_factory.mktemp("cuts") / "run", suite=suite)


def test_points_that_differ_in_nothing_but_the_cut_make_a_line(cuts):
    lines = cut_lines(cuts.suite, point_rows(cuts), SETTING)
    assert {line.name: line.cuts for line in lines} == {"plain": (1, 3), "merged": (1, 3)}
    assert [row["operating_point"] for row in lines[0].rows] == ["plain_cut1", "plain_cut3"]


def test_one_cut_makes_no_curve(tmp_path):
    run = simulated(tmp_path / "run")
    assert cut_lines(run.suite, point_rows(run), SETTING) == []


@pytest.mark.slow
def test_the_figure_is_in_the_page_and_beside_the_markdown(cuts, tmp_path):
    page = write_html([cuts.folder], tmp_path)[0].read_text()
    assert "by cut layer" in page
    assert 'id="run1-cut"' in page
    written = write_markdown([cuts.folder], tmp_path)
    assert {path.suffix for path in written if "-cut-" in path.name} == {".svg", ".pdf"}
    assert "### By cut layer" in (tmp_path / "report.md").read_text()


def test_extremes_are_those_that_leak_most_and_least(make_run, tmp_path):
    run = load_runs([make_run(tmp_path / "run")])[0]
    found = extreme_cases(run, wanted=2)
    leak = strongest_rows(run, "merged", SETTING).set_index("image")["leakage"]
    places = [int(re.search(r"(\d+)$", heading).group(1)) - 1 for heading in found.headings]
    ranked = np.argsort(leak.to_numpy(), kind="stable")
    assert places == [ranked[-1], ranked[-2], ranked[0], ranked[1]]
    assert found.headings[0].startswith("Leaks most")
    assert all(picture.uri for picture in found.strips[0].pictures)


def test_too_few_images_have_no_extremes(make_run, tmp_path):
    assert extreme_cases(load_runs([make_run(tmp_path / "run")])[0], wanted=6) is None


def test_cuts_of_two_digits_leave_no_digit_in_the_name():
    assert _common(["plain_cut10", "plain_cut12"]) == "plain"
    assert _common(["merged_0.90_cut1", "merged_0.90_cut3"]) == "merged_0.90"


def test_a_panel_without_leakage_says_so(tmp_path):
    run = simulated(tmp_path / "run", suite=suite_of(attacks=["asked"]), probe=0.5)
    looks = marks(["plain", "merged"], "plain")
    for figure, missing in (
        frontier(point_rows(run), "payload_bytes", "bytes", looks),
        against_quality(point_rows(run), looks),
    ):
        assert any(text.get_text() == "unscored" for text in figure.axes[0].texts)
        assert missing == ["plain", "merged"]


def test_leakage_is_drawn_against_quality(tmp_path):
    run = simulated(tmp_path / "run")
    figure, missing = against_quality(point_rows(run), marks(["plain", "merged"], "plain"))
    assert not missing
    assert {text.get_text() for text in figure.axes[0].texts} >= {"plain", "merged", "best floor"}
    assert "Leakage against quality" in write_html([run.folder], tmp_path)[0].read_text()


@pytest.mark.slow
def test_runs_of_all_schema_versions_share_a_page(tmp_path):
    Simulation().write(tmp_path / "current")
    stored = Path(__file__).parent
    folders = [*(stored / f"schema_{version}" for version in (1, 2, 3, 4, 5)), tmp_path / "current"]
    runs = [RunFolder.open(path) for path in folders]
    assert [run.manifest()["schema_version"] for run in runs] == [1, 2, 3, 4, 5, 6]
    page, *own = write_html(runs, tmp_path)
    assert page.read_text().count('data-label="Run"') >= 6
    assert len(own) == 6
    assert sum(one.read_text().count("unscored") for one in own) > 3


def test_a_grey_square_does_not_head_what_leaks_most(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    leak = strongest_rows(load_runs([folder])[0], "merged", SETTING)["leakage"].to_numpy()
    first = int(np.argsort(leak, kind="stable")[-1])
    sheet = folder.read_images("originals", 10, 8, 8).copy()
    sheet[first] = 128
    folder.write_images("originals", sheet)
    headings = extreme_cases(load_runs([folder])[0], wanted=2).headings
    assert f"Leaks most: image {first + 1}" not in headings
    assert len(headings) == 4
