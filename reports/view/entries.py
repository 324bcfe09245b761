"""What the list of runs shows of each: read anew only where something in its folder changed."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakgauge.harness.errors import LeakgaugeError, StoreError
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.system.plain_text import plain, shortened
from leakgauge.reports.analysis.run import NOT_RUN, load_runs

VERDICTS = ("conclusive", "lower bound", "inconclusive")
FRESH_S = 1.0
"""A look at the folder serves everybody who asks within so many seconds."""
_WATCHED = ("run.json", "cells.csv", "images.parquet", "parts")
"""What changes while a run goes on: a folder does with every file that comes into it."""


@dataclass(frozen=True)
class RunEntry:
    """One run of the list.

    Args:
        key: Names the run in addresses: hex digits, which no path can be made of.
        name: Its folder, relative to the folder that is shown.
        path: Its folder.
        stamp: Changes whenever something in the folder does.
        suite: Name of its suite.
        status: What run.json says of its end: ``complete``, or ``running`` for one that goes on or was killed.
        done: Planned cells that have a result.
        planned: Planned cells.
        verdicts: How many cells have which verdict, in words; failed ones too.
        started: When its first session started, in ISO 8601.
        error: Why it cannot be read, in one line; empty where it can.
    """

    key: str
    name: str
    path: Path
    stamp: str
    suite: str = ""
    status: str = ""
    done: int = 0
    planned: int = 0
    verdicts: str = ""
    started: str = ""
    error: str = ""


class RunEntries:
    """The runs below a folder, itself included.

    Args:
        folder: The folder; it may hold no run yet.
        clock: Seconds that only grow.

    Raises:
        StoreError: There is no such folder.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        if not folder.is_dir():
            raise StoreError("no such folder", where=str(folder), hint="name a folder that holds runs")
        self.folder, self._clock, self._lock = folder.resolve(), clock, threading.Lock()
        self._looked = -FRESH_S
        self._known: dict[str, RunEntry] = {}

    def look(self) -> dict[str, RunEntry]:
        """Returns the runs by key, in the order of their folders."""
        with self._lock:
            if self._clock() - self._looked >= FRESH_S:
                self._known = {entry.key: entry for entry in map(self._entry, self._folders())}
                self._looked = self._clock()
            return dict(self._known)

    def state(self) -> str:
        """Returns what changes whenever a line of the list does."""
        return _digest("".join(f"{entry.name}\0{entry.stamp}\0" for entry in self.look().values()))

    def _folders(self) -> list[Path]:
        # Links to folders are not followed: what is shown lies below the folder that was named.
        return sorted(path.parent for path in self.folder.rglob("run.json") if "parts" not in path.parts)

    def _entry(self, path: Path) -> RunEntry:
        name = str(path.relative_to(self.folder)) if path != self.folder else path.name
        key, stamp = _digest(name), _digest(repr([_stamp(path / watched) for watched in _WATCHED]))
        known = self._known.get(key)
        return known if known is not None and known.stamp == stamp else _read(RunEntry(key, plain(name), path, stamp))


def _read(entry: RunEntry) -> RunEntry:
    """Reads what the list shows of a run; says why where that cannot be."""
    try:
        if not (entry.path / "run.json").resolve().is_relative_to(entry.path):
            raise StoreError("run.json is a link that leads out of its folder", where=entry.name)  # noqa: TRY301
        run = load_runs([RunFolder.open(entry.path)])[0]
    except LeakgaugeError as error:
        return RunEntry(entry.key, entry.name, entry.path, entry.stamp, status="cannot be read", error=str(error))
    except Exception as error:  # a page of many runs must not be lost by one of them
        said = f"cannot be read: {type(error).__name__}: {shortened(plain(str(error), keep=''), 120)}"
        return RunEntry(entry.key, entry.name, entry.path, entry.stamp, status="cannot be read", error=said)
    cells = run.cells
    there = cells[cells["status"] != NOT_RUN]
    failed = int((there["status"] == "failed").sum())
    counts = {name: int(((there["status"] == "done") & (there["verdict"] == name)).sum()) for name in VERDICTS}
    told = {**counts, "failed": failed}
    return RunEntry(
        entry.key,
        entry.name,
        entry.path,
        entry.stamp,
        suite=run.suite.name,
        status=str(run.manifest.get("status", "not stated")),
        done=len(there),
        planned=len(cells),
        verdicts=", ".join(f"{count} {name}" for name, count in told.items() if count),
        started=_started(run.manifest),
    )


def _started(manifest: dict[str, Any]) -> str:
    sessions = manifest.get("sessions")
    first = sessions[0] if isinstance(sessions, list) and sessions else None
    stated = first.get("started", "") if isinstance(first, dict) else ""
    return shortened(plain(str(stated), keep=""), 32)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
