"""Commands that packages add: one that cannot be loaded is named in the help, and does not take the others with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape

from harness.errors import LeakgaugeError, PluginError
from harness.plain_text import plain, shortened
from harness.registry import load

GATE = "gate"
"""The one command that ends with exit code 1: it means that a run leaks more."""
Command = Callable[..., Any]


def add_command(app: typer.Typer, name: str) -> None:
    """Adds the command that is registered under a name, or one that says why it cannot be used."""
    try:
        command = load("commands", name)
        # What typer refuses, such as an annotation that it does not know, it refuses when the command line is built.
        alone = typer.Typer()
        alone.command(name=name)(command)
        typer.main.get_command(alone)
    except (Exception, SystemExit) as error:
        what = error.what if isinstance(error, LeakgaugeError) else f"{type(error).__name__}: {error}"
        _add_broken(app, name, plain(" ".join(what.split()), keep=""))
        return
    app.command(name=name)(command if name == GATE else _never_one(command))


def _never_one(command: Command) -> Command:
    """Returns a command whose exit code 1 becomes 70."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            ended = command(*arguments, **options)
        except typer.Exit as error:
            raise typer.Exit(70 if error.exit_code == 1 else error.exit_code) from None
        return 70 if ended == 1 and isinstance(ended, int) else ended

    return wrapped


def _add_broken(app: typer.Typer, name: str, what: str) -> None:
    def broken() -> None:
        raise PluginError(f"cannot be loaded: {what}", where=f"command {name!r}", mend="reinstall its package")

    anything = {"allow_extra_args": True, "ignore_unknown_options": True}
    told = f"Cannot be loaded: {escape(shortened(what, 80))}"
    app.command(name=name, help=told, context_settings=anything)(broken)
