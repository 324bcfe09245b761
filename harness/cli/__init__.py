"""The command line. Commands are plug-ins of the group ``leakgauge.commands``, ours too; a mistake prints one line."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from leakgauge.harness.cli.commands import Commands, json_asked
from leakgauge.harness.cli.json_output import begin, print_error
from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.system import console
from leakgauge.harness.system.console import DEBUG, debugging
from leakgauge.harness.system.exit_codes import ExitCode
from leakgauge.harness.system.extras import hint_of
from leakgauge.harness.system.interrupts import interrupted, note_interrupts
from leakgauge.harness.system.plain_text import plain, shortened

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measures how much of an image an attacker can rebuild from transmitted tokens, and what preventing it costs.",
    epilog="Exit codes: 0 done or pass; 1 worse (gate alone); 2 a mistake; 3 cannot tell (gate); 4 cells failed; "
    "70 a fault of leakgauge; 130 interrupted.",
)
_err = console.errors()


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"leakgauge {version('leakgauge')}")
        raise typer.Exit


@app.callback()
def _options(
    of: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(help="Show tracebacks, of cells that failed too; may stand after the command.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


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
    note_interrupts()
    begin()
    try:
        ended = app(arguments, standalone_mode=False)
    except BrokenPipeError:  # of the help text, which typer prints by itself
        console.discard(sys.stdout)
        return ExitCode.DONE
    except (typer.Abort, KeyboardInterrupt, Exception, SystemExit) as error:
        told, code = _told(error)
        _say(told, error)
        if json_asked(arguments):
            print_error(told, code)
        return code
    return ended if isinstance(ended, int) else ExitCode.DONE


def _told(error: BaseException) -> tuple[LeakgaugeError, int]:
    """Returns what to say of what ended a command, and the exit code."""
    if isinstance(error, LeakgaugeError):
        return error, error.exit_code
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        return LeakgaugeError("interrupted"), ExitCode.INTERRUPTED
    if isinstance(error, OSError):
        what, hint = str(error.strerror or error), "run the same command again to resume"
        return LeakgaugeError(what, where=str(error.filename or "system"), hint=hint), ExitCode.MISTAKE
    # Libraries that are interrupted within a callback may raise something else.
    return (LeakgaugeError("interrupted"), ExitCode.INTERRUPTED) if interrupted() else _unforeseen(error)


def _unforeseen(error: BaseException) -> tuple[LeakgaugeError, int]:
    """Returns what to say of what is no mistake of a suite, a file or a plug-in, and the exit code."""
    said = getattr(error, "format_message", None)
    if said is not None:  # typer's own: a mistake on the command line
        context = getattr(error, "ctx", None)
        where = "leakgauge" if context is None else context.command_path
        return LeakgaugeError(said() or "see --help", where=where, hint=f"see `{where} --help`"), ExitCode.MISTAKE
    if hint := hint_of(error):
        return LeakgaugeError(str(error), hint=hint), ExitCode.MISTAKE
    from leakgauge.harness.system.containment import shortage  # noqa: PLC0415 - heavy

    text = shortened(plain(" ".join(str(error).split()), keep=""), 150)
    if shortage(error) == "memory":
        hint = "lower batch_size in the suite, or --workers"
        return LeakgaugeError(f"out of memory: {text}", hint=hint), ExitCode.MISTAKE
    what = f"internal error: {type(error).__name__}: {text}"
    return LeakgaugeError(what, hint="please report it, with --debug"), ExitCode.FAULT


def _say(told: LeakgaugeError, error: BaseException) -> None:
    """Says on standard error what ended a command; of a mistake on the command line how it is used."""
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        usage = f"{context.get_usage()}\n" if context is not None else ""
        _err.print(f"{usage}error: {told.what}", markup=False, highlight=False, soft_wrap=True)
        return
    if debugging():
        traceback.print_exc()
    _err.print(f"error: {told}", style="red", markup=False, highlight=False, soft_wrap=True)
