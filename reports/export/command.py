"""The command ``export``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, cast

import typer

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.registry import load
from leakgauge.harness.system import console
from leakgauge.harness.system.containment import staying
from leakgauge.harness.system.files.output_paths import check_folder_free
from leakgauge.reports.analysis.run import Writer, load_runs
from leakgauge.reports.export.record import record_of
from leakgauge.reports.export.tracker import Exporter, Target

_out = console.output()
KEPT = ("run.json", "cells.csv")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    to: Annotated[str, typer.Option(help="mlflow, wandb, tensorboard, or another that is installed.")],
    out: Annotated[Path | None, typer.Option(help="Folder of this machine; each tracker has its usual one.")] = None,
    uri: Annotated[str | None, typer.Option(help="Server or database to send to; without it nothing is sent.")] = None,
    project: Annotated[str, typer.Option(help="Project or experiment that runs are filed under.")] = "leakgauge",
) -> None:
    """Writes a run to an experiment tracker: parameters, metrics, learning curves, pictures and report."""
    exporter = cast(Exporter, load("exporters", to))
    if out is not None:
        check_folder_free(out)
    store = RunFolder.open(run)
    loaded = load_runs([store])[0]
    with tempfile.TemporaryDirectory(prefix="leakgauge-export-") as folder, staying(f"--to {to}"):
        report = cast(Writer, load("reports", "html"))([loaded], Path(folder))
        files = (*report, *(store.path / name for name in KEPT if (store.path / name).is_file()))
        said = exporter(record_of(loaded, files), Target(out, uri, project))
    _out.print(said, markup=False, highlight=False, soft_wrap=True)
