"""Each exporter against what its tracker is called with, and against the tracker itself where it is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from simulated_runs import Simulation

from leakgauge.harness.errors import ConfigError
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.export.mlflow_runs import export_mlflow
from leakgauge.reports.export.record import RunRecord, record_of
from leakgauge.reports.export.tensorboard_events import export_tensorboard
from leakgauge.reports.export.tracker import Target
from leakgauge.reports.export.wandb_runs import export_wandb


@pytest.fixture
def record(tmp_path, make_run) -> RunRecord:
    page = tmp_path / "index.html"
    page.write_text("<p>report</p>")
    return record_of(load_runs([make_run(tmp_path / "one")])[0], (page,))


class Calls:
    """Stands for a tracker: notes what it is called with."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple, dict]] = []

    def __getattr__(self, name: str) -> Any:
        def note(*arguments: Any, **options: Any) -> Any:
            self.made.append((name, arguments, options))
            return SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(self.made)}"))

        return note

    def of(self, name: str) -> list[tuple[tuple, dict]]:
        return [(arguments, options) for called, arguments, options in self.made if called == name]

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.made.append(("closed", (), {}))


def module(monkeypatch, name: str, **content: Any) -> None:
    made = ModuleType(name)
    made.__dict__.update({"__file__": "stands for the real one", **content})
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def mlflow(monkeypatch) -> Calls:
    calls = Calls()
    calls.get_experiment_by_name = lambda name: None  # type: ignore[attr-defined]
    calls.tracked = []

    def client(tracking_uri: str) -> Calls:
        calls.tracked.append(tracking_uri)
        return calls

    module(monkeypatch, "mlflow")
    module(monkeypatch, "mlflow.tracking", MlflowClient=client)
    module(monkeypatch, "mlflow.entities", Metric=lambda *values: values, Param=lambda *values: values)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return calls


def test_mlflow_has_a_run_a_point_below_that_of_the_whole(mlflow, record, tmp_path):
    said = export_mlflow(record, Target(tmp_path / "out"))
    assert mlflow.tracked == [f"sqlite:///{tmp_path}/out/mlflow.db"]
    assert "mlflow.db" in said
    whole, *points = mlflow.of("create_run")
    assert whole[1] == {"run_name": "one"}
    assert [options["run_name"] for _, options in points] == ["one plain", "one merged"]
    assert {options["tags"]["mlflow.parentRunId"] for _, options in points} == {mlflow.of("log_artifact")[0][0][0]}
    assert mlflow.of("log_artifact")[0][0][1].endswith("index.html")
    metrics = [metric for _, options in mlflow.of("log_batch") for metric in options.get("metrics", ())]
    assert ("strongest_leakage", record.points[0].metrics["strongest_leakage"], 0, 0) in metrics
    assert ("curves/sharp/heldout_psnr_db", 17.0, 0, 50) in metrics
    params = dict(param for _, options in mlflow.of("log_batch") for param in options.get("params", ()))
    assert params["suite.name"] == "small"
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-/: ") for name in params)
    assert len(mlflow.of("log_image")) == 2
    assert len(mlflow.of("set_terminated")) == 3


