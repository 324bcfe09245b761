"""A run that schema version 5 wrote is read, reported, and its leakage counted from one floor an exposure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
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
    assert "judge_reid_top1" in header
    assert "could_gain_db" not in header


def test_what_it_lacks_is_nan() -> None:
    run = RunFolder.open(STORED)
    cells, images = run.cells(), run.images()
    assert list(cells.columns) == [c.name for c in CELL_COLUMNS]
    assert list(images.columns) == [c.name for c in IMAGE_COLUMNS]
    assert len(cells[cells["status"] == "done"]) == 7
    assert cells["could_gain_db"].isna().all()
    assert images["permuted_psnr_db"].isna().all()


def test_what_its_attackers_may_gain_is_taken_as_unknown() -> None:
    run = load_runs([RunFolder.open(STORED)])[0]
    cells = run.cells.copy()
    cells.loc[cells["attack"] == "slow", "verdict"] = "inconclusive"
    plain = point_rows(type(run)(run.folder, run.label, run.manifest, run.suite, cells, run.images))[0]
    assert plain["verdict"] == "inconclusive"
    assert "slow at" in plain["reason"]
    assert "an unknown amount, taken as 3.0 dB" in plain["reason"]


def test_its_leakage_is_counted_anew() -> None:
    stored = RunFolder.open(STORED)
    run = load_runs([stored])[0]
    # Of one floor there is nothing to choose, so that all stays.
    assert run.images["leakage"].tolist() == pytest.approx(stored.images()["leakage"].tolist(), nan_ok=True)
    for name in ("leakage", "leakage_lo", "leakage_hi"):
        assert run.cells[name].tolist() == pytest.approx(stored.cells()[name].tolist(), nan_ok=True), name


def test_of_two_floors_one_counts(tmp_path: Path) -> None:
    stored = RunFolder.open(STORED)
    cells, images, manifest = stored.cells(), stored.images(), stored.manifest()
    manifest["attacks"]["odd"]["floor"] = True
    images.loc[images["attack"] == "odd", "psnr_db"] = 10.0 + np.tile([2.0, -1.0], 5)
    old = RunFolder(tmp_path / "old")
    old.write_manifest(manifest)
    old.write_tables(cells.to_dict("records"), images.to_dict("records"))
    run = load_runs([old])[0]
    chosen = (run.images["operating_point"] == "plain") & (run.images["attack"] == "sharp")
    sharp, floor = run.images[chosen], np.tile([12.0, 9.0], 5)
    assert sharp["leakage"].tolist() == pytest.approx((sharp["psnr_db"] - floor).tolist())
    told = run.cells[(run.cells["operating_point"] == "plain") & (run.cells["attack"] == "sharp")].iloc[0]
    expected = mean_interval(sharp["psnr_db"].to_numpy() - floor, sharp["group"].to_numpy(), bootstrap_streams(0))
    assert (told["leakage"], told["leakage_lo"], told["leakage_hi"]) == pytest.approx(expected[:3])


def test_it_is_reported(tmp_path: Path) -> None:
    run = RunFolder.open(STORED)
    assert any(path.suffix == ".html" for path in write_html([run], tmp_path))
    assert any(path.suffix == ".md" for path in write_markdown([run], tmp_path))
