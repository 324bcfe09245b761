"""Finds plug-ins through entry points; built-ins and third parties register the same way."""

from __future__ import annotations

import difflib
import inspect
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import ConfigError, LeakgaugeError, PluginError

GROUPS = (
    "attacks",
    "defenses",
    "reductions",
    "perturbations",
    "codecs",
    "channels",
    "tasks",
    "metrics",
    "reports",
    "figures",
    "suites",
)


def suggest(name: str, known: list[str]) -> str:
    """Returns the mend for an unknown ``name``: the closest known one, or the list of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Returns the entry points of ``leakgauge.<group>`` by name.

    Raises:
        PluginError: Two distributions register one name for different objects.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"leakgauge.{group}"):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise PluginError(
                f"{point.name!r} is registered twice, by {other.value} and {point.value}",
                where=f"leakgauge.{group}",
                mend="uninstall one of the packages or rename its entry point",
            )
        found[point.name] = point
    return found


def load(group: str, name: str, *, where: str = "") -> Any:
    """Imports the plug-in ``name`` of ``group``.

    Raises:
        ConfigError: The name is unknown.
        PluginError: Its module cannot be imported.
    """
    known = plugins(group)
    if name not in known:
        raise ConfigError(f"unknown {group[:-1]} {name!r}", where=where, mend=suggest(name, list(known)))
    try:
        return known[name].load()
    except Exception as error:
        raise PluginError(
            f"{group[:-1]} {name!r} cannot be imported: {error}",
            where=known[name].value,
            mend="reinstall the package that provides it",
        ) from error


def create(group: str, name: str, options: dict[str, Any], *, where: str = "") -> Any:
    """Builds the plug-in ``name`` of ``group`` from keyword options.

    Raises:
        ConfigError: The name or an option is unknown, or the plug-in refuses an option's value.
        PluginError: The constructor failed in another way.
    """
    factory = load(group, name, where=where)
    place = f"{where} ({group[:-1]} {name!r})".strip()
    parameters = inspect.signature(factory).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in parameters and not open_ended:
            raise ConfigError(f"unknown option {key!r}", where=place, mend=suggest(key, list(parameters)))
    missing = [
        k for k, p in parameters.items() if p.default is p.empty and k not in options and p.kind is not p.VAR_KEYWORD
    ]
    if missing:
        raise ConfigError(f"option {missing[0]!r} is missing", where=place, mend=f"add `{missing[0]}: ...`")
    try:
        return factory(**options)
    except LeakgaugeError as error:
        raise type(error)(error.what, where=error.where or place, mend=error.mend) from error
    except Exception as error:
        raise PluginError(f"constructor failed: {error}", where=place, mend="check the options in the suite") from error
