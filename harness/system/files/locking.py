"""One process at a time in a folder: a lock that dies with its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from leakgauge.harness.errors import StoreError

LOCK = ".lock"


@contextmanager
def exclusive(folder: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Holds a folder, which is made where it is missing. Within one process the same holder may enter again.

    Args:
        folder: The folder.
        wait_s: How long to wait for whoever holds it; negative waits without end.

    Raises:
        StoreError: Another process is at work there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lock a folder and process: a command may hold what a part of it holds too.
        lock = FileLock(folder.resolve() / LOCK, is_singleton=True)
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise StoreError(
            "another leakgauge is at work in this folder",
            where=str(folder),
            hint="wait for it to end, or choose another --out",
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot write: {error.strerror or error}", where=str(folder), hint="choose another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
