"""What ``atomic_file.write_atomic`` leaves where its process is killed: found by its name, and deleted."""

from __future__ import annotations

import re
from pathlib import Path

_LEFT = re.compile(r"\.[^/]+\.(csv|html|json|md|parquet|pdf|png|short|svg|tex|yaml)\.[a-z0-9_]{8}")


def half_written(path: Path) -> bool:
    """Tells whether this is what a killed process left of a file."""
    return _LEFT.fullmatch(path.name) is not None


def sweep(*folders: Path) -> None:
    """Deletes half-written files directly in these folders; only for who holds them (``system.files.locking``)."""
    for folder in folders:
        for path in folder.glob(".*.????????"):
            if half_written(path):
                path.unlink(missing_ok=True)
