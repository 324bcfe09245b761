"""A run that schema version 3 wrote is still read, all but the columns of questions, and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS, KIND_COLUMNS, QUESTION_COSTS
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown

# Written by the conftest of the last commit whose SCHEMA_VERSION was 3, without its pictures and curves.
STORED = Path(__file__).parent / "schema_3"
ADDED = [c.name for c in QUESTION_COSTS]


def test_it_is_a_version_3_run() -> None:
    assert json.loads((STORED / "run.json").read_text(encoding="utf-8"))["schema_version"] == 3
    header = (STORED / "cells.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert not set(ADDED) & set(header)
    assert "attribute_auc" in header


def test_what_it_lacks_is_nan_and_no_question_was_asked() -> None:
    run = RunFolder.open(STORED)
    cells, images = run.cells(), run.images()
    assert list(cells.columns) == [c.name for c in CELL_COLUMNS]
    assert list(images.columns) == [c.name for c in IMAGE_COLUMNS]
    assert cells[ADDED].isna().all(axis=None)
    assert images[ADDED].isna().all(axis=None)
    assert len(cells[cells["status"] == "done"]) == 7
    assert list(run.kinds().columns) == [c.name for c in KIND_COLUMNS]
    assert run.kinds().empty


@pytest.mark.slow
def test_it_is_reported(tmp_path: Path) -> None:
    run = RunFolder.open(STORED)
    for path in (*write_html([run], tmp_path), *write_markdown([run], tmp_path)):
        if path.suffix in {".html", ".md"}:
            assert "kind of question" not in path.read_text(encoding="utf-8").lower()
