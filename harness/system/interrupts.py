"""Tells the user's Ctrl-C from whatever else raises, or hides, a KeyboardInterrupt."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_noted: list[int] = []


def _note(number: int, frame: FrameType | None) -> None:
    _noted.append(number)
    signal.default_int_handler(number, frame)


def note_interrupts() -> None:
    """Has Ctrl-C noted, from now on, before it interrupts as ever; only where nobody else handles it."""
    _noted.clear()
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _note)


def interrupted() -> bool:
    """Tells whether Ctrl-C was noted."""
    return bool(_noted)


def may_be_the_users() -> bool:
    """Tells whether a KeyboardInterrupt may be the user's: it is not where all of theirs are noted and none was."""
    return interrupted() or signal.getsignal(signal.SIGINT) is not _note
