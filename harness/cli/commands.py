"""Commands come from packages, and are imported when they are called: help and typing errors cost no import.

One that cannot be loaded says so when it is called, and does not take the others with it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from leakgauge.harness.cli.reference.summaries import summary_of
from leakgauge.harness.errors import LeakgaugeError, PluginError
from leakgauge.harness.suite.registry import load, plugins
from leakgauge.harness.system.exit_codes import ExitCode
from leakgauge.harness.system.extras import hint_of
from leakgauge.harness.system.plain_text import plain, shortened

GATE = "gate"
"""The one command that ends with ``ExitCode.WORSE``."""
JSON = "--json"
FIRST = (
    "run",
    "report",
    "figure",
    "validate",
    "list",
    "show",
    "new",
    "schema",
    "inspect",
    "score",
    "compare",
    "baseline",
    "gate",
    "runs",
    "view",
    "export",
    "search",
    "choose",
)
"""Commands in the order of the help; those of other packages follow."""
Command = Callable[..., Any]


class Commands(TyperGroup):
    """The commands that are registered under ``leakgauge.commands``."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of all commands."""
        known = set(plugins("commands"))
        return [name for name in FIRST if name in known] + sorted(known - set(FIRST))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns what the help shows of a command, None where there is no such; nothing is imported."""
        point = plugins("commands").get(cmd_name)
        if point is None:
            return None
        return TyperCommand(name=cmd_name, help=escape(shortened(plain(summary_of("commands", point), keep=""), 200)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the name, the command itself, imported now, and the rest of the arguments."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, None if found is None else command(str(name)), rest


def command(name: str) -> Any:
    """Returns the command that is registered under a name, or one that says why it cannot be used."""
    try:
        function = load("commands", name)
        # What typer refuses, such as an annotation that it does not know, it refuses here.
        return _alone(name, function if name == GATE else _never_one(function))
    except (Exception, SystemExit) as error:
        what = error.what if isinstance(error, LeakgaugeError) else f"{type(error).__name__}: {error}"
        return _broken(name, plain(" ".join(what.split()), keep=""), hint_of(error, "reinstall its package"))


def json_asked(arguments: Sequence[str]) -> bool:
    """Tells whether a command line asks for JSON on standard output: ``--json``, of ``gate`` ``--json -``."""
    words = list(itertools.takewhile(lambda word: word != "--", arguments))
    if not any(word.startswith(JSON) for word in words):
        return False
    name = next((word for word in words if not word.startswith("-")), "")
    known = command(name).params if name in plugins("commands") else ()
    option = next((one for one in known if JSON in one.opts), None)
    if option is None or option.is_flag:
        return JSON in words
    return f"{JSON}=-" in words or (JSON, "-") in itertools.pairwise(words)


def _alone(name: str, function: Command, **how: Any) -> Any:
    app = typer.Typer(add_completion=False)
    app.command(name=name, **how)(function)
    return typer.main.get_command(app)


def _never_one(function: Command) -> Command:
    """Returns a command that never ends with the gate's code for more leakage."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            ended = function(*arguments, **options)
        except typer.Exit as error:
            raise typer.Exit(_other(error.exit_code)) from None
        return _other(ended) if isinstance(ended, int) else ended

    return wrapped


def _other(code: int) -> int:
    return ExitCode.FAULT if code == ExitCode.WORSE else code


def _broken(name: str, what: str, hint: str) -> Any:
    def broken() -> None:
        raise PluginError(f"cannot be loaded: {what}", where=f"command {name!r}", hint=hint)

    anything = {"allow_extra_args": True, "ignore_unknown_options": True}
    told = f"Cannot be loaded: {escape(shortened(what, 80))}"
    return _alone(name, broken, help=told, context_settings=anything)
