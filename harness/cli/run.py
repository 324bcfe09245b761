"""The commands ``run`` and ``validate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from leakgauge.harness.cli.arguments import Device, Overrides, SuiteArgument
from leakgauge.harness.cli.json_output import AsJson, json_alone, print_json
from leakgauge.harness.cli.watch import Watch
from leakgauge.harness.errors import InterruptError
from leakgauge.harness.run.executors import default_workers
from leakgauge.harness.run.plan import check_complete, prepare
from leakgauge.harness.run.preview.budgets import budget_of, too_few
from leakgauge.harness.run.preview.forecast import forecast, kept_tokens
from leakgauge.harness.run.preview.reading_table import print_line, print_reading
from leakgauge.harness.run.run_summary import check_none_failed, show, summary_of
from leakgauge.harness.run.runner import check_folder, run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import Suite, load_suite
from leakgauge.harness.system import console
from leakgauge.harness.system.containment import staying
from leakgauge.harness.system.machine import choose_device
from leakgauge.harness.system.standing import watched_folder

_out = console.output()


def run(
    suite: SuiteArgument,
    out: Annotated[Path | None, typer.Option(help="Run folder; an interrupted run in it is resumed.")] = None,
    device: Device = "auto",
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed/--no-retry-failed", help="Whether a resumed run tries failed cells again.")
    ] = True,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first cell that fails.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be measured; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Runs a suite and stores its results; exit 4 where cells failed."""
    how = {"retry_failed": retry_failed, "fail_fast": fail_fast}
    try:
        with staying(suite), json_alone(as_json):
            found = _run(load_suite(suite, overrides), out, choose_device(device), workers, how, dry=dry_run)
        if as_json:
            print_json(found if isinstance(found, dict) else summary_of(found))
        if isinstance(found, RunFolder):
            check_none_failed(found)
    except KeyboardInterrupt:
        # Here, because typer would turn it into a bare "Aborted".
        raise InterruptError(
            "interrupted; what was measured is kept", hint="run the same command again to resume"
        ) from None


def _run(
    resolved: Suite, out: Path | None, chosen: torch.device, workers: int | None, how: dict[str, bool], *, dry: bool
) -> RunFolder | dict[str, Any]:
    """Returns the run; where it is a dry one, what would be done."""
    if out is not None:
        check_folder(out)
    plan = prepare(resolved, chosen)
    folder = out or Path("runs") / f"{resolved.name}-{plan.key[:8]}"
    count = default_workers(chosen) if workers is None else workers
    _out.print(f"{resolved.name}: {len(plan.cells)} cells on {chosen}, {count} worker(s), into {folder}")
    print_line(plan.reading, _out)
    if dry:
        lines = list(forecast(plan, folder, count, retry_failed=how["retry_failed"]))
        for line in lines:
            _out.print(line, markup=False, highlight=False, soft_wrap=True)
        return {"suite": resolved.name, "run": folder, "cells": len(plan.cells), "forecast": lines}
    with watched_folder() as told, Watch(plan.cells, folder, told, count, _out) as watch:
        store = run_suite(
            plan,
            folder,
            chosen,
            count,
            watch.progress,
            say=lambda line: _out.print(f"note: {line}", markup=False, soft_wrap=True),
            watched=told,
            **how,
        )
    show(store)
    _say_next(store)
    return store


def _say_next(store: RunFolder) -> None:
    """Prints the command that a user would give next."""
    path = shlex.quote(str(store.path))
    _out.print(f"next: leakgauge report {path} --out {shlex.quote(str(store.path / 'report'))}", soft_wrap=True)


def validate(
    suite: SuiteArgument, device: Device = "auto", overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Checks a suite without running it: schema, plug-ins and options, data, weights, splits, knowledge."""
    with json_alone(as_json):
        found = _validate(suite, device, overrides)
    if as_json:
        print_json(found)


def _validate(suite: str, device: str, overrides: list[str] | None) -> dict[str, Any]:
    loaded, chosen = load_suite(suite, overrides), choose_device(device)
    check_complete(loaded)
    plan = prepare(loaded, chosen)
    print_reading(plan.reading, _out)
    budgets, points = budget_of(loaded), []
    for label, budget in budgets:
        _out.print(f"attack {label}: {budget}", markup=False, highlight=False, soft_wrap=True)
    for point, images, kept in kept_tokens(plan.context):
        points.append({"operating_point": point, "images": images, "tokens_kept": kept})
        line = f"operating point {point}: keeps {kept:.1%} of the tokens of {images} calibration images"
        _out.print(line, markup=False, highlight=False, soft_wrap=True)
    if warning := too_few(len(plan.context.evaluation)):
        _out.print(f"WARNING: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    _out.print(f"{plan.suite.name}: ready to run, {len(plan.cells)} cells")
    return {
        "suite": plan.suite.name,
        "cells": len(plan.cells),
        "read": plan.reading.to_json(),
        "attacks": [{"attack": label, "budget": budget} for label, budget in budgets],
        "operating_points": points,
        "warnings": [*plan.reading.all_warnings(), *([warning] if warning else [])],
    }
