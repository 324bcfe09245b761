"""What trackers keep of a run: parameters, metrics with intervals, curves, pictures; nothing that was not scored."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from simulated_runs import Simulation, suite_of
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.export.record import flattened, record_of
from leakgauge.reports.export.tracker import library, names_for, refusals, shown


@pytest.fixture
def run(tmp_path, make_run):
    return load_runs([make_run(tmp_path / "one")])[0]


def test_each_point_has_its_means_with_intervals_and_its_cells(run):
    record = record_of(run)
    assert [point.name for point in record.points] == ["plain", "merged"]
    merged, row = record.points[1], point_rows(run)[1]
    for name in ("strongest_leakage", "strongest_leakage_lo", "strongest_leakage_hi", "payload_bytes"):
        assert merged.metrics[name] == row[name]
    cell = next(c for c in run.cells.to_dict("records") if (c["operating_point"], c["attack"]) == ("merged", "sharp"))
    assert merged.metrics["sharp/psnr_db"] == cell["psnr_db"]
    assert merged.metrics["sharp/psnr_db_hi"] == cell["psnr_db_hi"]


def test_what_is_unscored_becomes_no_number(run):
    plain, merged = record_of(run).points
    assert "odd/psnr_db" in plain.metrics
    assert "odd/lpips" not in plain.metrics
    assert not [name for name in merged.metrics if name.startswith("odd/psnr")], "it failed there"
    assert all(math.isfinite(value) for point in (plain, merged) for value in point.metrics.values())


def test_parameters_say_what_was_measured(tmp_path):
    suite = suite_of(attacks=("flat", {"label": "deep", "plugin": {"name": "sharp", "steps": 7}}))
    record = record_of(load_runs([Simulation(suite=suite).write(tmp_path / "run")])[0])
    assert record.parameters["suite.name"] == "simulated"
    assert record.parameters["status"] == "complete"
    point = record.points[0].parameters
    assert point["operating_point"] == "plain"
    assert point["attack.deep.steps"] == "7"
    assert point["threat.observer"] == "server"
    assert point["verdict"] == "conclusive"


def test_curves_are_steps_and_pictures_lie_below_their_originals(run):
    point = record_of(run).points[0]
    curves = {curve.name: curve.values for curve in point.curves}
    assert curves["curves/sharp/heldout_psnr_db"][0] == (0, 12.0)
    assert [step for step, _ in curves["curves/sharp/loss"]] == [0, 10, 20, 30, 40, 50]
    originals = run.folder.read_images("originals", 10, 8, 8)
    assert point.picture.shape == (2 * 8, 6 * 8, 3)
    np.testing.assert_array_equal(point.picture[:8, :8], originals[0])
    assert not np.array_equal(point.picture[8:, :8], originals[0])


def test_several_channels_and_seeds_are_told_apart(tmp_path):
    suite = suite_of(channels=["ideal", {"name": "awgn", "snr_db": 5}], seeds=[0, 1])
    record = record_of(load_runs([Simulation(suite=suite).write(tmp_path / "run")])[0])
    names = [point.name for point in record.points]
    assert len(set(names)) == 4
    assert names[0] == "plain ideal"
    assert {"sharp/seed 0/psnr_db", "sharp/seed 1/psnr_db"} <= set(record.points[0].metrics)


def test_options_are_flat_and_short():
    assert flattened({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": "1", "d": "[1, 2]"}
    assert len(flattened({"a": "x" * 9999})["a"]) <= 250
    assert "\n" not in flattened({"a": "x\ny"})["a"]


def test_names_stay_apart_whatever_a_tracker_admits():
    found = names_for(["a b", "a?b", "a!b", ""], r"\w\- ")
    assert len(set(found.values())) == 4
    assert found["a b"] == "a b"


def test_a_library_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"tracker_nowhere is not installed -- pip install 'leakgauge\[nowhere\]'"):
        library("tracker_nowhere.part", "nowhere")
    # The folder that an earlier export wrote where it was called.
    (tmp_path / "tracker_nowhere").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="tracker_nowhere is not installed"):
        library("tracker_nowhere", "nowhere")
    monkeypatch.delitem(sys.modules, "tracker_nowhere")
    (tmp_path / "half_there.py").write_text("import tracker_nowhere.part")
    with pytest.raises(ConfigError, match=r"half_there cannot be imported: No module named 'tracker_nowhere.part'"):
        library("half_there", "half")


def test_what_a_tracker_refuses_is_one_line():
    said = "--to mlflow: the tracker refused it: ValueError: first second"
    with pytest.raises(PluginError, match=said) as caught, refusals("mlflow"):
        raise ValueError("first\nsecond")
    assert "\n" not in str(caught.value)


def test_no_password_is_shown():
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert shown("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"


def test_the_command_names_what_is_known_and_leaves_the_run_alone(tmp_path, monkeypatch):
    run = Simulation().write(tmp_path / "run")
    found = CliRunner().invoke(app, ["export", str(run.path), "--to", "tensorbord"])
    assert "did you mean 'tensorboard'" in str(found.exception)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    before = sorted(path for path in tmp_path.rglob("*"))
    found = CliRunner().invoke(app, ["export", str(run.path), "--to", "mlflow", "--out", str(tmp_path / "out")])
    assert "mlflow is not installed" in str(found.exception)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    found = CliRunner().invoke(app, ["export", str(run.path), "--to", "mlflow", "--out", str(run.path)])
    assert "would be overwritten" in str(found.exception)
