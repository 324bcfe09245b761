"""Keeps what was measured on disk, by all that decides it: points that samplers share are measured once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leakgauge.harness.store.code_digest import code_digest
from leakgauge.harness.system.files.atomic_file import write_atomic

_log = logging.getLogger(__name__)


class Memo:
    """Small results by key.

    A result is found again only by the code that computed it: an edit of any plug-in or of this package starts anew.
    Each entry carries a checksum; one that is damaged is measured again.

    Args:
        folder: Where they are kept; None keeps them in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = None if folder is None else folder / code_digest()
        self._known: dict[str, dict[str, Any]] = {}
        self.misses = 0

    def cached(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns the result for ``key``, computed where it is not known or cannot be read."""
        if key not in self._known:
            self._known[key] = self._read(key) or self._computed(key, compute)
        return dict(self._known[key])

    def _path(self, key: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{key}.json"

    def _read(self, key: str) -> dict[str, Any] | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            found: dict[str, Any] = kept["found"]
            right = kept["checksum"] == _checksum(key, found)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            right = False
        if not right:
            _log.warning("search: %s is damaged; what it holds is measured again", path)
        return found if right else None

    def _computed(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        self.misses += 1
        found, path = compute(), self._path(key)
        if path is not None:
            write_atomic(path, json.dumps({"checksum": _checksum(key, found), "found": found}).encode())
        return found


def _checksum(key: str, found: dict[str, Any]) -> str:
    """Returns a digest over a result and the key that it is kept by: neither changes, nor are two swapped, unseen."""
    return hashlib.blake2b(json.dumps([key, found], sort_keys=True).encode(), digest_size=16).hexdigest()
