"""Paired comparisons: differences on the same images, with their interval; sign, order and who is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import Suite
from leakgauge.reports.analysis.run import LoadedRun, Setting, load_runs
from leakgauge.reports.analysis.strongest import image_rows, strongest_rows
from leakgauge.reports.notation import number
from leakgauge.reports.tables.paired import attacks_paired, points_paired
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown

MakeRun = Callable[..., RunFolder]
SETTING = Setting("ideal", "server")
SUITE = {
    "name": "three",
    "task": "toy",
    "operating_points": [{"name": "plain"}, {"name": "merged"}, {"name": "also"}],
    "attacks": ["flat", "slow", "sharp"],
    "metrics": ["psnr_db", "ssim", "lpips"],
}


@pytest.fixture(scope="module")
def three(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    suite = Suite.model_validate(SUITE)
    return load_runs([make_run(tmp_path_factory.mktemp("runs") / "three", suite)])[0]


def test_points_are_compared_image_by_image(three: LoadedRun) -> None:
    grid = points_paired(three, SETTING)
    assert grid is not None
    assert [heading.text for heading in grid.headings] == ["PSNR of", "minus plain", "minus merged", "minus also"]
    best = [strongest_rows(three, point, SETTING)["psnr_db"] for point in ("plain", "merged")]
    assert grid.rows[0][1].text == ""
    assert grid.rows[0][2].text == number((best[0] - best[1]).mean(), 2, signed=True)
    assert grid.rows[1][1].text == number((best[1] - best[0]).mean(), 2, signed=True)
    assert all("," in value.detail for row in grid.rows for value in row[1:] if value.text)


def test_the_best_attack_comes_first_and_floors_are_left_out(three: LoadedRun) -> None:
    grid = attacks_paired(three)
    assert grid is not None
    plain = [row for row in grid.rows if row[0].text == "plain"]
    means = {
        name: image_rows(three, "plain", SETTING, [name]).set_index("image")["psnr_db"] for name in ("slow", "sharp")
    }
    order = sorted(means, key=lambda name: -means[name].mean())
    assert [row[1].text for row in plain] == order
    assert plain[0][3].text == "best here"
    assert plain[1][3].text == number((means[order[1]] - means[order[0]]).mean(), 2, signed=True)


def test_two_points_and_one_attack_need_no_comparison(make_run: MakeRun, tmp_path: Path) -> None:
    suite = Suite.model_validate({**SUITE, "operating_points": [{"name": "plain"}, {"name": "merged"}]})
    assert points_paired(load_runs([make_run(tmp_path / "two", suite)])[0], SETTING) is None
    lone = Suite.model_validate({**SUITE, "attacks": ["flat", "sharp"]})
    assert attacks_paired(load_runs([make_run(tmp_path / "lone", lone)])[0]) is None


def test_both_writers_show_them(three: LoadedRun, tmp_path: Path) -> None:
    page = write_html([three.folder], tmp_path)[0].read_text(encoding="utf-8")
    text = write_markdown([three.folder], tmp_path)[0].read_text(encoding="utf-8")
    for report in (page, text):
        assert "Paired comparisons" in report
        assert "Attack against attack on the same images" in report
