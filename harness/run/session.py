"""What run.json says of every call that worked on a run: when, by which command, and how it ended."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from leakgauge.harness.store.run_folder import RunFolder


class Session:
    """One call that works on a run.

    Args:
        store: The run folder.
        stated: What run.json says of the run, whoever works on it.
        earlier: The sessions before this one.
        workers: Processes.
        found: Returns what run.json says of what was measured so far.
    """

    def __init__(
        self,
        store: RunFolder,
        stated: dict[str, Any],
        earlier: list[dict[str, Any]],
        workers: int,
        found: Callable[[], dict[str, Any]],
    ) -> None:
        self._store, self._found, self._start = store, found, datetime.now(UTC)
        self._own: dict[str, Any] = {
            "started": self._start.isoformat(timespec="seconds"),
            "command": " ".join(["leakgauge", *map(shlex.quote, sys.argv[1:])]),
            "workers": workers,
            "commit": stated["provenance"]["commit"],
        }
        self._manifest: dict[str, Any] = {**stated, "sessions": [*earlier, self._own]}

    def begin(self) -> None:
        """Writes run.json of a run that is going on."""
        self._store.write_manifest({**self._manifest, "status": "running"})

    def end(self, status: str) -> None:
        """Writes how it ended, and when."""
        now = datetime.now(UTC)
        self._own["finished"] = now.isoformat(timespec="seconds")
        self._own["seconds"] = round((now - self._start).total_seconds(), 1)
        seconds = sum(float(one.get("seconds", 0)) for one in self._manifest["sessions"])
        self._manifest["total_seconds"] = round(seconds, 1)
        self._store.write_manifest({**self._manifest, **self._found(), "status": status})
