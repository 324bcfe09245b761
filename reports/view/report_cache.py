"""Reports that are made when somebody looks: one after the other, outside of the runs, which may be going on."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.registry import load
from leakgauge.harness.system.containment import contained
from leakgauge.reports.analysis.run import Writer
from leakgauge.reports.view.entries import RunEntry


@dataclass(frozen=True)
class Made:
    """A report: the page, or why there is none.

    Args:
        stamp: The state of the run that it was made from.
        page: The HTML; empty where it could not be made.
        error: One line.
    """

    stamp: str
    page: bytes = b""
    error: str = ""


class ReportCache:
    """Makes pages in a thread of its own; until a new one is done the last one stands.

    Args:
        folder: Where pages are written; each run has a folder in it.
        writer: What writes ``index.html``; by default the writer that is registered as ``html``.
    """

    def __init__(self, folder: Path, writer: Writer | None = None) -> None:
        self._folder, self._writer = folder, writer
        self._made: dict[str, Made] = {}
        self._asked: dict[str, str] = {}
        self._lock, self._waiting = threading.Lock(), queue.SimpleQueue[RunEntry]()
        threading.Thread(target=self._work, daemon=True).start()

    def get(self, entry: RunEntry) -> Made | None:
        """Returns the latest report of a run, None before the first; has another made where the run has changed."""
        with self._lock:
            made = self._made.get(entry.key)
            if (made is None or made.stamp != entry.stamp) and self._asked.get(entry.key) != entry.stamp:
                self._asked[entry.key] = entry.stamp
                self._waiting.put(entry)
            return made

    def _work(self) -> None:
        while True:
            entry = self._waiting.get()
            made = self._make(entry)
            with self._lock:
                self._made[entry.key] = made

    def _make(self, entry: RunEntry) -> Made:
        try:
            with contained("report", entry.name):
                writer = self._writer or cast(Writer, load("reports", "html"))
                out = self._folder / entry.key
                writer([RunFolder.open(entry.path)], out)
                return Made(entry.stamp, (out / "index.html").read_bytes())
        except LeakgaugeError as error:
            return Made(entry.stamp, error=str(error))
        except BaseException as error:
            return Made(entry.stamp, error=f"{entry.name}: {type(error).__name__}")
