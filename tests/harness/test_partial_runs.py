"""Runs that were killed, failed or go on are read from their parts, and say how many cells of how many."""

import pytest
import torch
from toy_task import register

from leakgauge.harness.errors import FailedCellsError
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.analysis.run_list import runs_grid
from leakgauge.reports.comparison.compare import compare

CPU = torch.device("cpu")


def test_a_run_that_did_not_end_is_read_from_its_parts(tmp_path, monkeypatch):
    here = "test_failures:Troubled"
    register(monkeypatch, tasks_toy="toy_task:Toy", attacks_troubled=here)
    from test_failures import SUITE, Troubled

    def fails():
        raise ValueError("no")

    def run(out, **how):
        return run_suite(prepare(parse_suite(SUITE), CPU), out, CPU, 1, lambda done, total: None, **how)

    run(tmp_path / "runs" / "whole")
    monkeypatch.setattr(Troubled, "trouble", staticmethod(fails))
    with pytest.raises(FailedCellsError):
        run(tmp_path / "runs" / "cut", fail_fast=True)
    for stale in ("cells.csv", "images.parquet"):
        (tmp_path / "runs" / "cut" / stale).unlink()
    whole, cut = load_runs([RunFolder(tmp_path / "runs" / name) for name in ("whole", "cut")])
    assert (whole.status, cut.status) == ("complete", "failed, 2 of 3 cells")
    assert list(cut.cells["status"]) == ["done", "failed", "not run"]
    kept = whole.cells["attack"] == "floor_mean"
    assert list(cut.cells.loc[kept, "psnr_db"]) == list(whole.cells.loc[kept, "psnr_db"])
    for pair in ((whole, cut), (cut, whole)):
        assert any("is not complete: failed, 2 of 3 cells" in note for note in compare(*pair).notes)
    rows = runs_grid(tmp_path / "runs").rows
    assert "failed, 2 of 3 cells" in {value.text for row in rows for value in row}
