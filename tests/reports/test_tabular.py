"""CSV and Parquet round-trip into pandas, every column with its unit; unscored stays unscored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from simulated_runs import Simulation

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.store.table_file import guarded_csv, unguarded
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.comparison.output import write_comparison
from leakgauge.reports.writers.tabular import TABLES, read_table, write_csv, write_parquet


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


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1:A9)", "\t=1", "'=1", "\uff1d1"]
PLAIN = ["-1.5", "+2", "text", "", "a=b", "1e-3", "'quoted'"]


def test_no_text_of_a_table_is_a_formula_and_all_come_back(tmp_path):
    frame = pd.DataFrame({"=name": [*FORMULAS, *PLAIN], "number": [-1.5] * len([*FORMULAS, *PLAIN])})
    (tmp_path / "t.csv").write_bytes(guarded_csv(frame, "NaN"))
    raw = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype=str)
    assert list(raw.columns) == ["'=name", "number"]
    for text in raw["'=name"]:
        assert not text.startswith(("=", "@", "\t", "\r", "\uff1d")), text
    assert raw["'=name"].tolist()[: len(FORMULAS)] == [f"'{text}" for text in FORMULAS]
    assert raw["number"].eq("-1.5").all()
    back = unguarded(pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype={"'=name": str}))
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)


def test_the_reports_own_tables_are_guarded(tmp_path):
    run = Simulation(n=12).write(tmp_path / "run")
    cells, images = (frame.assign(task="=HYPERLINK(1)").to_dict("records") for frame in (run.cells(), run.images()))
    cells[0]["reason"], cells[1]["reason"] = "@x", "a\rb\x1b\udce9"
    run.write_tables(cells, images)
    assert run.cells()["task"].eq("=HYPERLINK(1)").all()  # the run's own table is for readers, not for people
    assert run.cells()["reason"].iloc[1] == "a\\rb\\x1b\\udce9"  # a lone return would end the row
    write_csv([run], tmp_path / "out")
    text = (tmp_path / "out" / "cells.csv").read_text(encoding="utf-8")
    assert ",=" not in text
    assert ",'=HYPERLINK(1)" in text
    assert ",'@x" in text
    back = read_table(tmp_path / "out" / "cells.csv")
    assert back["task"].eq("=HYPERLINK(1)").all()
    assert "@x" in set(back["reason"])
    loaded = load_runs([run])[0]
    write_comparison(compare(loaded, loaded), tmp_path / "out")
    assert ",=" not in (tmp_path / "out" / "comparison.csv").read_text(encoding="utf-8")
