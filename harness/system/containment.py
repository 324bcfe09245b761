"""Keeps a plug-in's failure its own: what it raises, its attempts to end the program, and what ran out under it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from leakgauge.harness.errors import LeakgaugeError, PluginError, ResourceError, StoreError
from leakgauge.harness.system.extras import hint_of
from leakgauge.harness.system.interrupts import may_be_the_users

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
_MEMORY_WORDS = ("allocate memory", "out of memory", "not enough memory", "bad_alloc")
_HINT = "free some, or lower --workers or the suite's batch_size; the same command again measures what is missing"


class _Exit(BaseException):
    """Stands for ``os._exit``, which no handler would see."""


def shortage(error: BaseException | None) -> str:
    """Returns what ran out, ``memory`` or ``disk``, where that is why ``error`` was raised; empty otherwise.

    Such a failure says nothing of the plug-in that it happened in: on another day the same call works.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
            isinstance(error, OSError) and error.errno == errno.ENOMEM
        ):
            return "memory"
        if isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in _MEMORY_WORDS):
            return "memory"
        if isinstance(error, OSError) and error.errno in _DISK:
            return "disk"
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def _staying() -> Iterator[None]:
    """Makes ``os._exit`` raise in this thread; in other threads and in forked children it ends them as ever."""
    process, thread, leave = os.getpid(), threading.get_ident(), os._exit

    def refuse(status: int = 0) -> NoReturn:
        if (os.getpid(), threading.get_ident()) != (process, thread):
            leave(status)
        raise _Exit(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


@contextmanager
def staying(where: str) -> Iterator[None]:
    """Turns attempts to end the program into a PluginError, and leaves all else as it is: exit codes are ours."""
    try:
        with _staying():
            yield
    except (SystemExit, _Exit) as error:
        raise PluginError("a plug-in tried to end the program", where=where, hint="raise an error instead") from error


@contextmanager
def contained(what: str, where: str) -> Iterator[None]:
    """Turns whatever happens within into one of our errors.

    Args:
        what: What is going on, ``fit`` say.
        where: The plug-in.

    Raises:
        PluginError: It failed, or tried to end the program.
        ResourceError: Memory or disk ran out.
        LeakgaugeError: Our own, as it was raised; so are the user's Ctrl-C and what a store cannot write.
    """
    try:
        with _staying():
            yield
    except (ResourceError, StoreError):
        raise
    except KeyboardInterrupt as error:
        if may_be_the_users():
            raise
        raise PluginError(f"{what} raised KeyboardInterrupt", where=where, hint="raise an error instead") from error
    except BaseException as error:
        missing = shortage(error)
        if missing:
            short = ResourceError(f"{what} failed: out of {missing}", where=where, hint=_HINT)
            short.missing = missing
            raise short from error
        if isinstance(error, LeakgaugeError):
            raise
        if isinstance(error, SystemExit | _Exit):
            raise PluginError(f"{what} tried to end the program", where=where, hint="raise an error instead") from error
        said = f"{what} failed: {type(error).__name__}: {error}"
        raise PluginError(said, where=where, hint=hint_of(error)) from error
