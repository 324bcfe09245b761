"""A table of written values, which the HTML and Markdown writers render alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leakgauge.reports.notation import UNSCORED, bounds, is_number, number

Tone = Literal["", "muted", "good", "warn", "bad"]


@dataclass(frozen=True)
class Value:
    """One entry.

    Args:
        text: What is shown.
        detail: A second, smaller line, such as an interval.
        sort: What sorting compares; empty for what was not measured, which always comes last.
        tone: How the entry is marked beside its words.
        numeric: Whether it is set to the right.
    """

    text: str
    detail: str = ""
    sort: str = ""
    tone: Tone = ""
    numeric: bool = False


@dataclass(frozen=True)
class Heading:
    """A column's heading and unit."""

    text: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Grid:
    """A table: caption, headings, and rows whose first entry names the row."""

    caption: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Value]]
    sortable: bool = True


def words(text: Any, detail: str = "", tone: Tone = "") -> Value:
    """Returns an entry of words."""
    return Value(str(text), detail, str(text).lower(), tone)


def figure(value: Any, digits: int = 2, *, signed: bool = False, scale: float = 1.0, detail: str = "") -> Value:
    """Returns a numeric entry, or ``unscored``."""
    if not is_number(value):
        return Value(UNSCORED, detail, "", "muted", True)
    return Value(number(value, digits, signed=signed, scale=scale), detail, repr(float(value)), "", True)


def ranged(row: dict[str, Any], name: str, digits: int, *, signed: bool = False, scale: float = 1.0) -> Value:
    """Returns column ``name`` of a row with its interval below."""
    detail = bounds(row[f"{name}_lo"], row[f"{name}_hi"], digits, signed=signed, scale=scale)
    return figure(row[name], digits, signed=signed, scale=scale, detail=detail)


def flat(data: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Walks nested data as (path, text)."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from flat(value, f"{prefix} · {key}" if prefix else str(key))
    elif isinstance(data, (list, tuple)) and data and all(isinstance(item, (dict, list)) for item in data):
        for index, value in enumerate(data):
            yield from flat(value, f"{prefix} · {index + 1}")
    else:
        yield prefix, _plain(data)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ({}, [], ""):
        return "not stated"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)


def parts(grid: Grid, columns: int) -> list[Grid]:
    """Cuts a table that is too wide for paper into tables of up to ``columns`` columns, each with the first column.

    Raises:
        ValueError: ``columns`` is below 2.
    """
    if columns < 2:
        raise ValueError(f"columns = {columns}, but a part has its first column and at least one more")
    step, last = columns - 1, len(grid.headings)
    return [
        Grid(
            grid.caption,
            [grid.headings[0], *grid.headings[start : start + step]],
            [[row[0], *row[start : start + step]] for row in grid.rows],
            sortable=False,
        )
        for start in range(1, max(last, 2), step)
    ]
