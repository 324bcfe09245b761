"""The reduction that leaves every token alone: the undefended setting of the pipeline."""

from __future__ import annotations

from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.values.seeding import Streams


class NoReduction(Reduction):
    """Keeps all tokens."""

    name = "none"
    merges = False

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Returns None: nothing moves."""
        return None

    def active(self, layer: int, layers: int) -> bool:
        """Returns False: nothing is computed."""
        return False
