"""The commands ``run`` and ``validate``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from leakgauge.harness import console
from leakgauge.harness.budgets import budget_of, too_few
from leakgauge.harness.cli.arguments import Device, Overrides, SuiteArgument
from leakgauge.harness.containment import staying
from leakgauge.harness.errors import InterruptError
from leakgauge.harness.executors import default_workers
from leakgauge.harness.kept_tokens import kept_tokens
from leakgauge.harness.reading_table import print_line, print_reading
from leakgauge.harness.run_summary import check_none_failed, show
from leakgauge.harness.runner import check_complete, check_folder, choose_device, prepare, run_suite
from leakgauge.harness.suite import Suite, load_suite

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
) -> None:
    """Runs a suite and stores its results; exit 4 where cells failed."""
    how = {"retry_failed": retry_failed, "fail_fast": fail_fast}
    try:
        with staying(suite):
            _run(load_suite(suite, overrides), out, choose_device(device), workers, how)
    except KeyboardInterrupt:
        # Here, because typer would turn it into a bare "Aborted".
        raise InterruptError(
            "interrupted; what was measured is kept", mend="run the same command again to resume"
        ) from None


def _run(resolved: Suite, out: Path | None, chosen: torch.device, workers: int | None, how: dict[str, bool]) -> None:
    if out is not None:
        check_folder(out)
    plan = prepare(resolved, chosen)
    folder = out or Path("runs") / f"{resolved.name}-{plan.key[:8]}"
    count = default_workers(chosen) if workers is None else workers
    _out.print(f"{resolved.name}: {len(plan.cells)} cells on {chosen}, {count} worker(s), into {folder}")
    print_line(plan.reading, _out)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left, if cells take as long as those done:"),
        # Cells take minutes: over rich's default of the last 30 seconds there would be no estimate.
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_out, transient=True, speed_estimate_period=3600) as bar:
        task = bar.add_task("cells", total=len(plan.cells))
        store = run_suite(
            plan,
            folder,
            chosen,
            count,
            _progress(bar, task),
            say=lambda line: _out.print(f"note: {line}", markup=False, soft_wrap=True),
            **how,
        )
    show(store)
    check_none_failed(store)


def _progress(bar: Progress, task: TaskID) -> Callable[[int, int], None]:
    """Returns what shows how many cells are measured: the bar, and where it cannot move a line for every cell."""
    begun, shown = time.monotonic(), -1

    def show_cells(done: int, total: int) -> None:
        nonlocal shown
        bar.update(task, completed=done, total=total)
        if done > max(shown, 0) and not bar.console.is_terminal:
            minutes, seconds = divmod(round(time.monotonic() - begun), 60)
            _out.print(f"{done} of {total} cells after {minutes}:{seconds:02d}", highlight=False)
        shown = done

    return show_cells


def validate(suite: SuiteArgument, device: Device = "auto", overrides: Overrides = None) -> None:
    """Checks a suite without running it: schema, plug-ins and options, data, weights, splits, knowledge."""
    loaded, chosen = load_suite(suite, overrides), choose_device(device)
    check_complete(loaded)
    plan = prepare(loaded, chosen)
    print_reading(plan.reading, _out)
    for label, budget in budget_of(loaded):
        _out.print(f"attack {label}: {budget}", markup=False, highlight=False, soft_wrap=True)
    for point, images, kept in kept_tokens(plan.bench):
        line = f"operating point {point}: keeps {kept:.1%} of the tokens of {images} calibration images"
        _out.print(line, markup=False, highlight=False, soft_wrap=True)
    if warning := too_few(len(plan.bench.evaluation)):
        _out.print(f"WARNING: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    _out.print(f"{plan.suite.name}: ready to run, {len(plan.cells)} cells")
