"""Reads what the docstrings of plug-ins say of their options."""

from __future__ import annotations

import inspect
import re
from typing import Any

_SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Attributes|Example|Examples):$")
_ENTRY = re.compile(r"^(\w+)(?: \([^)]*\))?: *(.*)$")


def body_of(documented: Any) -> str:
    """Returns a docstring up to its first section, in paragraphs of one line each."""
    lines = _lines(documented)
    end = next((number for number, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    paragraphs = "\n".join(lines[:end]).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def meanings_of(documented: Any) -> dict[str, str]:
    """Returns what the section ``Args`` says of each argument, a class's own first, then those of its bases."""
    found: dict[str, str] = {}
    for source in documented.__mro__ if inspect.isclass(documented) else [documented]:
        for name, meaning in _arguments(source.__dict__.get("__doc__") or "").items():
            found.setdefault(name, meaning)
    return found


def _arguments(docstring: str) -> dict[str, str]:
    lines, found, name = inspect.cleandoc(docstring).splitlines(), dict[str, str](), ""
    start = next((number for number, line in enumerate(lines) if line == "Args:"), len(lines))
    for line in lines[start + 1 :]:
        if line and not line.startswith(" "):
            break
        entry = _ENTRY.match(line[4:]) if line.startswith("    ") and not line.startswith("     ") else None
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _lines(documented: Any) -> list[str]:
    return inspect.cleandoc(documented.__doc__ or "").splitlines()
