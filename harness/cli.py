"""The command line; packages add commands under ``leakgauge.commands``. A mistake prints one line and no traceback."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from harness.errors import ConfigError, InterruptError, LeakgaugeError
from harness.executors import default_workers
from harness.inspecting import inspect_photograph, layer_table
from harness.registry import GROUPS, load, plugins, suggest
from harness.rescoring import rescore
from harness.runner import check_complete, check_folder, choose_device, prepare, run_suite
from harness.search_cli import choose, search
from harness.store import RunFolder
from harness.suite import Suite, load_suite, shipped_suites

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measures how much of an image an attacker can rebuild from transmitted tokens, and what preventing it costs.",
)
# Pipes and logs have no width of their own; tables need about this much.
_out = Console() if sys.stdout.isatty() else Console(width=140)
_err = Console(stderr=True)

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A YAML file, or the name of a shipped suite.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a suite key.")]


@app.callback()
def _options(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["LEAKGAUGE_DEBUG"] = "1"


@app.command()
def run(
    suite: SuiteArgument,
    out: Annotated[Path | None, typer.Option(help="Run folder; an interrupted run in it is resumed.")] = None,
    device: Device = "auto",
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
) -> None:
    """Runs a suite and stores its results."""
    try:
        _run(load_suite(suite, overrides), out, choose_device(device), workers)
    except KeyboardInterrupt:
        # Here, because typer would turn it into a bare "Aborted".
        raise InterruptError(
            "interrupted; what was measured is kept", mend="run the same command again to resume"
        ) from None


def _run(resolved: Suite, out: Path | None, chosen: torch.device, workers: int | None) -> None:
    if out is not None:
        check_folder(out)
    plan = prepare(resolved, chosen)
    folder = out or Path("runs") / f"{resolved.name}-{plan.key[:8]}"
    count = default_workers(chosen) if workers is None else workers
    _out.print(f"{resolved.name}: {len(plan.cells)} cells on {chosen}, {count} worker(s), into {folder}")
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
            plan, folder, chosen, count, lambda done, total: bar.update(task, completed=done, total=total)
        )
    _summary(store)


def _summary(store: RunFolder) -> None:
    cells = store.cells()
    stated = store.manifest().get("attacks", {})
    probes = [label for label, entry in stated.items() if entry.get("kind", "reconstruction") != "reconstruction"]
    asked = cells["attack"].isin(probes)
    for rows, columns in ((cells[~asked], _REBUILT), (cells[asked], _ASKED)):
        if len(rows):
            _out.print(_cells_table(rows, columns))
    failed = int((cells["status"] == "failed").sum())
    doubtful = int((cells["verdict"] == "inconclusive").sum()) - failed
    bounds = int((cells["verdict"] == "lower bound").sum())
    counts = f"{failed} failed, {doubtful} inconclusive" + (f", {bounds} lower bounds" if bounds else "")
    _out.print(f"{len(cells)} cells: {counts}. Results in {store.path}")
    for row in cells[cells["warning"] != ""].to_dict("records"):
        _out.print(f"  warning: {row['attack']} on {row['operating_point']}: {row['warning']}", markup=False)
    for reason in cells.loc[cells["reason"] != "", "reason"].unique():
        _out.print(f"  note: {reason}", markup=False)


class _Shown(NamedTuple):
    name: str
    heading: str
    digits: int | None = None


_REBUILT = (
    _Shown("quality", "quality", 3),
    _Shown("tokens", "tokens", 1),
    _Shown("payload_bytes", "bytes", 0),
    _Shown("psnr_db", "PSNR dB", 2),
    _Shown("ssim", "SSIM", 3),
    _Shown("lpips", "LPIPS", 3),
    _Shown("judge_reid_top1", "re-identified", 3),
    _Shown("leakage", "leakage dB", 2),
)
_ASKED = (
    _Shown("attribute", "attribute"),
    _Shown("attribute_accuracy", "named", 3),
    _Shown("attribute_chance", "by chance", 3),
    _Shown("attribute_auc", "AUC", 3),
    _Shown("reid_top1", "re-identified", 3),
)


def _cells_table(cells: pd.DataFrame, columns: tuple[_Shown, ...]) -> Table:
    table = Table(title=None, header_style="bold")
    for name in ("operating point", "channel", "attack"):
        table.add_column(name, no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="left" if column.digits is None else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in cells.to_dict("records"):
        values = [_written(row[c.name], c.digits) for c in columns]
        table.add_row(row["operating_point"], row["channel"], row["attack"], *values, _judged(row))
    return table


def _judged(row: dict[Hashable, Any]) -> str:
    """Returns the verdict, or what became of a cell that has none: failed is a word of its own."""
    return str(row["verdict"] if row["status"] == "done" else row["status"])


def _written(value: Any, digits: int | None) -> str:
    if digits is None:
        return str(value)
    return "unscored" if math.isnan(value) else f"{value:.{digits}f}"


@app.command(name="list")
def list_(group: Annotated[str | None, typer.Argument(help=f"One of {', '.join(GROUPS)}.")] = None) -> None:
    """Lists installed plug-ins and shipped suites."""
    if group is not None and group not in GROUPS:
        raise ConfigError(f"unknown group {group!r}", where="list", mend=suggest(group, list(GROUPS)))
    for name in [group] if group else GROUPS:
        table = Table(title=name, title_justify="left", show_header=False, box=None)
        for row in _suite_rows() if name == "suites" else _plugin_rows(name):
            table.add_row(*row)
        _out.print(table)


def _suite_rows() -> list[tuple[str, str]]:
    return [(name, load_suite(name).description) for name in sorted(shipped_suites())]


def _plugin_rows(group: str) -> list[tuple[str, str]]:
    rows = []
    for name in sorted(plugins(group)):
        try:
            summary = (load(group, name).__doc__ or "").strip().partition("\n")[0]
        except LeakgaugeError as error:
            summary = f"cannot be loaded: {error.what}"
        rows.append((name, summary))
    return rows


@app.command()
def validate(suite: SuiteArgument, device: Device = "auto", overrides: Overrides = None) -> None:
    """Checks a suite without running it: schema, plug-ins and options, data, weights, splits, knowledge."""
    loaded, chosen = load_suite(suite, overrides), choose_device(device)
    check_complete(loaded)
    plan = prepare(loaded, chosen)
    _out.print(f"{plan.suite.name}: ready to run, {len(plan.cells)} cells")


@app.command()
def inspect(
    image: Annotated[Path, typer.Argument(help="An image file; its centre square is used.")],
    suite: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped suite.")] = "quick",
    defense: Annotated[str | None, typer.Option(help="An operating point; default: all but the baseline.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("runs/inspect"),
    device: Device = "auto",
    overrides: Overrides = None,
) -> None:
    """Draws which patches of an image merge into which token, block by block, with FLOPs and bytes."""
    resolved = load_suite(suite, overrides)
    for seen, figures in inspect_photograph(image, resolved, defense, out, choose_device(device)):
        _out.print(layer_table(seen))
        for path in figures:
            _out.print(str(path), soft_wrap=True, markup=False, highlight=False)


@app.command()
def score(run: Annotated[Path, typer.Argument(help="Run folder.")], device: Device = "auto") -> None:
    """Scores the stored reconstructions of a run again."""
    store = RunFolder.open(run)
    count = rescore(store, choose_device(device))
    _out.print(f"{count} cells scored again")
    _summary(store)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="Where to write the report.")],
) -> None:
    """Writes the report of one or more runs: HTML, Markdown, CSV and figures."""
    stores = [RunFolder.open(path) for path in runs]
    for name in sorted(plugins("reports")):
        load("reports", name)(stores, out)
    _out.print(f"report: {out / 'index.html'}", soft_wrap=True)


app.command()(search)
app.command()(choose)
for _name in plugins("commands"):
    app.command(name=_name)(load("commands", _name))


def main() -> None:
    """Entry point; turns errors into one line and an exit code."""
    try:
        app()
    except LeakgaugeError as error:
        _fail(str(error), error.exit_code)
    except torch.OutOfMemoryError as error:
        _fail(f"out of memory: {str(error).splitlines()[0]} -- lower batch_size in the suite", 2)
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error} -- run the same command again to resume", 2)
    except Exception as error:
        _fail(f"internal error: {type(error).__name__}: {error} -- please report it, with --debug", 70)


def _fail(message: str, code: int) -> None:
    if os.environ.get("LEAKGAUGE_DEBUG"):
        traceback.print_exc()
    _err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
