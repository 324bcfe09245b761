"""Files from outside, read within bounds: whatever is wrong ends in one StoreError that says what and where."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

from leakgauge.harness.errors import StoreError
from leakgauge.harness.system.plain_text import plain, quoted

MIB = 2**20
MAX_DEPTH = 40
MAX_DIGITS = 19


def read_bytes(path: Path, most: int, *, hint: str) -> bytes:
    """Reads a whole file.

    Args:
        path: The file.
        most: Bytes that it may have.
        hint: What to do where it cannot be read.

    Raises:
        StoreError: It is missing, no ordinary file, unreadable, or larger.
    """
    where = str(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever, a device never end
            raise StoreError("cannot read: no ordinary file", where=where, hint=hint)
        with path.open("rb") as stream:
            # As much as there is: a read of so many bytes would ask for memory for all that there may be.
            data = stream.read(min(most, path.stat().st_size + MIB) + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        what = (error.strerror if isinstance(error, OSError) else None) or error
        raise StoreError(f"cannot read: {what}", where=where, hint=hint) from error
    if len(data) > most:
        raise StoreError(f"cannot read: larger than {most // MIB} MiB", where=where, hint=hint)
    return data


def read_text(path: Path, most: int, *, hint: str) -> str:
    """Reads UTF-8, with or without a byte order mark; raises what ``read_bytes`` does, and where it is no such text."""
    data = read_bytes(path, most, hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"cannot read: no UTF-8 text (byte {error.start})"
        raise StoreError(what, where=str(path), hint=hint) from error


def read_json(path: Path, most: int, *, hint: str, unscored: bool = False) -> Any:
    """Reads JSON within bounds. Keys occur once; texts have no control characters or lone surrogates left.

    Args:
        path: The file.
        most: Bytes that it may have.
        hint: What to do where it cannot be read.
        unscored: Whether NaN may stand where a number is unscored.

    Raises:
        StoreError: It cannot be read, is no JSON, or is deeper or longer in its numbers than the bounds of this module.
    """
    text = read_text(path, most, hint=hint)
    try:
        data = json.loads(
            text,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=lambda name: _constant(name, unscored),
            object_pairs_hook=_once,
        )
        return _checked(data, 0)
    except RecursionError as error:
        raise StoreError(f"no JSON: nested deeper than {MAX_DEPTH} levels", where=str(path), hint=hint) from error
    except ValueError as error:
        raise StoreError(f"no JSON: {error}", where=str(path), hint=hint) from error


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {quoted(digits)} is too large")
    return value


def _constant(name: str, unscored: bool) -> float:
    if name != "NaN" or not unscored:
        raise ValueError(f"{name} is no number")
    return math.nan


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {quoted(twice)} occurs twice")
    return found


def plain_data(value: Any) -> Any:
    """Returns JSON data as ``read_json`` gives it back: texts made plain.

    Raises:
        ValueError: It is nested deeper than is read.
    """
    return _checked(value, 0)


def _checked(value: Any, depth: int) -> Any:
    """Returns a value with its texts made plain; raises ValueError where it is nested too deep."""
    if isinstance(value, str):
        return plain(value)
    if not isinstance(value, (list, tuple, dict)):
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if not isinstance(value, dict):
        return [_checked(item, depth + 1) for item in value]
    return {plain(key) if isinstance(key, str) else key: _checked(item, depth + 1) for key, item in value.items()}
