"""An option with one value for every edge block, or a list with one for each."""

from __future__ import annotations

from collections.abc import Sequence

from leakgauge.harness.errors import ConfigError


class PerLayer:
    """A number, or a list of numbers with one for each edge block; what they may be, the option's annotation says.

    Args:
        name: Name of the option, for messages.
        value: What the suite says.
    """

    def __init__(self, name: str, value: float | Sequence[float]) -> None:
        self._name = name
        self._shared = not isinstance(value, Sequence)
        self._values = [float(number) for number in (value if isinstance(value, Sequence) else [value])]

    def __getitem__(self, layer: int) -> float:
        return self._values[0] if self._shared else self._values[layer]

    def check(self, layers: int, reduction: str) -> None:
        """Raises ConfigError where a list does not have one value for each of ``layers`` edge blocks."""
        if not self._shared and len(self._values) != layers:
            raise ConfigError(
                f"{len(self._values)} {self._name} for {layers} edge blocks",
                where=f"reduction {reduction!r}",
                hint=f"give {layers} {self._name} (one for each block before the cut), or a single number",
            )
