"""Where a measurement stands while it goes on: told by whoever works, read by whoever watches, never part of a result.

Every process writes one small file into a folder that the run names, at most once a second; nobody waits for it, and
where it cannot be written nothing is lost but the news.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

EVERY_S = 1.0
"""Least time between two writings, so that steps of a millisecond are not slowed down."""


@dataclass(frozen=True)
class Standing:
    """What one process is at.

    Args:
        doing: What is measured: ``set_decoder on threshold_0.90``.
        since: When it began, seconds since the epoch.
        step: Steps taken, of the training or search that is going on.
        steps: Steps in all; 0 where there are none, or none are told.
        heldout_psnr_db: PSNR in dB on the attacker's own held-out images, as last measured; None before.
    """

    doing: str
    since: float
    step: int = 0
    steps: int = 0
    heldout_psnr_db: float | None = None

    def __str__(self) -> str:
        """Says it in a few words."""
        said = f"{self.doing}: step {self.step} of {self.steps}" if self.steps else self.doing
        return said if self.heldout_psnr_db is None else f"{said}, {self.heldout_psnr_db:.1f} dB held out"


class _Teller:
    """Writes what this process is at into one file of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{os.getpid()}.json"
        self.now: Standing | None = None
        self._written = -math.inf

    def tell(self, now: Standing, *, at_once: bool = False) -> None:
        self.now = now
        if at_once or time.monotonic() - self._written >= EVERY_S:
            self._written = time.monotonic()
            half = self.path.with_suffix(".half")
            with suppress(OSError):
                half.write_text(json.dumps(asdict(now)), encoding="utf-8")
                half.replace(self.path)


_teller: _Teller | None = None


@contextmanager
def told_in(folder: Path | None) -> Iterator[None]:
    """Has this process tell what it is at in ``folder`` for a while; nowhere if None."""
    global _teller  # noqa: PLW0603 - one process measures one thing at a time
    before, _teller = _teller, None if folder is None else _Teller(folder)
    own = _teller
    try:
        yield
    finally:
        if own is not None:
            with suppress(OSError):
                own.path.unlink(missing_ok=True)
        _teller = before


@contextmanager
def watched_folder() -> Iterator[Path | None]:
    """Makes a folder to tell in for as long as a run takes; None where there is no room for one."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="leakgauge-", ignore_cleanup_errors=True)
    except OSError:
        yield None
        return
    with folder as path:
        yield Path(path)


def tell_begun(doing: str) -> None:
    """Says that something begins to be measured: an operating point, or an attack on one."""
    if _teller is not None:
        _teller.tell(Standing(doing, time.time()), at_once=True)


def tell_step(step: int, steps: int) -> None:
    """Says how far a training or search has come; attackers with a loop of their own call it in every step.

    Args:
        step: Steps taken.
        steps: Steps in all.
    """
    if _teller is not None and _teller.now is not None:
        _teller.tell(replace(_teller.now, step=step, steps=steps))


def tell_heldout(step: int, steps: int, psnr_db: float) -> None:
    """Says what an attacker reaches on its own held-out images, PSNR in dB; ``LearningCurve.add`` does."""
    if _teller is not None and _teller.now is not None:
        _teller.tell(replace(_teller.now, step=step, steps=steps, heldout_psnr_db=psnr_db), at_once=True)


def standings(folder: Path | None) -> list[Standing]:
    """Reads what every process is at, the longest at work first."""
    found = list[Standing]()
    for path in [] if folder is None else sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, TypeError):  # gone meanwhile
            read = json.loads(path.read_text(encoding="utf-8"))
            found.append(Standing(**read))
    return sorted(found, key=lambda one: one.since)
