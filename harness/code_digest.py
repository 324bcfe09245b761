"""Recognises the code that computes tokens, so that what another version computed is never taken for its work."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from harness.provenance import package_versions
from harness.registry import plugins

GROUPS = ("defenses", "reductions", "perturbations", "codecs", "channels", "tasks")
"""Plug-ins that have a say in what the edge sends."""


@cache
def code_digest() -> str:
    """Returns 16 hex digits over the Python files of this package and of the plug-ins, and over package versions."""
    modules = {point.value.split(":")[0] for group in GROUPS for point in plugins(group).values()}
    tops = {"harness"} | {module.split(".")[0] for module in modules}
    digest = hashlib.sha256(repr(sorted(package_versions().items())).encode())
    for path in sorted({path for top in tops for path in _files(top)}):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files(top: str) -> list[Path]:
    """Returns the Python files of a top-level package, or the one file of a lone module."""
    spec = find_spec(top)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [path for place in spec.submodule_search_locations for path in Path(place).rglob("*.py")]
    return [] if spec.origin is None else [Path(spec.origin)]
