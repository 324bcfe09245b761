"""Builds the plug-ins that a defense's options name."""

from __future__ import annotations

from typing import Any

from leakgauge.harness.suite.options import Spec
from leakgauge.harness.suite.registry import create, name_and_options


def build_nested(group: str, spec: Spec) -> Any:
    """Builds the plug-in of ``group`` that an option of the split pipeline names."""
    where = "defense 'split_pipeline'"
    name, options = name_and_options(group, spec, f"{where}: {group[:-1]}")
    return create(group, name, options, where=where)
