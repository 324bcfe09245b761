"""The list of runs: headline numbers of those that can be read, the reason where one cannot."""

from __future__ import annotations

import pytest
from simulated_runs import Simulation
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.errors import StoreError
from leakgauge.reports.analysis.run_list import find_runs, runs_data, runs_grid


def test_every_run_has_its_row(tmp_path):
    Simulation(shift=-3.0).write(tmp_path / "first")
    Simulation(verdict="inconclusive").write(tmp_path / "deep" / "second")
    Simulation().write(tmp_path / "broken")
    (tmp_path / "broken" / "run.json").write_text('{"schema_version": 99}')
    grid = runs_grid(tmp_path)
    rows = {row[0].text: row for row in grid.rows}
    assert list(rows) == ["broken", "deep/second", "first"]
    assert "version 99 is unknown" in rows["broken"][2].detail
    columns = [heading.text for heading in grid.headings]
    first = dict(zip(columns, rows["first"], strict=True))
    assert first["Least leaks"].detail.startswith("merged [")
    assert first["Inconclusive"].text == "0"
    assert dict(zip(columns, rows["deep/second"], strict=True))["Inconclusive"].text == "2"


@pytest.mark.parametrize("verdict", ["inconclusive", "lower bound"])
def test_what_leaks_least_is_no_point_without_a_verdict(tmp_path, verdict):
    """An attack that did not get far is no merit of the defense."""
    run = Simulation(shift=-3.0).write(tmp_path / "run")
    cells = run.cells()
    inconclusive = (cells["operating_point"] == "merged") & (cells["attack"] == "sharp")
    rows = cells.assign(verdict=cells["verdict"].mask(inconclusive, verdict)).to_dict("records")
    run.write_tables(rows, run.images().to_dict("records"))
    Simulation(verdict=verdict).write(tmp_path / "without")
    grid = runs_grid(tmp_path)
    place = [heading.text for heading in grid.headings].index("Least leaks")
    least = {row[0].text: row[place] for row in grid.rows}
    assert least["run"].detail.startswith("plain [")
    assert least["without"].text == "unscored"


def test_what_leaks_least_is_no_point_that_is_given_away_whole(tmp_path):
    """It is conclusive, and yet in decibels only bounded from below."""
    run = Simulation(shift=-3.0).write(tmp_path / "run")
    cells = run.cells()
    chosen = (cells["operating_point"] == "merged") & (cells["attack"] == "sharp")
    cells.loc[chosen, ["verdict", "psnr_db", "psnr_db_lo"]] = "inconclusive", 45.0, 44.0
    run.write_tables(cells.to_dict("records"), run.images().to_dict("records"))
    assert {row["verdict"] for row in runs_data(tmp_path)[0]["operating_points"]} == {"conclusive"}
    grid = runs_grid(tmp_path)
    place = [heading.text for heading in grid.headings].index("Least leaks")
    assert grid.rows[0][place].detail.startswith("plain [")


def test_nothing_to_list(tmp_path):
    with pytest.raises(StoreError, match="no run in it"):
        find_runs(tmp_path)
    with pytest.raises(StoreError, match="no such folder"):
        find_runs(tmp_path / "none")


def test_the_command_line(tmp_path):
    Simulation().write(tmp_path / "one")
    result = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "one" in result.output
    assert "simulated" in result.output
