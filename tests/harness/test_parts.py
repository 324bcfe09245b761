"""Where a cell stands, what of it is measured again, and when a run is complete: on parts that are made up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from leakgauge.harness.errors import StoreError
from leakgauge.harness.run import runner
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.parts import Parts
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.values.images import ImageSet
from tests.harness.made_records import record

CPU = torch.device("cpu")
DONE, FAILED, OTHER, MISSING = (digit * 16 for digit in "abcd")
CODES = dict.fromkeys((DONE, FAILED, OTHER, MISSING), "now")


@pytest.fixture
def store(tmp_path) -> RunFolder:
    """Holds a cell that is done, one that failed, and one that other code measured; one is missing."""
    folder = RunFolder(tmp_path / "run")
    for key, status, code in ((DONE, "done", "now"), (FAILED, "failed", "now"), (OTHER, "done", "then")):
        part = {"identity": {"cell": key}, "status": status, "code": code, "kind": "attribute"}
        folder.write_part(record(part))
    return folder


def test_parts_of_other_code_are_not_done(store):
    parts = Parts(store, CODES)
    assert list(parts.all().values()) == ["done", "failed", "other code", "missing"]
    assert [part.identity.cell for part in parts.read()] == [DONE, FAILED]
    assert Parts(store, {**CODES, DONE: "then", OTHER: "then"}).all()[OTHER] == "done"


@pytest.mark.parametrize(("retry", "again"), [(True, [FAILED, OTHER, MISSING]), (False, [OTHER, MISSING])])
def test_failed_cells_are_measured_again_unless_they_are_to_stay(store, retry, again):
    plan = SimpleNamespace(cells=[SimpleNamespace(key=key) for key in CODES])
    left = runner.left_of(plan, Parts(store, CODES), retry_failed=retry)
    assert [cell.key for cell in left] == again
    assert store.done() == set(CODES) - {MISSING}, "who only asks what is left deletes nothing"


@pytest.mark.parametrize("measured", [True, False])
def test_a_run_is_complete_where_every_cell_was_measured(store, tmp_path, monkeypatch, measured):
    """Whatever measures cells, here it does nothing: a cell that was not there is not there afterwards."""
    monkeypatch.setattr(runner, "measure_cells", lambda *_, **how: None)
    monkeypatch.setattr(runner, "assemble", lambda *_: None)
    images = ImageSet.from_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    task = {"image_shape": [3, 4, 4], "evaluation_images": 2}
    manifest = {"plan_key": "plan", "task": task, "provenance": {"commit": None}}
    monkeypatch.setattr(runner, "manifest_of", lambda plan, device: manifest)
    keys = [DONE] if measured else [DONE, MISSING]
    plan = SimpleNamespace(
        key="plan",
        code={},
        codes=dict.fromkeys(keys, "now"),
        cells=[SimpleNamespace(key=key, exposure=SimpleNamespace(point=SimpleNamespace(name=key))) for key in keys],
        context=SimpleNamespace(evaluation=images),
    )
    store.write_manifest({**manifest, "status": "running", "sessions": []})
    if measured:
        assert run_suite(plan, store.path, CPU, 1, lambda done, total: None).manifest()["status"] == "complete"
        return
    with pytest.raises(StoreError, match="of 2 cells there are 1 cells missing"):
        run_suite(plan, store.path, CPU, 1, lambda done, total: None)
    assert store.manifest()["status"] == "failed"
