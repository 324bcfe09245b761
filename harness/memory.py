"""Tells an exhausted memory from other errors: torch has no error of its own for it on a CPU."""

from __future__ import annotations

import torch

_SIGNS = ("can't allocate memory", "not enough memory", "cannot allocate memory", "std::bad_alloc", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Tells whether an error, or what it was raised from, says that memory ran out."""
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None:
            return False
        if isinstance(seen, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(seen, (RuntimeError, OSError)) and any(sign in str(seen).lower() for sign in _SIGNS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
