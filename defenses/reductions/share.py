"""The share of the patch tokens that a reduction keeps in a block."""

from __future__ import annotations

import math

from leakgauge.defenses.reductions.per_layer import PerLayer


class ShareOfPatches(PerLayer):
    """A share in (0, 1] for all edge blocks, or a list with one for each; 1 keeps all."""

    def count(self, layer: int, patches: int) -> int:
        """Returns how many of ``patches`` tokens stay in a block: rounded up, so that one does."""
        # A share such as .07 of 100 is just above 7 in floating point.
        return math.ceil(self[layer] * patches - 1e-9)
