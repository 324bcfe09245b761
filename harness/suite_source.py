"""Where in a file a suite's parts stand, so that errors can name the line and what it is called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from leakgauge.harness.errors import ConfigError, LeakgaugeError, ProblemsError
from leakgauge.harness.plain_text import shortened
from leakgauge.harness.yaml_text import lines_of

Path = tuple[str | int, ...]
_NAMED = re.compile(
    r"^(operating point|threat model|attacks|channels|metrics|task|defense|judge|cells)\b[ :]*'?([^':(]*)"
)
_LISTS = {
    "operating point": "operating_points",
    "threat model": "threat_models",
    "attacks": "attacks",
    "channels": "channels",
    "metrics": "metrics",
}


@dataclass(frozen=True, eq=False)
class SuiteSource:
    """The text that a suite was read from.

    Args:
        name: The file.
        data: What it holds, overrides applied.
        lines: In which line each key and item stands.
        overridden: What ``--set`` put there.
    """

    name: str
    data: Mapping[str, Any]
    lines: Mapping[Path, int]
    overridden: frozenset[Path] = frozenset()

    def __eq__(self, other: object) -> bool:
        """Where a suite was read is no part of what it says: equal suites have equal sources."""
        return isinstance(other, SuiteSource)

    def __hash__(self) -> int:
        return hash(SuiteSource)

    @classmethod
    def of(cls, name: str, text: str, stated: Mapping[str, Any], data: Mapping[str, Any]) -> SuiteSource:
        """Returns the source of data that was ``stated`` in a text before overrides made it ``data``."""
        return cls(name, data, lines_of(text), frozenset(_changed(stated, data, ())))

    def line(self, path: Path) -> int:
        """Returns the line of what lies at a path, or of the nearest that is known above it; 0 where none is."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def place(self, path: Path) -> str:
        """Returns ``suite.yaml:12`` for what lies at a path of keys, or ``suite.yaml (--set)``, or ``suite.yaml``."""
        if any(path[: len(one)] == one or one[: len(path)] == path for one in self.overridden if path):
            return f"{self.name} (--set)"
        line = self.line(path)
        return f"{self.name}:{line}" if line else self.name

    def called(self, path: Path) -> str:
        """Returns the name of the item of a list that a path leads into, in brackets; empty where it has none."""
        if len(path) < 2 or not isinstance(path[1], int):
            return ""
        items = self.data.get(str(path[0]))
        item = items[path[1]] if isinstance(items, list) and path[1] < len(items) else None
        name = item.get("label", item.get("name")) if isinstance(item, Mapping) else item
        return f" ({shortened(name, 40)})" if isinstance(name, str) else ""

    def find(self, where: str) -> Path:
        """Returns the path to what an error names: ``operating point 'half'``, ``attacks: ridge``, ``task``."""
        found = _NAMED.match(where)
        if found is None:
            return ()
        kind, name = found[1], found[2].strip()
        items = self.data.get(_LISTS.get(kind, kind))
        if kind not in _LISTS or not isinstance(items, list):
            return (_LISTS.get(kind, kind),)
        for number, item in enumerate(items):
            label = item.get("label", item.get("name")) if isinstance(item, Mapping) else item
            if label == name:
                return _LISTS[kind], number
        return (_LISTS[kind],)

    def placed(self, error: LeakgaugeError) -> LeakgaugeError:
        """Returns an error that names the line as well; as it is where its place is not known."""
        if isinstance(error, ProblemsError):
            ordered = sorted(error.problems, key=lambda one: self.line(self.find(one.where)))
            return ProblemsError([self.placed(one) for one in ordered], self.name)
        path = self.find(error.where)
        if not path or error.where.startswith(self.name):
            return error
        found = type(error)(error.what, where=f"{self.place(path)}: {error.where}", mend=error.mend)
        found.__dict__.update({key: value for key, value in error.__dict__.items() if key not in found.__dict__})
        return found


def _changed(before: Any, after: Any, path: Path) -> Iterator[Path]:
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
def naming_lines(source: SuiteSource) -> Iterator[None]:
    """Lets errors about a suite name the line of its file that they are about."""
    try:
        yield
    except LeakgaugeError as error:
        placed = source.placed(error) if source.lines else error
        if placed is error:
            raise
        raise placed from error


def all_told(problems: list[LeakgaugeError], where: str) -> LeakgaugeError:
    """Returns the one error, or all of them as one.

    Raises:
        ConfigError: There is none.
    """
    if not problems:
        raise ConfigError("no problem", where=where)
    return problems[0] if len(problems) == 1 else ProblemsError(problems, where)


def problems_of(error: ValidationError, data: Any) -> list[Any]:
    """Returns pydantic's report without what follows from the rest: misspelt keys are missing, broken items absent."""
    report = error.errors(include_url=False)
    odd = [one["loc"] for one in report if one["type"] == "extra_forbidden"]

    def meant(loc: tuple[Any, ...]) -> bool:
        beside = [str(one[-1]) for one in odd if one[:-1] == loc[:-1]]
        return bool(get_close_matches(str(loc[-1]), beside, n=1))

    def follows(one: Any) -> bool:
        return one["type"] == "too_short" and any(
            other["loc"][: len(one["loc"])] == one["loc"] and other is not one for other in report
        )

    left = [one for one in report if not (one["type"] == "missing" and meant(one["loc"])) and not follows(one)]
    # What may be one of several kinds is told once for each kind: the first will do.
    places: dict[tuple[Any, ...], Any] = {}
    for one in left:
        place = _there(data, one["loc"])
        places.setdefault((place, one["loc"] if one["type"] == "missing" else ()), one)
    return list(places.values())


def _there(data: Any, path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns as much of a path as leads somewhere in the data."""
    for number, key in enumerate(path):
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return path[:number]
    return path
