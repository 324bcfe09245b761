"""An option with one value for every edge block, or a list with one for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.errors import ConfigError


class PerLayer:
    """A number, or a list of numbers with one for each edge block.

    Args:
        name: Name of the option, for messages.
        value: What the suite says.
        low: Smallest value allowed.
        high: Largest value allowed.
        integer: Whether values must be whole numbers.
        mend: What to do about a value out of range.

    Raises:
        ConfigError: A value is not a number or out of range.
    """

    def __init__(
        self, name: str, value: Any, low: float, high: float = math.inf, *, integer: bool = False, mend: str
    ) -> None:
        self._name = name
        self._shared = not isinstance(value, Sequence) or isinstance(value, str)
        values: list[Any] = [value] if self._shared else list(value)
        if not values:
            raise ConfigError(f"{name} is empty", mend=mend)
        for i, number in enumerate(values):
            whole = isinstance(number, int) and not isinstance(number, bool)
            if not (whole or (isinstance(number, float) and not integer)) or not low <= number <= high:
                place = name if self._shared else f"{name}[{i}]"
                limits = f"in [{low:g}, {high:g}]" if high < math.inf else f"at least {low:g}"
                kind = "a whole number " if integer else ""
                raise ConfigError(f"{place} = {number!r} is not {kind}{limits}", mend=mend)
        self._values = [float(number) for number in values]

    def __getitem__(self, layer: int) -> float:
        return self._values[0] if self._shared else self._values[layer]

    def check(self, layers: int, reduction: str) -> None:
        """Raises ConfigError where a list does not have one value for each of ``layers`` edge blocks."""
        if not self._shared and len(self._values) != layers:
            raise ConfigError(
                f"{len(self._values)} {self._name} for {layers} edge blocks",
                where=f"reduction {reduction!r}",
                mend=f"give {layers} {self._name} (one for each block before the cut), or a single number",
            )
