"""How much an attack leaks with less data of its own."""

from __future__ import annotations

from attacks.wrapped import Spec, Wrapped
from harness.contracts import AttackerView
from harness.errors import ConfigError
from harness.images import ImageSet
from harness.learning import LearningCurve
from harness.seeding import Streams


class DataEfficiency(Wrapped):
    """Another attack on every k-th of the auxiliary images, so that ``n`` remain and all classes with them.

    Args:
        attack: The attack within: its name, or ``{name: ..., options}``.
        n: Auxiliary images that it gets; all there are, if fewer.
    """

    name = "data_efficiency"

    def __init__(self, attack: Spec, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 2:
            raise ConfigError(f"n = {n!r} is not a count of at least 2", mend="write n: 256")
        super().__init__(attack)
        self._n = n

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Fits the attack within to its share."""
        return self._inner.fit(view, auxiliary.spread(self._n), rng)
