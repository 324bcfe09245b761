"""Checks of options that perturbations share."""

from __future__ import annotations

import math
from typing import Any

from harness.errors import ConfigError


def check_number(name: str, value: Any, low: float, below: float = math.inf) -> float:
    """Returns the option ``value``; raises ConfigError unless it is a number with ``low`` <= value < ``below``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < below:
        limit = "a finite number" if below == math.inf else f"below {below:g}"
        raise ConfigError(f"{name} = {value!r} is not {limit} and at least {low:g}", mend=f"write {name}: 0.1")
    return float(value)


def check_switch(name: str, value: Any) -> bool:
    """Returns the option ``value``; raises ConfigError unless it is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} = {value!r} is neither true nor false", mend=f"write {name}: true")
    return value
