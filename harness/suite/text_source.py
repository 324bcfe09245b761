"""Where in a file the parts of a configuration stand, so that errors can name the line and what it is called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from leakgauge.harness.errors import ConfigError, LeakgaugeError, ProblemsError, StoredProblemsError, StoreError
from leakgauge.harness.suite.registry import label_of
from leakgauge.harness.system.files.json_lines import json_lines
from leakgauge.harness.system.files.yaml_text import lines_of
from leakgauge.harness.system.json_data import JsonPath, item_of
from leakgauge.harness.system.plain_text import shortened

_NAMED = re.compile(r"^(operating point|threat model|[a-z_]+(?:\.[a-z_0-9]+)*)\b[ :]*'?([^':(]*)")
_PATHS = {"operating point": "operating_points", "threat model": "threat_models"}
_DEFAULTS = {"threat_models", "attacks", "channels", "metrics", "task", "defense", "judge", "cells"}
"""Keys that errors name though a file need not state them."""


@dataclass(frozen=True, eq=False)
class TextSource:
    """The text that a suite, a search space, limits or a baseline was read from.

    Args:
        name: The file.
        data: What it holds, overrides applied.
        lines: In which line each key and item stands.
        overridden: What ``--set`` put there.
    """

    name: str
    data: Mapping[str, object]
    lines: Mapping[JsonPath, int]
    overridden: frozenset[JsonPath] = frozenset()

    def __eq__(self, other: object) -> bool:
        """Where a text was read is no part of what it says: equal suites have equal sources."""
        return isinstance(other, TextSource)

    def __hash__(self) -> int:
        return hash(TextSource)

    @classmethod
    def of(cls, name: str, text: str, stated: Mapping[str, object], data: Mapping[str, object]) -> TextSource:
        """Returns the source of data that was ``stated`` in a text before overrides made it ``data``."""
        return cls(name, data, lines_of(text), frozenset(_changed(stated, data, ())))

    @classmethod
    def of_json(cls, name: str, text: str, data: object) -> TextSource:
        """Returns the source of data that were read from a text in JSON."""
        return cls(name, data if isinstance(data, Mapping) else {}, json_lines(text))

    def line(self, path: JsonPath) -> int:
        """Returns the line of what lies at a path, or of the nearest that is known above it; 0 where none is."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def place(self, path: JsonPath) -> str:
        """Returns ``suite.yaml:12`` for what lies at a path of keys, or ``suite.yaml (--set)``, or ``suite.yaml``."""
        if any(path[: len(one)] == one or one[: len(path)] == path for one in self.overridden if path):
            return f"{self.name} (--set)"
        line = self.line(path)
        return f"{self.name}:{line}" if line else self.name

    def called(self, path: JsonPath) -> str:
        """Returns the name of the item of a list that a path leads into, in brackets; empty where it has none."""
        item: object = self.data
        name = ""
        for key in path:
            try:
                item = item_of(item, key)
            except (KeyError, IndexError, TypeError):
                break
            if isinstance(key, int) and isinstance(item, Mapping):
                name = label_of(item)
        return f" ({shortened(name, 40)})" if name else ""

    def find(self, where: str) -> JsonPath:
        """Returns the path to what an error names: ``operating point 'half'``, ``proxy.floors: mean``, ``task``."""
        found = _NAMED.match(where)
        parts = "" if found is None else _PATHS.get(found[1], found[1])
        path: JsonPath = tuple(int(part) if part.isdecimal() else part for part in parts.split("."))
        if found is None or not (path[0] in self.data or path[0] in _DEFAULTS):
            return ()
        items: object = self.data
        for key in path:
            items = _stated(items, key)
        name = found[2].strip()
        for number, item in enumerate(items if isinstance(items, list) else ()):
            label = label_of(item) if isinstance(item, Mapping) else str(item)
            if name and label == name:
                return *path, number
        return path

    def placed(self, error: LeakgaugeError) -> LeakgaugeError:
        """Returns an error that names the line as well; as it is where its place is not known."""
        if isinstance(error, ProblemsError):
            ordered = sorted(error.problems, key=lambda one: self.line(self.find(one.where)))
            return type(error)([self.placed(one) for one in ordered], self.name, error.hint)
        path = self.find(error.where)
        if not path or error.where.startswith(self.name):
            return error
        found = type(error)(error.what, where=f"{self.place(path)}: {error.where}", hint=error.hint)
        found.__dict__.update({key: value for key, value in error.__dict__.items() if key not in found.__dict__})
        return found


def _stated(items: object, key: str | int) -> object:
    """Returns what lies under a key of a mapping, or at a place of a list; None where nothing does."""
    if isinstance(items, Mapping):
        return items.get(key)
    found = isinstance(items, list) and isinstance(key, int) and key < len(items)
    return item_of(items, key) if found else None


def _changed(before: object, after: object, path: JsonPath) -> Iterator[JsonPath]:
    """Yields the paths to what differs between two readings of a configuration."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, value in after.items():
            if key in before:
                yield from _changed(before[key], value, (*path, key))
            else:
                yield (*path, key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changed(one, other, (*path, number))
    elif before != after:
        yield path


@contextmanager
def naming_lines(source: TextSource) -> Iterator[None]:
    """Lets errors about a suite or search space name the line of its file that they are about."""
    try:
        yield
    except LeakgaugeError as error:
        placed = source.placed(error) if source.lines else error
        if placed is error:
            raise
        raise placed from error


def all_told(problems: list[LeakgaugeError], where: str, hint: str = "mend these") -> LeakgaugeError:
    """Returns the one error, or all of them as one: a ``StoreError`` where each of them is one.

    Raises:
        ConfigError: There is none.
    """
    if not problems:
        raise ConfigError("no problem", where=where)
    if len(problems) == 1:
        return problems[0]
    stored = all(isinstance(one, StoreError) for one in problems)
    return (StoredProblemsError if stored else ProblemsError)(problems, where, hint)
