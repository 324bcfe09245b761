"""A run that schema version 1 wrote is still read, scored columns and all, and reported; it is not resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS
from leakgauge.reports.analysis.operating_points import operating_points
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown
from leakgauge.reports.writers.tabular import write_csv

# Written by the conftest of the last commit whose SCHEMA_VERSION was 1, without its pictures and curves.
STORED = Path(__file__).parent / "schema_1"
ADDED = ["side_bytes", "air_time_ms", "spectral_efficiency_bits", "lost_tokens"]


def test_it_is_a_version_1_run() -> None:
    assert json.loads((STORED / "run.json").read_text(encoding="utf-8"))["schema_version"] == 1
    header = (STORED / "cells.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert not set(ADDED) & set(header)


def test_missing_columns_are_read_as_nan() -> None:
    run = RunFolder.open(STORED)
    cells, images = run.cells(), run.images()
    assert list(cells.columns) == [c.name for c in CELL_COLUMNS]
    assert list(images.columns) == [c.name for c in IMAGE_COLUMNS]
    for frame in (cells, images):
        assert frame[ADDED].isna().all(axis=None)
    assert set(cells["attribute"]) == {""}
    done = cells[cells["status"] == "done"]
    assert len(done) == 7
    assert len(images) == 70
    assert done[["payload_bytes", "channel_uses", "psnr_db"]].notna().all(axis=None)


def test_it_is_reported(tmp_path: Path) -> None:
    run = RunFolder.open(STORED)
    table = operating_points(run).set_index("operating_point")
    assert table.loc["plain", "payload_bytes"] == 1000
    assert table[ADDED].isna().all(axis=None)
    page = write_html([run], tmp_path)[0].read_text(encoding="utf-8")
    text = write_markdown([run], tmp_path)[0].read_text(encoding="utf-8")
    for report in (page, text):
        assert "unscored" in report
        assert "Lost tokens" not in report
    csv = pd.read_csv(write_csv([run], tmp_path)[1])
    assert csv["air_time_ms"].isna().all()
