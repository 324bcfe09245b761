"""Measures cells in this process or in workers, an exposure a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.measurement.exposure import run_exposure
from leakgauge.harness.run.executors import run_jobs
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import Cell, by_exposure
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.system.containment import contained
from leakgauge.harness.system.standing import tell_begun, told_in


@cache
def _worker_context(suite_json: str, device: str) -> RunContext:
    """Builds what the run shares once a worker process."""
    suite = Suite.model_validate_json(suite_json)
    with contained("loading", f"task {suite.task.name!r}"):
        return RunContext.build(suite, torch.device(device))


def _job(suite_json: str, device: str, cells: list[Cell], out: str, fail_fast: bool, watched: Path | None) -> None:
    """Measures one exposure in a worker process."""
    with told_in(watched):
        tell_begun("loading the task")
        _measure(_worker_context(suite_json, device), cells, RunFolder(out), fail_fast)


def _measure(
    context: RunContext, cells: list[Cell], store: RunFolder, fail_fast: bool, tick: Callable[[], None] = lambda: None
) -> None:
    def log(cell: Cell, status: str) -> None:
        names = f"{cell.exposure.point.name} / {cell.exposure.channel.label} / {cell.attack.label}"
        store.log(f"{datetime.now(UTC).isoformat(timespec='seconds')} {cell.key} {status} {names}")
        tick()

    run_exposure(context, cells, store, log, fail_fast=fail_fast)


def measure_cells(
    context: RunContext,
    cells: Sequence[Cell],
    store: RunFolder,
    workers: int,
    tick: Callable[[], None],
    *,
    fail_fast: bool,
    watched: Path | None = None,
) -> None:
    """Measures cells into a run folder, exposure by exposure.

    Args:
        context: What the run shares; other processes build it once more.
        cells: What to measure.
        store: The run folder.
        workers: Processes; 1 measures here, and so is a single exposure, whose context stands already.
        tick: Called after every cell that is measured here, and now and then while others measure.
        fail_fast: Whether the first cell that fails ends it.
        watched: Folder in which every process tells what it is at; None where nobody watches.
    """
    groups = by_exposure(list(cells))
    if workers == 1 or len(groups) <= 1:
        with told_in(watched):
            run_jobs(_measure, [(context, group, store, fail_fast, tick) for group in groups], 1, tick)
    else:
        text = context.suite.model_dump_json()
        jobs = [(text, str(context.device), group, str(store.path), fail_fast, watched) for group in groups]
        run_jobs(_job, jobs, workers, tick)
