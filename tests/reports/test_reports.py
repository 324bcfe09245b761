"""The writers, over a small made-up run (see conftest.py)."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leakgauge.harness.errors import StoreError
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.values.columns import SCORE_NAMES
from leakgauge.reports.analysis.operating_points import POINT_COLUMNS, operating_points, point_rows
from leakgauge.reports.analysis.run import Setting, load_runs
from leakgauge.reports.analysis.strongest import strongest_rows
from leakgauge.reports.analysis.summary import summarise
from leakgauge.reports.notation import number
from leakgauge.reports.tables.pipe_table import escape
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown
from leakgauge.reports.writers.page_scripts import policy, vega_script
from leakgauge.reports.writers.tabular import write_csv

SCRIPT = "<script>alert(1)</script>"
N = 10
ATTACKS = ("flat", "slow", "sharp", "odd")
SETTING = Setting("ideal", "server")
MakeRun = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "toy-run")


@pytest.fixture(scope="module")
def page(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_html([run], tmp_path_factory.mktemp("html"))[0].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_markdown([run], tmp_path_factory.mktemp("markdown"))[0]


class _Reader(HTMLParser):
    """Collects what a page would load, its ids, and whether tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "data"}:
                (self.targets if (value or "").startswith("#") else self.loads).append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in {"meta", "img", "input", "br", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_loads_nothing_and_is_well_formed(page: str) -> None:
    reader = _Reader()
    reader.feed(page)
    assert not reader.open
    assert reader.loads
    assert all(load.startswith("data:image/png;base64,") for load in reader.loads)
    # Namespaces are names; under the page's policy nothing could be loaded from there.
    own = page.replace(vega_script(), "").replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in own
    assert "https://" not in own
    assert "@import" not in own
    assert not re.search(r"url\((?!#|data:image/webp;base64,)", own)
    assert len(reader.ids) == len(set(reader.ids))
    assert {target[1:] for target in reader.targets} <= set(reader.ids)


def test_names_are_text_never_markup(page: str, markdown: Path) -> None:
    assert SCRIPT not in page
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == page.count("<script>") == page.count("sha256-")
    assert policy(scripts) in html.unescape(page)
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        assert json.loads(data)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    text = markdown.read_text(encoding="utf-8")
    assert "<script" not in text.replace("`" * 3, "")
    assert "a \\| b" in text


def test_every_point_attack_and_state_is_shown(page: str, markdown: Path) -> None:
    for text in (page, markdown.read_text(encoding="utf-8")):
        for name in ("plain", "merged", *ATTACKS, "unscored", "failed", "inconclusive", "not converged: still gaining"):
            assert name in text, name
        assert "leakgauge run small --out here" in text
        assert "c0ffee" in text
        for grant in ("merge map", "channel realisation", "Access to the victim", "auxiliary images", "adaptive"):
            assert grant in text, grant
    assert not re.search(r">\s*nan\s*<", page, re.IGNORECASE)


def test_markdown_tables_are_rectangular_and_links_exist(markdown: Path) -> None:
    text = markdown.read_text(encoding="utf-8")
    width = 0
    for line in text.splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line))
        assert not bars or not width or bars == width, line
        width = bars
    links = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert links
    for link in links:
        assert (markdown.parent / link).is_file()
        assert (markdown.parent / link).with_suffix(".pdf").is_file()


def test_the_strongest_attack_reaches_what_the_best_cell_does(run: RunFolder) -> None:
    loaded = load_runs([run])[0]
    for point in ("plain", "merged"):
        best = strongest_rows(loaded, point, SETTING)
        assert len(best) == N
        assert "flat" not in set(best["attack"])
        cells = loaded.cells[(loaded.cells["operating_point"] == point) & (loaded.cells["attack"] != "flat")]
        assert best["psnr_db"].mean() == pytest.approx(cells["psnr_db"].max())
        assert best["leakage"].mean() == pytest.approx(cells["leakage"].max())
        assert best["ssim"].mean() == pytest.approx(cells["ssim"].max())
        assert best["lpips"].mean() == pytest.approx(cells["lpips"].min())
        assert best["oracle_leakage"].mean() > cells["leakage"].max()
        assert best["lpips"].notna().all()


