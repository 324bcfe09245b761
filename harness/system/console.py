"""What is printed: a console whose reader may go away, or not know an encoding, without any result being lost."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from rich.console import Console

from leakgauge.harness.system.plain_text import plain

DEBUG = "LEAKGAUGE_DEBUG"
"""Environment variable that is set where ``--debug`` asks for tracebacks, in worker processes too."""


def debugging() -> bool:
    """Tells whether ``--debug`` asks for tracebacks."""
    return bool(os.environ.get(DEBUG))


WIDTH = 140
"""Columns where there is no terminal: pipes and logs have no width of their own; tables need about this much."""


class QuietConsole(Console):
    """Prints while somebody reads, and is silent from then on.

    A pipe that closes (``| head``), a closed or full standard output: none of them ends a command or changes its exit
    code, which says what was found.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as rich does, though texts as they are: no markup in them, nothing that steers a terminal.

        Falls silent where printing fails.
        """
        if objects and all(isinstance(each, str) for each in objects):
            options = {"markup": False, **options}
        try:
            super().print(*(plain(each) if isinstance(each, str) else each for each in objects), **options)
        except (OSError, ValueError):  # ValueError: the file is closed
            self._fall_silent()

    def on_broken_pipe(self) -> None:
        """Falls silent, where rich would end the process with the exit code that says ``leaks more``."""
        self._fall_silent()

    def _fall_silent(self) -> None:
        self.quiet = True
        discard(sys.stderr if self.stderr else sys.stdout)


def output(width: int = WIDTH) -> QuietConsole:
    """Returns the console of standard output; of a fixed width where that is no terminal."""
    with contextlib.suppress(AttributeError, ValueError):  # closed from the start, or since
        if sys.stdout.isatty():
            return QuietConsole()
    return QuietConsole(width=width)


def write_out(text: str) -> None:
    """Writes text on standard output as it is, for programs to read; silent where nobody reads."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        discard(sys.stdout)


def errors() -> QuietConsole:
    """Returns the console of standard error."""
    return QuietConsole(stderr=True)


def prepare_streams() -> None:
    """Lets the standard streams write any text: what their encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush_streams() -> None:
    """Writes out what is left, while an error can still be ignored: Python would end with exit code 120 otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            discard(stream)


def discard(stream: Any) -> None:
    """Points a stream at nothing, so that what is still buffered raises nothing when Python ends."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
