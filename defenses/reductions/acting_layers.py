"""The blocks in which a reduction acts, where it does not act in all."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.errors import ConfigError

Layers = Sequence[int]
EVERY = range(sys.maxsize)


class ActingLayers:
    """Block numbers from 0: those that the user gave, or a method's own.

    Args:
        given: The option ``layers``; None takes the default.
        default: Ascending block numbers, of which those on the edge are taken.

    Raises:
        ConfigError: ``given`` is not a list of block numbers.
    """

    def __init__(self, given: Layers | None, default: Layers) -> None:
        if given is not None and not _valid(given):
            raise ConfigError(
                f"layers = {given!r} is not a list of block numbers", mend="count from 0, as in layers: [3, 6, 9]"
            )
        self._given = given is not None
        self._layers = default if given is None else tuple(sorted(given))

    def __contains__(self, layer: int) -> bool:
        return layer in self._layers

    def check(self, layers: int, reduction: str) -> None:
        """Raises ConfigError where a given block, or each of the default ones, is not among ``layers`` edge blocks."""
        where = f"reduction {reduction!r}"
        if self._given and self._layers[-1] >= layers:
            raise ConfigError(
                f"layers names block {self._layers[-1]}, but the edge has {layers} blocks",
                where=where,
                mend=f"give block numbers from 0 to {layers - 1}",
            )
        if self._layers[0] >= layers:
            raise ConfigError(
                f"it first acts in block {self._layers[0]}, but the edge has {layers} blocks",
                where=where,
                mend="cut later, or say where it acts: layers: [0]",
            )


def _valid(layers: Layers) -> bool:
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        return False
    return all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in layers)
