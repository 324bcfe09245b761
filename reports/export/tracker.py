"""What exporters have in common: where a record goes, and a library that may not be installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.system.plain_text import plain, shortened
from leakgauge.reports.export.record import RunRecord


@dataclass(frozen=True)
class Target:
    """Where a record goes.

    Args:
        out: A folder of this machine; None where an exporter has its own.
        uri: A server or database; None for a folder of this machine: nothing is sent.
        project: What the tracker files runs under.
    """

    out: Path | None = None
    uri: str | None = None
    project: str = "leakgauge"


Exporter = Callable[[RunRecord, Target], str]
"""Writes a record and returns, in one line, where it is and how to look at it; registered under
``leakgauge.exporters``."""


def library(name: str, extra: str) -> Any:
    """Imports a tracker's library, which no other command needs.

    Args:
        name: The module.
        extra: The extra that brings it.

    Raises:
        ConfigError: It is not installed, or cannot be imported.
    """
    top, why = name.partition(".")[0], "is not installed"
    try:
        # A folder of the tracker's name, such as it writes itself, can be imported too; it has no file.
        if import_module(top).__file__ is not None:
            return import_module(name)
    except ModuleNotFoundError as error:
        why = why if error.name == top else f"cannot be imported: {shortened(plain(str(error), keep=''), 60)}"
    except ImportError as error:
        why = f"cannot be imported: {shortened(plain(str(error), keep=''), 60)}"
    raise ConfigError(f"{top} {why}", where=f"--to {extra}", hint=f"pip install 'leakgauge[{extra}]'")


def shown(uri: str) -> str:
    """Returns an address without the password that it may hold."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", uri)


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """Says in one line what a tracker refused.

    Raises:
        PluginError: It raised an error.
    """
    try:
        yield
    except Exception as error:
        said = shortened(" ".join(plain(str(error)).split()), 150)
        raise PluginError(
            f"the tracker refused it: {type(error).__name__}: {said}",
            where=f"--to {name}",
            hint="check --uri and --out",
        ) from error


def names_for(names: list[str], allowed: str) -> dict[str, str]:
    """Returns each name as a tracker admits it: other characters than the allowed become ``_``, no two names one.

    Args:
        names: The names.
        allowed: A character class of ``re``, without brackets.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        base = re.sub(f"[^{allowed}]", "_", name) or "_"
        chosen, number = base, 2
        while chosen in taken:
            chosen, number = f"{base}_{number}", number + 1
        found[name] = chosen
        taken.add(chosen)
    return found