def test_mlflow_goes_where_it_is_told(mlflow, record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker.example")
    said = export_mlflow(record, Target(uri="http://me:secret@other.example", project="mine"))
    export_mlflow(record, Target())
    export_mlflow(record, Target(tmp_path / "here"))
    assert mlflow.tracked[:2] == ["http://me:secret@other.example", "http://tracker.example"]
    assert mlflow.tracked[2].startswith("sqlite:///")
    assert "secret" not in said
    assert not (tmp_path / "mlruns").exists(), "nothing is kept here where a server keeps it"


@pytest.fixture
def wandb(monkeypatch) -> Calls:
    calls = Calls()
    calls.summary, calls.begun = {}, []

    def init(**options: Any) -> Calls:
        calls.begun.append(options)
        return calls

    artifact = SimpleNamespace(add_file=lambda path: calls.made.append(("add_file", (path,), {})))
    module(
        monkeypatch,
        "wandb",
        init=init,
        Settings=lambda **options: options,
        Image=lambda pixels, caption: (pixels.shape, caption),
        Artifact=lambda name, type: artifact,
    )
    return calls


def test_wandb_is_offline_unless_a_server_is_named(wandb, record, tmp_path):
    said = export_wandb(record, Target(tmp_path))
    assert {options["settings"]["mode"] for options in wandb.begun} == {"offline"}
    assert "offline" in said
    assert [options["name"] for options in wandb.begun] == ["one", "one plain", "one merged"]
    assert {options["group"] for options in wandb.begun} == {"one"}
    assert wandb.of("add_file")[0][0][0].endswith("index.html")
    logged = {options["step"]: arguments[0] for arguments, options in wandb.of("log") if "step" in options}
    assert logged[50]["curves/sharp/heldout_psnr_db"] == 17.0
    assert list(logged) == sorted(logged)
    assert wandb.summary["strongest_leakage_lo"] == record.points[1].metrics["strongest_leakage_lo"]
    assert len(wandb.of("closed")) == 3
    export_wandb(record, Target(tmp_path, uri="https://wandb.example"))
    assert wandb.begun[-1]["settings"]["mode"] == "online"
    assert wandb.begun[-1]["settings"]["base_url"] == "https://wandb.example"


def test_tensorboard_has_a_folder_a_point_and_the_report_beside_them(monkeypatch, record, tmp_path):
    writers: dict[str, Calls] = {}
    out = tmp_path / "out"
    module(monkeypatch, "tensorboard")
    module(
        monkeypatch,
        "torch.utils.tensorboard",
        SummaryWriter=lambda folder: writers.setdefault(str(Path(folder).relative_to(out)), Calls()),
    )
    said = export_tensorboard(record, Target(out))
    assert list(writers) == ["one", "one/points/plain", "one/points/merged"]
    scalars = [arguments for arguments, _ in writers["one/points/merged"].of("add_scalar")]
    assert ("strongest_leakage", record.points[1].metrics["strongest_leakage"], 0) in scalars
    assert ("curves/slow/heldout_psnr_db", 17.0, 50) in scalars
    assert (out / "one" / "report" / "index.html").read_text() == "<p>report</p>"
    text = writers["one/points/plain"].of("add_text")[0][0][1]
    assert "<script>" not in text.replace("\\<", "")
    assert f"--logdir {out}" in said
    with pytest.raises(ConfigError, match="--out"):
        export_tensorboard(record, Target(uri="http://somewhere"))


def missing(name: str) -> pytest.MarkDecorator:
    found = find_spec(name)
    return pytest.mark.skipif(found is None or found.origin is None, reason=f"{name} is not installed")


@missing("mlflow")
def test_mlflow_itself_keeps_it(record, tmp_path):
    export_mlflow(record, Target(tmp_path / "out"))
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/out/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("leakgauge").experiment_id])
    [merged] = [run for run in runs if run.info.run_name == "one merged"]
    assert merged.data.metrics["strongest_leakage"] == pytest.approx(record.points[1].metrics["strongest_leakage"])
    assert merged.data.params["operating_point"] == "merged"
    assert merged.info.status == "FINISHED"
    history = client.get_metric_history(merged.info.run_id, "curves/sharp/heldout_psnr_db")
    assert [(metric.step, metric.value) for metric in history][-1] == (50, 17.0)
    [whole] = [run for run in runs if run.info.run_name == "one"]
    assert [file.path for file in client.list_artifacts(whole.info.run_id)] == ["index.html"]


@missing("tensorboard")
def test_tensorboard_itself_reads_it(record, tmp_path):
    for _ in range(2):  # the second takes the place of the first
        export_tensorboard(record, Target(tmp_path / "out"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "out" / "one" / "points" / "merged"))
    events.Reload()
    [leakage] = events.Scalars("strongest_leakage")
    assert leakage.value == pytest.approx(record.points[1].metrics["strongest_leakage"])
    assert [e.step for e in events.Scalars("curves/sharp/loss")] == [0, 10, 20, 30, 40, 50]
    assert len(events.Tags()["images"]) == 1


@missing("wandb")
@pytest.mark.slow
def test_wandb_itself_keeps_it_offline(record, tmp_path):
    export_wandb(record, Target(tmp_path / "out"))
    kept = list((tmp_path / "out" / "wandb").glob("offline-run-*"))
    assert len(kept) == 3
    assert all(any(folder.glob("*.wandb")) for folder in kept)


def test_an_export_changes_nothing_of_the_run(mlflow, tmp_path):
    run = Simulation().write(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    export_mlflow(record_of(load_runs([run])[0]), Target(tmp_path / "out"))
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
