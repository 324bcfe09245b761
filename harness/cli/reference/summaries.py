"""Says what plug-ins do without importing them, which takes seconds: the docstring is read from the source."""

from __future__ import annotations

import ast
from functools import cache
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.suite.registry import load


def summary_of(group: str, point: EntryPoint) -> str:
    """Returns the first line of a plug-in's docstring, or why it cannot be loaded."""
    module, _, name = point.value.partition(":")
    found = _docstrings(module).get(name)
    if found is None:  # written in another module, or made by a call
        try:
            found = load(group, point.name).__doc__
        except LeakgaugeError as error:
            found = f"cannot be loaded: {error.what}"
    return (found or "").strip().partition("\n")[0]


@cache
def _docstrings(module: str) -> dict[str, str | None]:
    """Returns the docstring of a module under the empty name, and of what it defines; empty where it has no source."""
    try:
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            return {}
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (ImportError, OSError, SyntaxError, ValueError):
        return {}
    defined = (node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return {"": ast.get_docstring(tree), **{node.name: ast.get_docstring(node) for node in defined}}
