"""Keeps what the edge sent on disk: the victim runs once for an operating point, whoever attacks it and how often.

Files are safetensors, mapped into memory when read. The key covers all that decides the tokens, the code and the
machine that compute them included, and stands in the entry beside a checksum: an entry is right, or computed again. The
oldest entries go when the cache outgrows its limit.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from leakgauge.harness.contracts.link import Encoded
from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.harness.store.encoded_file import read_encoded, to_bytes
from leakgauge.harness.system.files.atomic_file import write_atomic
from leakgauge.harness.system.files.locking import exclusive

FOLDER_VARIABLE, LIMIT_VARIABLE = "LEAKGAUGE_CACHE", "LEAKGAUGE_CACHE_GIB"
OFF = "off"
DEFAULT_GIB = 8.0
LOCK_WAIT_S, STALE_S = 60.0, 3600.0
_log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Returns the folder that ``LEAKGAUGE_CACHE`` names, by default one in the user's cache; None for ``off``."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen == OFF:
        return None
    if chosen:
        return Path(chosen)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise ConfigError(
            "no home folder is known", where="token cache", hint=f"set HOME, or {FOLDER_VARIABLE}=off or a folder"
        ) from error
    return base / "leakgauge" / "tokens"


_PASSED: set[str] = set()
"""Keys of the checks that passed in this process, for where no cache is kept."""


def check_once(key: str, check: Callable[[], None]) -> None:
    """Runs a check of unchanging things, unless it passed in this process or a note in the cache says that it did.

    Args:
        key: Content hash of all that the check looks at, its own code included.
        check: Raises where something is wrong; then nothing is noted.
    """
    folder = cache_folder()
    if folder is None and key in _PASSED:
        return
    note = None if folder is None else folder / f"{key}.passed"
    passed = f"passed {key}\n".encode()
    if note is not None and note.is_file():
        with suppress(OSError):
            if note.read_bytes() == passed:
                return
        _log.warning("token cache: %s is damaged; what it stands for is checked again", note)
    check()
    if note is None:
        _PASSED.add(key)
    else:
        try:
            write_atomic(note, passed)
        except (OSError, StoreError) as error:
            _log.warning("token cache: %s cannot be written (%s); going on without", note, error)


class TokenCache:
    """Encoded image sets by key.

    Args:
        folder: Where they are kept; None keeps nothing.
        limit_bytes: Size that the folder may have.

    Attributes:
        hits: Sets that were found.
        misses: Sets that had to be computed.
    """

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self.hits = self.misses = 0

    @classmethod
    def from_environment(cls) -> TokenCache:
        """Opens the cache at ``LEAKGAUGE_CACHE`` (a folder, or ``off``), of at most ``LEAKGAUGE_CACHE_GIB``.

        Raises:
            ConfigError: The limit is not a number of GiB.
        """
        text = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_GIB))
        try:
            limit = int(float(text) * 2**30)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{text!r} is not a size", where=LIMIT_VARIABLE, hint="give GiB, 8 say") from error
        return cls(cache_folder(), limit)

    def encoded(self, key: str, compute: Callable[[], Encoded]) -> Encoded:
        """Returns the set stored under ``key``, or computes and stores it.

        A cache that cannot be written is a loss of time, not of results: the set is returned all the same.
        """
        path = None if self._folder is None else self._folder / f"{key}.safetensors"
        found = None if path is None else self._read(path, key)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        encoded = compute()
        if path is not None:
            self._write(path, encoded, key)
        return encoded

    @staticmethod
    def _read(path: Path, key: str) -> Encoded | None:
        """Reads an entry and marks it as used; None where there is none, or it is damaged."""
        try:
            encoded = read_encoded(path, key)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
            _log.warning("token cache: %s cannot be read (%s); its tokens are computed again", path, error)
            return None
        return encoded

    def _write(self, path: Path, encoded: Encoded, key: str) -> None:
        data = to_bytes(encoded, key)
        if len(data) > self._limit:
            return
        try:
            # Two that make room at once would both count what the other is about to write as free.
            with exclusive(path.parent, wait_s=LOCK_WAIT_S):
                self._make_room(len(data))
                write_atomic(path, data)
        except (OSError, StoreError) as error:
            _log.warning("token cache: %s cannot be written (%s); going on without", path, error)

    def _make_room(self, needed: int) -> None:
        """Deletes the entries that were not used for longest until ``needed`` bytes fit."""
        assert self._folder is not None
        self._sweep()
        entries = []
        for path in self._folder.glob("*.safetensors") if self._folder.is_dir() else ():
            try:
                stat = path.stat()
            except FileNotFoundError:  # another worker made room
                continue
            entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total + needed <= self._limit:
                return
            # Whoever has it mapped keeps reading it.
            path.unlink(missing_ok=True)
            total -= size

    def _sweep(self) -> None:
        """Deletes what writers that were killed left half written, after an hour in which nobody wrote on."""
        assert self._folder is not None
        for path in self._folder.glob(".*.????????"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
