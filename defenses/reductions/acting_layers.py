"""The blocks in which a reduction acts, where it does not act in all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import NotNegative

Layers = Annotated[Sequence[NotNegative], Field(min_length=1)]
EVERY = range(sys.maxsize)


class ActingLayers:
    """Block numbers from 0: those that the user gave, or a method's own.

    Args:
        given: The option ``layers``; None takes the default.
        default: Ascending block numbers, of which those on the edge are taken.
    """

    def __init__(self, given: Layers | None, default: Layers) -> None:
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
                hint=f"give block numbers from 0 to {layers - 1}",
            )
        if self._layers[0] >= layers:
            raise ConfigError(
                f"it first acts in block {self._layers[0]}, but the edge has {layers} blocks",
                where=where,
                hint="cut later, or say where it acts: layers: [0]",
            )
