"""Groups of dependent images that the user knows of: frames of one film, views of one thing, visits of one patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from leakgauge.harness.errors import ConfigError, DataError, suggest

MAX_CSV_BYTES = 256 * 2**20
KEYS = ("pattern", "csv")
COLUMNS = ("file", "group")


def check_groups(groups: Mapping[str, str]) -> None:
    """Raises ConfigError where the option ``groups`` is neither a pattern nor a file of groups."""
    for key in groups:
        if key not in KEYS:
            raise ConfigError(f"unknown key {key!r}", where="groups", hint=suggest(str(key), [*KEYS]))
    if len(groups) != 1 or not isinstance(next(iter(groups.values())), str):
        what = "it takes one key and a text"
        raise ConfigError(what, where="groups", hint="give `pattern: REGULAR-EXPRESSION` or `csv: FILE`")
    if "pattern" in groups:
        try:
            re.compile(groups["pattern"])
        except re.error as error:
            raise ConfigError(f"no regular expression: {error}", where="groups.pattern", hint="correct it") from error
    elif not Path(groups["csv"]).expanduser().is_file():
        raise DataError("no such file", where=groups["csv"], hint="check `groups.csv`")


def groups_of(names: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """Returns the group of every image, the empty text where it has none.

    Args:
        names: Names of the images below the root, with forward slashes.
        groups: ``pattern``, a regular expression whose groups (or without any, whose whole match) name the group of the
            file that it is found in; or ``csv``, a file with the columns ``file`` and ``group``.

    Raises:
        DataError: No image is in a group, or the file cannot be read or names files that are not there.
    """
    if "pattern" in groups:
        found = [re.search(groups["pattern"], name) for name in names]
        named = ["" if m is None else "/".join(filter(None, m.groups() or (m[0],))) for m in found]
        if not any(named):
            what = f"the pattern is found in no file name, {names[0]!r} for one"
            raise DataError(
                what, where="groups.pattern", hint="correct it; it is matched against the path below `path`"
            )
        return named
    path = Path(groups["csv"]).expanduser()
    stated = _read(path)
    unknown = sorted(stated.keys() - set(names))
    if unknown:
        what = f"{len(unknown)} of {len(stated)} files that it names are not among the images, {unknown[0]!r} for one"
        raise DataError(what, where=str(path), hint="write paths below `path`, with forward slashes")
    return [stated.get(name, "") for name in names]


def _read(path: Path) -> dict[str, str]:
    """Reads a file of groups."""
    hint = "write a line `file,group` and then one line an image"
    try:
        if path.stat().st_size > MAX_CSV_BYTES:
            raise DataError(f"the file is larger than {MAX_CSV_BYTES >> 20} MiB", where=str(path), hint=hint)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise DataError(f"it has no columns {' and '.join(COLUMNS)}", where=str(path), hint=hint)
            stated: dict[str, str] = {}
            for row in rows:
                name, group = (str(row[column] or "").strip() for column in COLUMNS)
                if not name or not group or stated.get(name, group) != group:
                    what = f"line {rows.line_num} names no file, no group, or another group than before"
                    raise DataError(what, where=str(path), hint=hint)
                stated[name] = group
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), hint=hint) from error
    if not stated:
        raise DataError("it names no image", where=str(path), hint=hint)
    return stated
