"""In which line of a JSON text each key and item stands: what `yaml_text.lines_of` does for YAML, for longer texts."""

from __future__ import annotations

import json
import re

MAX_CHARACTERS = 8 * 2**20
"""Of longer texts no line is known: an error about them is to take seconds, not minutes."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+|\n')


def json_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """Returns the line of each key and item of a valid JSON text, by the path of keys and numbers to it."""
    found: dict[tuple[str | int, ...], int] = {}
    if len(text) > MAX_CHARACTERS:
        return found
    path: list[str | int] = []
    line, is_key = 1, False
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "\n":
            line += 1
        elif token in "}]":
            path.pop()
            is_key = False
        elif token == ",":
            is_key = isinstance(path[-1], str)
            if not is_key:
                path[-1] = int(path[-1]) + 1
        elif token == ":":
            is_key = False
        elif is_key:
            path[-1] = json.loads(token)
            found[tuple(path)] = line
        else:
            if path and isinstance(path[-1], int):
                found[tuple(path)] = line
            if token in "{[":
                path.append("" if token == "{" else 0)
                is_key = token == "{"
    return found
