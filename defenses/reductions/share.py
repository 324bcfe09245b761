"""The share of the patch tokens that a reduction keeps in a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from defenses.reductions.per_layer import PerLayer
from harness.errors import ConfigError


class KeptShare(PerLayer):
    """A share in (0, 1] for all edge blocks, or a list with one for each; 1 keeps all.

    Args:
        name: Name of the option, for messages.
        value: What the suite says.

    Raises:
        ConfigError: A value is not a number or out of range.
    """

    def __init__(self, name: str, value: Any) -> None:
        mend = "give the share of the tokens that stays, in (0, 1]"
        super().__init__(name, value, 0.0, 1.0, mend=mend)
        values = value if isinstance(value, Sequence) else [value]
        if 0 in values:
            raise ConfigError(f"{name} = {value!r} keeps nothing", mend=mend)

    def count(self, layer: int, patches: int) -> int:
        """Returns how many of ``patches`` tokens stay in a block: rounded up, so that one does."""
        # A share such as .07 of 100 is just above 7 in floating point.
        return math.ceil(self[layer] * patches - 1e-9)
