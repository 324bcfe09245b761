"""Failures: what fails is tried again, what ran out is no result, and complete is a run that holds all its cells."""

import errno
import importlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from toy_task import register

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.errors import FailedCellsError, PluginError, ResourceError, StoreError
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.run_summary import check_none_failed
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store import run_folder as store
from leakgauge.harness.store.code_digest import forget
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.system.files.locking import exclusive
from leakgauge.harness.system.files.sheet import sheet

CPU = torch.device("cpu")
SUITE = {
    "name": "failing",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}],
    "attacks": ["floor_mean", {"label": "trouble", "name": "troubled"}, {"label": "last", "name": "ridge"}],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 4,
}


class Troubled(Attack):
    """Does what ``trouble`` says, and with nothing said answers gray."""

    name = "troubled"
    trouble = None

    def fit(self, view, auxiliary, rng):
        if Troubled.trouble is not None:
            Troubled.trouble()
        self.shape = view.image_shape

    def reconstruct(self, observations, rng):
        return torch.full((len(observations), *self.shape), 0.5)


class Broken(Troubled):
    """Cannot even be built."""

    name = "broken"

    def __init__(self):
        sys.exit(0)


def fails(error):
    def trouble():
        raise error

    return trouble


@pytest.fixture(autouse=True)
def _plugins(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy", attacks_troubled="test_failures:Troubled")
    register(monkeypatch, attacks_broken="test_failures:Broken")
    monkeypatch.setattr(sys.modules["test_failures"].Troubled, "trouble", None)


@pytest.fixture
def trouble(monkeypatch):
    def now(what):
        monkeypatch.setattr(sys.modules["test_failures"].Troubled, "trouble", what and staticmethod(what))

    return now


def run(out, said=None, changes=None, **how) -> RunFolder:
    plan = prepare(parse_suite({**SUITE, **(changes or {})}), CPU)
    say = (lambda line: None) if said is None else said.append
    return run_suite(plan, out, CPU, 1, lambda done, total: None, say=say, **how)


def statuses(folder: RunFolder) -> dict[str, str]:
    return dict(zip(folder.cells()["attack"], folder.cells()["status"], strict=True))


def leave():
    os._exit(0)


def end():
    sys.exit(0)


@pytest.mark.parametrize("what", [fails(ValueError("no")), end, leave, fails(GeneratorExit())])
def test_a_cell_that_failed_is_told_and_tried_again(tmp_path, trouble, what):
    trouble(what)
    folder = run(tmp_path / "run")
    assert statuses(folder) == {"floor_mean": "done", "trouble": "failed", "last": "done"}
    with pytest.raises(FailedCellsError, match="1 of 3 cells failed") as caught:
        check_none_failed(folder)
    assert caught.value.exit_code == 4
    kept = {path: path.stat().st_mtime_ns for path in (folder.path / "parts").iterdir()}
    trouble(None)
    said = []
    assert statuses(run(tmp_path / "run", said, retry_failed=False))["trouble"] == "failed"
    assert said == ["1 cells failed before and stay as they are (--no-retry-failed)"]
    assert set(statuses(run(tmp_path / "run", said)).values()) == {"done"}
    assert said[1:] == ["1 cells failed before and are tried again"]
    again = [path for path, stamp in kept.items() if path.stat().st_mtime_ns != stamp]
    assert len(again) == 1, "only the failed cell is measured again"


def test_the_first_failure_may_end_the_run(tmp_path, trouble):
    trouble(fails(ValueError("no")))
    with pytest.raises(FailedCellsError, match="ValueError: no"):
        run(tmp_path / "run", fail_fast=True)
    folder = RunFolder(tmp_path / "run")
    assert folder.manifest()["status"] == "failed"
    assert statuses(folder) == {"floor_mean": "done", "trouble": "failed"}


def test_an_operating_point_that_cannot_be_measured_does_not_hide_the_others(tmp_path, monkeypatch):
    import leakgauge.harness.measurement.exposure

    measure = leakgauge.harness.measurement.exposure.measure_exposure

    def sometimes(context, exposure, cached):
        if exposure.point.name == "second":
            sys.exit(0)
        return measure(context, exposure, cached)

    monkeypatch.setattr(leakgauge.harness.measurement.exposure, "measure_exposure", sometimes)
    points = [{"name": name, "codec": codec} for name, codec in (("first", "float32"), ("second", "float16"))]
    cells = run(tmp_path / "run", changes={"operating_points": points, "attacks": ["floor_mean"]}).cells()
    assert dict(zip(cells["operating_point"], cells["status"], strict=True)) == {"first": "done", "second": "failed"}
    assert "tried to end the program" in cells["reason"].iloc[1]


def test_a_plugin_that_ends_the_program_when_built_is_an_error(tmp_path):
    with pytest.raises(PluginError, match="broken"):
        run(tmp_path / "run", changes={"attacks": ["broken"]})


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_lack_of_memory_is_no_result(tmp_path, trouble, error):
    trouble(fails(error))
    with pytest.raises(FailedCellsError, match=r"1 of 3 cells were not measured.*out of memory") as caught:
        run(tmp_path / "run")
    assert caught.value.exit_code == 4
    folder = RunFolder(tmp_path / "run")
    assert folder.manifest()["status"] == "failed"
    assert statuses(folder) == {"floor_mean": "done", "last": "done"}
    trouble(None)
    folder = run(tmp_path / "run")
    assert set(statuses(folder).values()) == {"done"}
    assert not list(folder.path.rglob("*.short"))


def test_lack_of_disk_under_a_plugin_is_no_result(tmp_path, trouble):
    trouble(fails(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ResourceError, match="out of disk"):
        run(tmp_path / "run")
    assert statuses(RunFolder(tmp_path / "run")) == {"floor_mean": "done"}
    trouble(None)
    assert set(statuses(run(tmp_path / "run")).values()) == {"done"}


@pytest.mark.parametrize("place", ["parts", "reconstructions"])
def test_a_full_disk_is_no_result(tmp_path, monkeypatch, place):
    written = []
    write = store.write_atomic

    def full(path, data):
        if path.parent.name == place:
            written.append(path)
            if len(written) > 2:
                raise StoreError("cannot write: No space left on device", where=str(path))
        write(path, data)

    monkeypatch.setattr(store, "write_atomic", full)
    with pytest.raises(StoreError, match="No space left"):
        run(tmp_path / "run")
    monkeypatch.setattr(store, "write_atomic", write)
    folder = run(tmp_path / "run")
    assert set(statuses(folder).values()) == {"done"}
    assert len(folder.cells()) == 3


@pytest.mark.parametrize("gone", [".", "parts", "reconstructions"])
def test_a_folder_that_was_taken_away_is_not_complete(tmp_path, trouble, gone):
    out = tmp_path / "run"
    trouble(lambda: shutil.rmtree(out / gone))
    with pytest.raises(StoreError):
        run(out)
    assert not RunFolder(out).exists() or RunFolder(out).manifest()["status"] == "failed"
    trouble(None)
    if (out / ".lock").exists() or RunFolder(out).exists():
        folder = run(out)
        assert set(statuses(folder).values()) == {"done"}
        assert len(folder.cells()) == 3


def test_a_damaged_part_is_measured_again(tmp_path):
    folder = run(tmp_path / "run")
    before = folder.cells().drop(columns=["latency_ms", "attack_seconds"])
    first = min((folder.path / "parts").glob("*.json"))
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(StoreError, match="part cannot be read"):
        folder.read_part(first.stem)
    said = []
    again = run(tmp_path / "run", said)
    assert said == ["1 cells are damaged and are measured again"]
    assert again.cells().drop(columns=["latency_ms", "attack_seconds"]).equals(before)


@pytest.mark.parametrize("damage", ["bit", "swapped", "missing"])
def test_pictures_that_changed_are_never_scored_and_are_measured_again(tmp_path, damage):
    folder = run(tmp_path / "run")
    before = folder.cells().drop(columns=["latency_ms", "attack_seconds"])
    keys = folder.manifest()["cells"]
    first, second = (folder.path / "reconstructions" / f"{key}.png" for key in keys[1:])
    good = first.read_bytes()
    if damage == "bit":
        # Of one pixel; the file is a sound PNG.
        pixels = folder.read_images(first.stem, 4, 16, 16)
        pixels[0, 0, 0, 0] ^= 1
        whole = good.replace(good[good.index(b"IDAT") - 4 :], b"")
        changed = sheet(pixels, "other")
        first.write_bytes(whole + changed[changed.index(b"IDAT") - 4 :])
    elif damage == "swapped":
        first.write_bytes(second.read_bytes())
        second.write_bytes(good)
    else:
        first.unlink()
    with pytest.raises(StoreError, match="cannot read"):
        rescore(folder, CPU)
    assert folder.cells().drop(columns=["latency_ms", "attack_seconds"]).equals(before)
    said = []
    again = run(tmp_path / "run", said)
    assert said == [f"{2 if damage == 'swapped' else 1} cells are damaged and are measured again"]
    assert first.read_bytes() == good
    pd.testing.assert_frame_equal(
        again.cells().drop(columns=["latency_ms", "attack_seconds"]), before, check_exact=True
    )
    assert rescore(again, CPU) == 3


def test_cells_of_other_code_are_measured_again(tmp_path, monkeypatch):
    module = tmp_path / "edited_attack.py"
    text = Path(__file__).read_text(encoding="utf-8")
    body = text[text.index("class Troubled(") : text.index("class Broken(")]
    module.write_text(f"import torch\nfrom leakgauge.harness.contracts.attack import Attack\n\n\n{body}")
    monkeypatch.syspath_prepend(tmp_path)
    register(monkeypatch, attacks_edited="edited_attack:Troubled")
    changes = {"attacks": ["floor_mean", "edited"]}
    out, said = tmp_path / "run", []
    first = run(out, said, changes).cells().set_index("attack")
    assert run(out, said, changes).cells().set_index("attack")["psnr_db"].equals(first["psnr_db"])
    assert said == []
    module.write_text(module.read_text().replace("0.5", "0.25"))
    importlib.reload(sys.modules["edited_attack"])
    forget()
    second = run(out, said, changes).cells().set_index("attack")
    assert len(said) == 1
    assert "1 cells were measured by other code and are measured again: edited_attack (" in said[0]
    assert second["psnr_db"]["edited"] != first["psnr_db"]["edited"]
    assert second["psnr_db"]["floor_mean"] == first["psnr_db"]["floor_mean"]
    assert (second["code"] == first["code"]).to_dict() == {"floor_mean": True, "edited": False}


HOLD = """
import sys, time
from pathlib import Path
from leakgauge.harness.system.files.locking import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_never_work_in_one_folder(tmp_path):
    out = tmp_path / "run"
    plan = prepare(parse_suite(SUITE), CPU)
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match="another leakgauge is at work in this folder") as caught:
        run_suite(plan, out, CPU, 1, lambda done, total: None)
    assert caught.value.exit_code == 2
    other.kill()
    other.wait()
    folder = run_suite(plan, out, CPU, 1, lambda done, total: None)
    assert folder.manifest()["status"] == "complete"
    with exclusive(out), exclusive(out):
        pass


def test_errors_come_whole_out_of_worker_processes():
    error = ResourceError("fit failed: out of memory", where="attack 'x'", hint="free some")
    error.missing = "memory"
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.missing, type(copy)) == (str(error), "memory", ResourceError)
