"""The section against SNR, what it groups, and the link's costs in the operating-point table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import Suite
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.figures.against_snr import against_snr, paths, snr_lines
from leakgauge.reports.figures.figures import snr_plots
from leakgauge.reports.figures.palette import SETTINGS, marks
from leakgauge.reports.tables.tables import points_grid, threat_models_grid
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown

MakeRun = Callable[..., RunFolder]


def suite_of(channels: list[dict[str, Any]], **changes: Any) -> Suite:
    return Suite.model_validate(
        {
            "name": "sweep",
            "task": "toy",
            "operating_points": [{"name": "plain"}, {"name": "merged"}],
            "attacks": ["flat", "slow", "sharp"],
            "channels": channels,
            **changes,
        }
    )


def channels_of(name: str, snrs: list[float], **options: Any) -> list[dict[str, Any]]:
    return [{"label": f"{name}_{snr}{''.join(options)}", "name": name, "snr_db": snr, **options} for snr in snrs]


SWEEP = suite_of([*channels_of("air", [10, -5, 0]), *channels_of("wire", [0, 10]), {"label": "i", "name": "ideal"}])


def rows_of(suite: Suite, model: str = "server") -> list[dict[str, Any]]:
    number = {"strongest_leakage": 1.0, "quality": 0.5, "channel_uses": 10.0, "verdict": "conclusive"}
    return [
        {
            **number,
            "operating_point": point.name,
            "channel": channel.label,
            "threat_model": model,
            "snr_db": channel.plugin.options.get("snr_db", float("nan")),
        }
        for channel in suite.channels
        for point in suite.operating_points
    ]


def test_lines_are_grouped_by_point_and_plug_in_and_sorted() -> None:
    lines = snr_lines(SWEEP, rows_of(SWEEP), "server")
    assert [(line.point, line.path) for line in lines] == [
        ("plain", "air"),
        ("merged", "air"),
        ("plain", "wire"),
        ("merged", "wire"),
    ]
    assert [row["snr_db"] for row in lines[0].rows] == [-5, 0, 10]
    assert snr_lines(SWEEP, rows_of(SWEEP), "other") == []


def test_two_snrs_make_no_curve() -> None:
    suite = suite_of([*channels_of("air", [0, 10]), *channels_of("wire", [5, 15])])
    assert snr_lines(suite, rows_of(suite), "server") == []


def test_channels_of_one_plug_in_with_other_options_are_other_paths() -> None:
    suite = suite_of([*channels_of("air", [0, 10]), *channels_of("air", [0, 10], kind="rician")])
    assert list(dict.fromkeys(paths(suite).values())) == ["air (no options)", "air (kind rician)"]


def test_an_unscored_value_leaves_a_gap_and_is_named() -> None:
    rows = rows_of(SWEEP)
    rows[0]["strongest_leakage"] = float("nan")
    with mpl.rc_context(SETTINGS):
        figure, missing = against_snr(snr_lines(SWEEP, rows, "server"), marks(["plain", "merged"], "plain"))
    assert missing == ["plain over air"]
    assert len(figure.axes) == 3


@pytest.fixture(scope="module", autouse=True)
def _no_other_figures() -> Iterator[None]:
    """Figures of other sections, which other tests are about, are not drawn: each takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leakgauge.reports.figures.figures.plots", lambda run: [])
        yield


@pytest.fixture(scope="module")
def sweep(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "sweep", SWEEP, lost_tokens=1.5)


@pytest.fixture(scope="module")
def page(sweep: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_html([sweep], tmp_path_factory.mktemp("page"))[0].read_text(encoding="utf-8")


def test_the_section_appears_with_three_snrs(sweep: RunFolder, page: str, tmp_path: Path) -> None:
    assert '<h3 id="run1-snr">Against SNR</h3>' in page
    assert page.count('id="run1-snr1-title"') == 1
    assert "path wire" in page
    text = write_markdown([sweep], tmp_path)[0].read_text(encoding="utf-8")
    assert "### Against SNR" in text
    assert (tmp_path / "figures" / "sweep-snr-server.svg").is_file()


def test_the_section_does_not_appear_without(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "toy")
    assert "Against SNR" not in write_html([run], tmp_path)[0].read_text(encoding="utf-8")
    assert "Against SNR" not in write_markdown([run], tmp_path)[0].read_text(encoding="utf-8")
    loaded = load_runs([run])[0]
    assert snr_plots(loaded) == []


def test_costs_of_the_link_are_shown(sweep: RunFolder, page: str, make_run: MakeRun, tmp_path: Path) -> None:
    loaded = load_runs([sweep])[0]
    grid = points_grid(loaded, point_rows(loaded))
    row = dict(zip((heading.text for heading in grid.headings), grid.rows[0], strict=True))
    shown = {name: row[name].text for name in ("Lost tokens", "Side bytes", "Channel uses", "Air time")}
    assert shown == {"Lost tokens": "1.5", "Side bytes": "27", "Channel uses": "128", "Air time": "0.13"}
    assert "bandwidth of 1 MHz" in page
    whole = load_runs([make_run(tmp_path / "whole")])[0]
    assert "Lost tokens" not in [heading.text for heading in points_grid(whole, point_rows(whole)).headings]


def test_the_observer_and_its_channel_are_shown(make_run: MakeRun, tmp_path: Path) -> None:
    spy = {"name": "spy", "observer": "eavesdropper", "channel": {"name": "air", "snr_db": -3}}
    suite = suite_of(channels_of("air", [0, 5, 10]), threat_models=[{"name": "server"}, spy])
    loaded = load_runs([make_run(tmp_path / "spied", suite)])[0]
    answers = {row[0].text: [value.text for value in row[1:]] for row in threat_models_grid(loaded).rows}
    assert answers["Observer: whose view the attacker has"] == ["server", "eavesdropper"]
    assert answers["Channel that the observer hears"] == ["the server's", "air (snr_db -3)"]
    assert answers["Access to the victim"] == ["query", "none"]
    drawn = snr_plots(loaded)
    assert [plot.place for plot in drawn] == ["Threat model server", "Threat model spy"]
    assert "air (snr_db -3)" in drawn[1].caption
