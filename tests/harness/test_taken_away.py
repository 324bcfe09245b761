"""What is taken away under a command is missed, and said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from toy_task import SMALL_SUITE, register

from leakgauge.harness.errors import FailedCellsError, StoreError
from leakgauge.harness.run import rescoring
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.system.files.output_paths import check_still_there

CPU = torch.device("cpu")
SUITE = {**SMALL_SUITE, "name": "taken_away"}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        plan = prepare(parse_suite(SUITE), CPU)
        return run_suite(plan, tmp_path_factory.mktemp("runs") / "run", CPU, 1, lambda done, total: None)


@pytest.fixture
def run(finished, tmp_path) -> RunFolder:
    shutil.copytree(finished.path, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    return RunFolder(tmp_path / "run")


def last_manifest_takes(monkeypatch, path: Path):
    """Takes a folder away right after the last writing of run.json."""
    write = RunFolder.write_manifest

    def writing(self, data):
        write(self, data)
        if data.get("status") == "complete":
            shutil.rmtree(path, ignore_errors=True)

    monkeypatch.setattr(RunFolder, "write_manifest", writing)


@pytest.mark.parametrize("folder", ["parts", "reconstructions"])
def test_a_run_is_complete_only_if_all_is_there_after_its_last_word(tmp_path, monkeypatch, folder):
    plan = prepare(parse_suite(SUITE), CPU)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        last_manifest_takes(patch, out / folder)
        with pytest.raises(StoreError, match="was changed while the run was going on"):
            run_suite(plan, out, CPU, 1, lambda done, total: None)
    assert RunFolder(out).manifest()["status"] == "failed"
    again = run_suite(plan, out, CPU, 1, lambda done, total: None)
    assert again.manifest()["status"] == "complete"


def test_a_run_killed_at_its_first_file_starts_again(tmp_path):
    plan = prepare(parse_suite(SUITE), CPU)
    out = tmp_path / "run"
    out.mkdir()
    (out / ".run.json.abcdefg1").write_text("{")
    run = run_suite(plan, out, CPU, 1, lambda done, total: None)
    assert not (out / ".run.json.abcdefg1").exists()
    assert run.manifest()["status"] == "complete"


@pytest.mark.parametrize("lost", [1, 2])
def test_a_complete_run_that_lost_cells_is_not_scored(run, lost):
    before = (run.path / "cells.csv").read_bytes()
    for path in sorted((run.path / "parts").glob("*.json"))[:lost]:
        path.unlink()
    with pytest.raises(StoreError, match=f"of 2 cells {lost} are missing.*run its suite again"):
        rescore(run, CPU)
    assert (run.path / "cells.csv").read_bytes() == before


def test_what_there_is_of_an_interrupted_run_is_scored(run):
    run.write_manifest({**run.manifest(), "status": "interrupted"})
    sorted((run.path / "parts").glob("*.json"))[0].unlink()
    assert rescore(run, CPU) == 1


@pytest.mark.parametrize("folder", ["parts", "reconstructions"])
def test_scoring_misses_what_was_taken_away_under_it(run, monkeypatch, folder):
    last_manifest_takes(monkeypatch, run.path / folder)
    with pytest.raises(StoreError, match=r"taken away while it was scored.*run its suite again"):
        rescoring.rescore(run, CPU)


def test_written_files_must_be_there_at_the_end(tmp_path):
    (tmp_path / "a.csv").write_text("")
    check_still_there([tmp_path / "a.csv"], tmp_path)
    with pytest.raises(StoreError, match=r"of 2 files 1 were taken away.*b\.csv first"):
        check_still_there([tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "b.csv"], tmp_path)


def test_a_failure_to_measure_keeps_its_own_name(tmp_path, monkeypatch):
    """The second look at the folder does not hide why cells are missing."""
    plan = prepare(parse_suite(SUITE), CPU)

    def short(*_):
        raise MemoryError

    monkeypatch.setattr("leakgauge.harness.measurement.exposure.run_attack", short)
    with pytest.raises(FailedCellsError, match="were not measured"):
        run_suite(plan, tmp_path / "run", CPU, 1, lambda done, total: None)
