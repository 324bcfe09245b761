"""How the benchmarks' command lines start: a user's mistake prints one line and no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer
from rich.console import Console

from leakgauge.harness.errors import LeakgaugeError


def start(main: Callable[..., None]) -> None:
    """Runs a command with the arguments of this process."""
    try:
        typer.run(main)
    except LeakgaugeError as error:
        console = Console(stderr=True)
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
