"""A run that schema version 2 wrote is still read, scored columns and all, and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.values.columns import ATTRIBUTES, CELL_COLUMNS, IMAGE_COLUMNS, INTERVALS
from leakgauge.reports.analysis.operating_points import operating_points
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown
from leakgauge.reports.writers.tabular import write_csv

# Written by the conftest of the last commit whose SCHEMA_VERSION was 2, without its pictures and curves.
STORED = Path(__file__).parent / "schema_2"
ADDED_TO_CELLS = [
    "label_agreement",
    *(c.name for c in ATTRIBUTES if c.kind != "text"),
    *(c.name for c in INTERVALS if c.name.startswith(("label_agreement", "attribute"))),
]
ADDED_TO_IMAGES = ["label_agreement", "attribute_correct"]


def test_it_is_a_version_2_run() -> None:
    assert json.loads((STORED / "run.json").read_text(encoding="utf-8"))["schema_version"] == 2
    header = (STORED / "cells.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert not {*ADDED_TO_CELLS, "attribute"} & set(header)
    assert "air_time_ms" in header


def test_missing_numbers_are_nan_and_missing_texts_are_empty() -> None:
    run = RunFolder.open(STORED)
    cells, images = run.cells(), run.images()
    assert list(cells.columns) == [c.name for c in CELL_COLUMNS]
    assert list(images.columns) == [c.name for c in IMAGE_COLUMNS]
    assert cells[ADDED_TO_CELLS].isna().all(axis=None)
    assert images[ADDED_TO_IMAGES].isna().all(axis=None)
    assert set(cells["attribute"]) == {""}
    done = cells[cells["status"] == "done"]
    assert len(done) == 7
    assert len(images) == 70
    assert done[["payload_bytes", "air_time_ms", "psnr_db", "reid_top1"]].notna().all(axis=None)


@pytest.mark.slow
def test_it_is_reported(tmp_path: Path) -> None:
    run = RunFolder.open(STORED)
    table = operating_points(run).set_index("operating_point")
    assert table.loc["plain", "air_time_ms"] == pytest.approx(0.128)
    page = write_html([run], tmp_path)[0].read_text(encoding="utf-8")
    text = write_markdown([run], tmp_path)[0].read_text(encoding="utf-8")
    for report in (page, text):
        assert "Same answer" in report
        assert "By chance" not in report
    csv = pd.read_csv(write_csv([run], tmp_path)[1])
    assert csv["label_agreement"].isna().all()
