"""The command line; packages add commands under ``leakgauge.commands``. A mistake prints one line and no traceback."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from harness import console
from harness.containment import shortage, staying
from harness.errors import ConfigError, InterruptError, LeakgaugeError
from harness.executors import default_workers
from harness.inspecting import inspect_photograph, layer_table
from harness.locking import exclusive
from harness.output_paths import check_folder_free, check_still_there
from harness.plain_text import plain, shortened
from harness.plugin_commands import add_command
from harness.reading_table import print_line, print_reading
from harness.registry import GROUPS, load, plugins, suggest
from harness.rescoring import rescore
from harness.run_summary import DEBUG, check_none_failed, debugging
from harness.run_summary import show as _summary
from harness.runner import check_complete, check_folder, choose_device, prepare, run_suite
from harness.search_cli import choose, search
from harness.store import RunFolder
from harness.suite import Suite, load_suite, shipped_suites
from harness.sweeping import sweep

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measures how much of an image an attacker can rebuild from transmitted tokens, and what preventing it costs.",
)
_out, _err = console.output(), console.errors()

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A YAML file, or the name of a shipped suite.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a suite key.")]


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option(help="Show tracebacks, of cells that failed too; may stand after the command.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


@app.command()
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
            lambda done, total: bar.update(task, completed=done, total=total),
            say=lambda line: _out.print(f"note: {line}", markup=False, soft_wrap=True),
            **how,
        )
    _summary(store)
    check_none_failed(store)


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
    rows = []
    for name in sorted(shipped_suites()):
        try:
            summary = load_suite(name).description
        except LeakgaugeError as error:
            summary = f"cannot be read: {error.what}"
        rows.append((escape(name), escape(shortened(summary, 200))))
    return rows


def _plugin_rows(group: str) -> list[tuple[str, str]]:
    rows = []
    for name in sorted(plugins(group)):
        try:
            summary = (load(group, name).__doc__ or "").strip().partition("\n")[0]
        except LeakgaugeError as error:
            summary = f"cannot be loaded: {error.what}"
        rows.append((escape(plain(name, keep="")), escape(plain(shortened(summary, 200), keep=""))))
    return rows


@app.command()
def validate(suite: SuiteArgument, device: Device = "auto", overrides: Overrides = None) -> None:
    """Checks a suite without running it: schema, plug-ins and options, data, weights, splits, knowledge."""
    loaded, chosen = load_suite(suite, overrides), choose_device(device)
    check_complete(loaded)
    plan = prepare(loaded, chosen)
    print_reading(plan.reading, _out)
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
    check_folder_free(out)
    resolved = load_suite(suite, overrides)
    for seen, figures in inspect_photograph(image, resolved, defense, out, choose_device(device)):
        _out.print(layer_table(seen))
        for path in figures:
            _out.print(str(path), soft_wrap=True, markup=False, highlight=False)


@app.command()
def score(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    device: Device = "auto",
    although_changed: Annotated[
        bool, typer.Option("--although-changed", help="Although data, weights or code are not the run's.")
    ] = False,
) -> None:
    """Scores the stored reconstructions of a run again."""
    store = RunFolder.open(run)
    with staying("score"):
        count = rescore(store, choose_device(device), although_changed=although_changed)
    _out.print(f"{count} cells scored again")
    _summary(store)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="Where to write the report.")],
) -> None:
    """Writes the report of one or more runs: HTML, Markdown, CSV and figures."""
    check_folder_free(out)
    stores = [RunFolder.open(path) for path in runs]
    with exclusive(out), staying("report"):
        sweep(out, out / "figures")
        written = [load("reports", name)(stores, out) for name in sorted(plugins("reports"))]
        check_still_there((path for paths in written for path in paths or ()), out)
    _out.print(f"report: {plain(str(out / 'index.html'))}", soft_wrap=True, markup=False)


app.command()(search)
app.command()(choose)
for _name in plugins("commands"):
    add_command(app, _name)


def main() -> None:
    """Entry point; turns errors into one line and an exit code. ``--debug`` may stand anywhere."""
    console.prepare_streams()
    code = _code()
    console.flush_streams()
    sys.exit(code)


def _code() -> int:
    """Runs the command that the arguments name; returns its exit code.

    Not in typer's own mode, which ends with 1 on a broken pipe, on an abort and on some mistakes: 1 is the gate's word
    for more leakage.
    """
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    if len(arguments) < len(sys.argv) - 1:
        os.environ[DEBUG] = "1"
    try:
        ended = app(arguments, standalone_mode=False)
    except LeakgaugeError as error:
        return _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except BrokenPipeError:  # of the help text, which typer prints by itself
        console.discard(sys.stdout)
        return 0
    except OSError as error:
        where = plain(str(error.filename or "system"), keep="")
        return _fail(f"{where}: {error.strerror or error} -- run the same command again to resume", 2)
    except (Exception, SystemExit) as error:
        return _unforeseen(error)
    return ended if isinstance(ended, int) else 0


def _unforeseen(error: BaseException) -> int:
    """Says what ended a command that is no mistake of a suite, a file or a plug-in; returns the exit code."""
    said = getattr(error, "format_message", None)
    if said is not None:  # typer's own: a mistake on the command line
        context = getattr(error, "ctx", None)
        usage = f"{context.get_usage()}\n" if context is not None else ""
        _err.print(f"{usage}error: {said() or 'see --help'}", markup=False, highlight=False, soft_wrap=True)
        return 2
    text = shortened(plain(" ".join(str(error).split()), keep=""), 150)
    if shortage(error) == "memory":
        return _fail(f"out of memory: {text} -- lower batch_size in the suite, or --workers", 2)
    return _fail(f"internal error: {type(error).__name__}: {text} -- please report it, with --debug", 70)


def _fail(message: str, code: int) -> int:
    if debugging():
        traceback.print_exc()
    _err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
