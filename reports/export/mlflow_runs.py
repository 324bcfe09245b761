"""MLflow: a run for each operating point, below one for the whole, which holds the report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from leakgauge.reports.export.record import PointRecord, RunRecord
from leakgauge.reports.export.tracker import Target, library, names_for, refusals, shown

_ALLOWED = r"\w\-. :/"
_BATCH = 900
"""Metrics that one call may hold: MLflow admits 1,000."""


def export_mlflow(record: RunRecord, target: Target) -> str:
    """Writes a record to ``--uri``, to $MLFLOW_TRACKING_URI, or to a database in the folder ``mlruns``.

    Raises:
        ConfigError: MLflow is not installed.
        PluginError: It refused something.
    """
    # Said before it is imported: an export sends nothing to anybody but the address that was named.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    library("mlflow", "mlflow")
    client_of = library("mlflow.tracking", "mlflow").MlflowClient
    folder = (target.out or Path("mlruns")).absolute()
    stated = target.uri or (None if target.out else os.environ.get("MLFLOW_TRACKING_URI"))
    if stated is None:
        folder.mkdir(parents=True, exist_ok=True)
    uri = stated or f"sqlite:///{folder / 'mlflow.db'}"
    with refusals("mlflow"):
        client = client_of(tracking_uri=uri)
        found = client.get_experiment_by_name(target.project)
        place = None if stated else (folder / "artifacts").as_uri()
        experiment = found.experiment_id if found else client.create_experiment(target.project, artifact_location=place)
        _write(client, experiment, record)
    return f"mlflow: experiment {target.project!r} in {shown(uri)}; mlflow ui --backend-store-uri shows a database"


def _write(client: Any, experiment: str, record: RunRecord) -> None:
    whole = client.create_run(experiment, run_name=record.name).info.run_id
    _parameters(client, whole, record.parameters)
    for path in record.files:
        client.log_artifact(whole, str(path))
    for point in record.points:
        tags = {"mlflow.parentRunId": whole}
        run = client.create_run(experiment, run_name=f"{record.name} {point.name}", tags=tags).info.run_id
        _point(client, run, point)
        client.set_terminated(run)
    client.set_terminated(whole)


def _point(client: Any, run: str, point: PointRecord) -> None:
    entities = library("mlflow.entities", "mlflow")
    _parameters(client, run, point.parameters)
    names = names_for([*point.metrics, *(curve.name for curve in point.curves)], _ALLOWED)
    logged = [entities.Metric(names[name], value, 0, 0) for name, value in point.metrics.items()]
    for curve in point.curves:
        logged += [entities.Metric(names[curve.name], value, 0, step) for step, value in curve.values]
    for start in range(0, len(logged), _BATCH):
        client.log_batch(run, metrics=logged[start : start + _BATCH])
    if point.picture is not None:
        client.log_image(run, point.picture, artifact_file="pictures/originals_above_reconstructions.png")


def _parameters(client: Any, run: str, parameters: dict[str, str]) -> None:
    names = names_for(list(parameters), _ALLOWED)
    param = library("mlflow.entities", "mlflow").Param
    logged = [param(names[name], value) for name, value in parameters.items()]
    for start in range(0, len(logged), 100):  # as many as a call may hold
        client.log_batch(run, params=logged[start : start + 100])
