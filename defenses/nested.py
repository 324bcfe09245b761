"""Builds the plug-ins that a defense's options name."""

from __future__ import annotations

from typing import Any

from harness.errors import ConfigError
from harness.registry import create

Spec = str | dict[str, Any]
"""A plug-in: its name, or ``{name: ..., options}``."""


def build_nested(group: str, spec: Spec) -> Any:
    """Builds the plug-in of ``group`` that an option of the split pipeline names."""
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in options:
        raise ConfigError(f"{group[:-1]} needs a name", where="defense 'split_pipeline'", mend="add `name: ...`")
    return create(group, options.pop("name"), options, where="defense 'split_pipeline'")
