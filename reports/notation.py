"""How numbers are written: units, signs, intervals, and ``unscored`` for what was not measured."""

from __future__ import annotations

import math
from typing import Any

from leakgauge.harness.scoring.measures import BUILT_IN

UNSCORED = "unscored"
_DIGITS = {"leakage": 2, "quality": 1, **{score.name: score.digits for score in BUILT_IN}}


def is_number(value: Any) -> bool:
    """Tells whether ``value`` is a number that was measured."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def number(value: Any, digits: int = 2, *, signed: bool = False, scale: float = 1.0) -> str:
    """Writes a number with a true minus sign, thousands apart; ``unscored`` for NaN."""
    if not is_number(value):
        return UNSCORED
    scaled = round(float(value) * scale, digits) + 0.0
    text = f"{scaled:+,.{digits}f}" if signed and scaled else f"{scaled:,.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def bounds(lo: Any, hi: Any, digits: int = 2, *, signed: bool = False, scale: float = 1.0) -> str:
    """Writes an interval, ``[1.20, 1.40]``; nothing where it was not measured."""
    if not (is_number(lo) and is_number(hi)):
        return ""
    ends = (number(end, digits, signed=signed, scale=scale) for end in (lo, hi))
    return f"[{', '.join(ends)}]"


def digits_of(name: str) -> int:
    """Returns the decimals that a score is shown with."""
    return _DIGITS[name]


def percent(value: Any, digits: int = 1) -> str:
    """Writes a share as a percentage."""
    text = number(value, digits, scale=100.0)
    return text if text == UNSCORED else f"{text} %"


def plural(count: int, noun: str) -> str:
    """Writes a count with its noun: ``1 cell``, ``2 cells``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
