"""A run that schema version 5 wrote is still read and reported."""

from __future__ import annotations

import json
from pathlib import Path

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown

# Written by the conftest of the last commit whose SCHEMA_VERSION was 5, without its pictures and curves.
STORED = Path(__file__).parent / "schema_5"


def test_it_is_a_version_5_run() -> None:
    assert json.loads((STORED / "run.json").read_text(encoding="utf-8"))["schema_version"] == 5
    header = (STORED / "cells.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert "warning" in header
    assert "could_gain_db" not in header


def test_what_it_lacks_is_nan() -> None:
    run = RunFolder.open(STORED)
    cells, images = run.cells(), run.images()
    assert list(cells.columns) == [c.name for c in CELL_COLUMNS]
    assert list(images.columns) == [c.name for c in IMAGE_COLUMNS]
    assert len(cells[cells["status"] == "done"]) == 7
    assert cells["could_gain_db"].isna().all()


def test_what_its_attackers_may_gain_is_taken_as_unknown() -> None:
    run = load_runs([RunFolder.open(STORED)])[0]
    cells = run.cells.copy()
    cells.loc[cells["attack"] == "slow", "verdict"] = "inconclusive"
    plain = point_rows(type(run)(run.folder, run.label, run.manifest, run.suite, cells, run.images))[0]
    assert plain["verdict"] == "inconclusive"
    assert "slow at" in plain["reason"]
    assert "an unknown amount, taken as 3.0 dB" in plain["reason"]


def test_it_is_reported(tmp_path: Path) -> None:
    run = RunFolder.open(STORED)
    assert any(path.suffix == ".html" for path in write_html([run], tmp_path))
    assert any(path.suffix == ".md" for path in write_markdown([run], tmp_path))
