"""CSV and Parquet round-trip into pandas, every column with its unit; unscored stays unscored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from simulated_runs import Simulation

from harness.store import RunFolder
from reports.tabular import TABLES, write_csv, write_parquet


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("tables")
    runs = [Simulation(shift=s, lpips=s == 0).write(out / f"run{s}") for s in (0, 1)]
    write_csv(runs, out)
    write_parquet(runs, out)
    return out


@pytest.mark.parametrize("name", ["operating_points", "cells"])
def test_both_formats_hold_the_same(written, name):
    csv, parquet = pd.read_csv(written / f"{name}.csv"), pd.read_parquet(written / f"{name}.parquet")
    assert list(csv.columns) == list(parquet.columns) == [column.name for column in TABLES[name]]
    for column in TABLES[name]:
        if column.kind == "float":
            assert np.allclose(csv[column.name].astype(float), parquet[column.name], equal_nan=True)


def test_every_column_has_its_unit_and_meaning(written):
    columns = pd.read_csv(written / "columns.csv").set_index(["table", "name"])
    for table in TABLES:
        schema = pq.read_schema(written / f"{table}.parquet")
        for field in schema:
            stated = columns.loc[(table, field.name)]
            assert field.metadata[b"meaning"].decode() == stated["meaning"]
            assert stated["meaning"]
    for name in ("psnr_db", "psnr_db_lo", "leakage_hi"):
        assert columns.loc[("cells", name), "unit"] == "dB"


def test_images_of_all_runs_are_there(written):
    images = pd.read_parquet(written / "images.parquet")
    assert images.groupby("run").size().tolist() == [2 * 2 * 60] * 2


def test_unscored_is_no_zero_and_no_blank(written):
    text = (written / "cells.csv").read_text().splitlines()
    header = text[0].split(",")
    row = next(line.split(",") for line in text if line.startswith("run1") and ",sharp," in line)
    assert row[header.index("lpips")] == "NaN"
    assert pd.read_parquet(written / "cells.parquet").query("run == 'run1'")["lpips"].isna().all()


def test_files_repeat(written, tmp_path):
    runs = [RunFolder.open(written / f"run{s}") for s in (0, 1)]
    for path in (*write_csv(runs, tmp_path), *write_parquet(runs, tmp_path)):
        assert path.read_bytes() == (written / path.name).read_bytes()
