"""What ``--json`` prints: one JSON object on standard output, strict, and nothing else there."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from leakgauge.harness.errors import LeakgaugeError, ProblemsError
from leakgauge.harness.system import console
from leakgauge.harness.system.plain_text import plain

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object; all else goes to standard error.")]


def plain_data(value: Any) -> Any:
    """Returns data as JSON has it: NaN and infinity, which JSON lacks, become null; numbers of numpy plain ones.

    Raises:
        TypeError: It holds what is no data.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_data(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(one) for one in value]
    if isinstance(value, Enum):
        return plain_data(value.value)
    if isinstance(value, Path):
        return str(value)
    if value is not None and not isinstance(value, str | bool | int | float):
        item = getattr(value, "item", None)  # a number of numpy or torch
        if item is None:
            raise TypeError(f"{type(value).__name__} is no data")
        value = item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(data: Any, *, ascii_only: bool = False) -> str:
    """Returns strict JSON, indented, in the order of the data, with a newline at its end."""
    return json.dumps(plain_data(data), indent=2, allow_nan=False, ensure_ascii=ascii_only) + "\n"


_printed: list[bool] = []


def print_json(data: Any) -> None:
    """Prints data on standard output; silent where nobody reads it."""
    # Where standard output knows no Unicode, what it lacks would be escaped as no JSON is.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print_written(to_json(data, ascii_only=not encoding.lower().startswith("utf")))


def print_written(text: str) -> None:
    """Prints an object that is JSON already, as ``print_json`` does."""
    _printed.append(True)
    console.write_out(text)


def begin() -> None:
    """Starts a command line, which has printed no object yet."""
    _printed.clear()


def print_error(error: LeakgaugeError, code: int) -> None:
    """Prints the object of a command that failed; nothing after an object of the command's own.

    ``{"error": {"what", "where", "hint", "exit_code"}}``; where there are several problems, ``problems`` lists them.
    """
    if _printed:
        return
    told: dict[str, Any] = {**_parts(error), "exit_code": int(code)}
    if isinstance(error, ProblemsError):
        told["problems"] = [_parts(one) for one in error.problems]
    print_json({"error": told})


def _parts(error: LeakgaugeError) -> dict[str, str]:
    """Returns what an error says, each part in one line that steers no terminal."""
    return {name: plain(" ".join(getattr(error, name).split()), keep="") for name in ("what", "where", "hint")}


@contextmanager
def json_alone(asked: bool) -> Iterator[None]:
    """Sends all that is printed meanwhile to standard error, where ``--json`` asks for standard output to itself.

    Whoever prints: we, a plug-in, a library in C, or a worker process that is started meanwhile.
    """
    if not asked:
        yield
        return
    with redirect_stdout(sys.stderr), _descriptor_moved():
        yield


@contextmanager
def _descriptor_moved() -> Iterator[None]:
    """Lets file descriptor 1 be another name of 2 for a while; as it is where one of them is closed."""
    try:
        kept = os.dup(1)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