def test_operating_points(run: RunFolder) -> None:
    table = operating_points(run).set_index("operating_point")
    assert list(operating_points(run).columns) == [column.name for column in POINT_COLUMNS]
    assert list(table.index) == ["plain", "merged"]
    assert list(table["verdict"]) == ["conclusive", "inconclusive"]
    assert "sharp is ahead: not converged: still gaining" in table.loc["merged", "reason"]
    assert "odd: failed" in table.loc["merged", "reason"]
    assert table.loc["merged", "payload_share"] == pytest.approx(0.4)
    tokens = table["tokens"]
    assert table.loc["merged", "tokens_share"] == pytest.approx(tokens["merged"] / tokens["plain"])
    assert table.loc["plain", "tokens_share"] == 1
    assert table.loc["merged", "quality_change"] == pytest.approx(-0.3)
    change = table.loc["merged", "strongest_leakage"] - table.loc["plain", "strongest_leakage"]
    assert table.loc["merged", "leakage_change"] == pytest.approx(change)
    assert np.isnan(table.loc["plain", "leakage_change"])
    cell = run.cells().query("operating_point == 'plain' and attack == 'sharp'").iloc[0]
    assert table.loc["plain", ["quality_lo", "quality_hi"]].tolist() == [cell["quality_lo"], cell["quality_hi"]]


def test_summary_claims_nothing_that_an_inconclusive_cell_leaves_open(run: RunFolder) -> None:
    loaded = load_runs([run])[0]
    summary = summarise(loaded, point_rows(loaded))
    assert "1 of 8 cells failed." in summary.cautions
    assert any(text.startswith("1 of 8 cells is inconclusive") for text in summary.cautions)
    (finding,) = summary.findings
    assert "it leaks less" not in finding.text
    assert "at least" in finding.text


def test_planned_cells_without_result_are_shown(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "partial", status="interrupted")
    cells, images = run.cells(), run.images()
    gone = (cells["operating_point"] == "plain") & (cells["attack"] == "slow")
    key = cells.loc[gone, "cell"].iloc[0]
    rows = [cells[~gone].to_dict("records"), images[images["cell"] != key].to_dict("records")]
    run.write_tables(*rows)
    table = operating_points(run).set_index("operating_point")
    assert table.loc["plain", "verdict"] == "inconclusive"
    assert "slow: not run" in table.loc["plain", "reason"]
    page = write_html([run], tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "not run" in page
    assert "interrupted" in page


def test_run_without_any_result_still_renders(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "empty", status="running")
    run.write_tables([], [])
    assert operating_points(run)["verdict"].tolist() == ["inconclusive", "inconclusive"]
    page = write_html([run], tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "no attack was scored" in page


def test_csv(run: RunFolder, tmp_path: Path) -> None:
    points, cells, _ = write_csv([run, run], tmp_path)
    assert (points.name, cells.name) == ("operating_points.csv", "cells.csv")
    frame = pd.read_csv(cells)
    assert set(frame["run"]) == {"toy-run", "toy-run-2"}
    assert len(frame) == 16
    header, line = io.StringIO(cells.read_text(encoding="utf-8")).readlines()[:2]
    assert line.split(",")[header.split(",").index("snr_db")] == ""
    failed = frame[frame["status"] == "failed"]
    assert failed[list(SCORE_NAMES)].isna().all(axis=None)
    assert "NaN" in cells.read_text(encoding="utf-8")


@pytest.mark.slow
def test_same_run_gives_same_bytes(run: RunFolder, tmp_path: Path) -> None:
    for writer in (write_html, write_markdown, write_csv):
        first = writer([run], tmp_path / "a")
        second = writer([run], tmp_path / "b")
        assert [p.name for p in first] == [p.name for p in second]
        for one, other in zip(first, second, strict=True):
            assert one.read_bytes() == other.read_bytes(), one.name


def test_several_runs_in_one_page(run: RunFolder, tmp_path: Path) -> None:
    for page, wanted in zip(write_html([run, run], tmp_path), ("summary", "run1-summary", "run1-summary"), strict=True):
        reader = _Reader()
        reader.feed(page.read_text(encoding="utf-8"))
        assert len(reader.ids) == len(set(reader.ids))
        assert wanted in reader.ids


def test_refusals(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run"):
        write_html([], tmp_path)
    run = make_run(tmp_path / "run")
    run.write_manifest({**run.manifest(), "schema_version": 99})
    for writer in (write_html, write_markdown, write_csv):
        with pytest.raises(StoreError, match="version 99 is unknown"):
            writer([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "unscored"),
        (None, "unscored"),
        (-0.001, "0.00"),
        (-1.5, "\N{MINUS SIGN}1.50"),
        (12345.678, "12,345.68"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_markdown_escape() -> None:
    assert escape("a|b\n<i>*x*_y_`") == "a\\|b &lt;i&gt;\\*x\\*\\_y\\_\\`"
