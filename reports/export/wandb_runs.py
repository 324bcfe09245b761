"""Weights & Biases: a run for each operating point, in a group with one for the whole, which holds the report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from leakgauge.reports.export.record import PointRecord, RunRecord
from leakgauge.reports.export.tracker import Target, library, names_for, refusals, shown

_ALLOWED = r"\w\-. :/"


def export_wandb(record: RunRecord, target: Target) -> str:
    """Writes a record offline into a folder, or to the server that ``--uri`` names.

    Raises:
        ConfigError: wandb is not installed.
        PluginError: It refused something.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # said before it is imported: it would report to its maker
    wandb = library("wandb", "wandb")
    folder = (target.out or Path()).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    stated = {"base_url": target.uri} if target.uri else {}
    settings = wandb.Settings(
        mode="online" if target.uri else "offline",
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        **stated,
    )
    opening = {"project": target.project, "group": record.name, "dir": str(folder), "settings": settings}
    with refusals("wandb"):
        with wandb.init(name=record.name, job_type="run", config=record.parameters, **opening) as run:
            _keep(wandb, run, record)
        for point in record.points:
            name = f"{record.name} {point.name}"
            with wandb.init(name=name, job_type="operating point", config=point.parameters, **opening) as run:
                _point(wandb, run, point)
    if target.uri:
        return f"wandb: project {target.project!r} on {shown(target.uri)}"
    return f"wandb: offline, in {folder / 'wandb'}; wandb sync {folder / 'wandb'}/offline-run-* sends it"


def _keep(wandb: Any, run: Any, record: RunRecord) -> None:
    if record.files:
        [kind] = names_for([record.name], r"\w\-.").values()
        artifact = wandb.Artifact(f"report-{kind}", type="report")
        for path in record.files:
            artifact.add_file(str(path))
        run.log_artifact(artifact)


def _point(wandb: Any, run: Any, point: PointRecord) -> None:
    names = names_for([*point.metrics, *(curve.name for curve in point.curves)], _ALLOWED)
    steps: dict[int, dict[str, float]] = {}
    for curve in point.curves:
        for step, value in curve.values:
            steps.setdefault(step, {})[names[curve.name]] = value
    for step in sorted(steps):
        run.log(steps[step], step=step)
    if point.picture is not None:
        run.log({"pictures": wandb.Image(point.picture, caption="originals above reconstructions")})
    run.summary.update({names[name]: value for name, value in point.metrics.items()})
