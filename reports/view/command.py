"""The command ``view``."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.system import console
from leakgauge.reports.view.entries import RunEntries
from leakgauge.reports.view.policy import ADDRESS
from leakgauge.reports.view.report_cache import ReportCache
from leakgauge.reports.view.server import Server, Site

PORT = 8417
_out = console.output()


def view(
    folder: Annotated[Path, typer.Argument(metavar="RUNS", help="Folder that holds runs, or one run.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = PORT,
    host: Annotated[str, typer.Option(help="Only this machine: localhost or 127.0.0.1.")] = "localhost",
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the list in a browser.")] = True,
) -> None:
    """Serves the reports of a folder of runs on localhost; pages reload while a run goes on. Ctrl-C ends it."""
    if host not in {"localhost", ADDRESS}:
        hint = f"from afar: ssh -L {port}:localhost:{port} and open it there"
        raise ConfigError(f"{host!r} is not this machine alone", where="--host", hint=hint)
    entries = RunEntries(folder)
    with (
        suppress(KeyboardInterrupt),
        _ended_by(signal.SIGINT, signal.SIGTERM),  # before there is a folder that a signal could leave behind
        tempfile.TemporaryDirectory(prefix="leakgauge-view-", ignore_cleanup_errors=True) as cache,
        Server(Site(entries, ReportCache(Path(cache))), port) as server,
    ):
        address = f"http://localhost:{server.port}/"
        _out.print(f"{folder}: {address} -- Ctrl-C ends it", highlight=False, soft_wrap=True)
        if open_ and _has_desktop():
            webbrowser.open(address)
        server.serve_forever(poll_interval=0.2)
    _out.print("ended")


@contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """Has signals raise KeyboardInterrupt for a while: else SIGTERM would leave the cache of reports behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_desktop() -> bool:
    """Tells whether a browser would have a window: in a terminal one would take it over."""
    return sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
