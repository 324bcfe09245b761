"""How much an attack leaks with less data of its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leakgauge.attacks.wrapped import AttackSpec, Wrapped
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.seeding import Streams


class DataEfficiency(Wrapped):
    """Another attack on every k-th of the auxiliary images, so that ``n`` remain and all classes with them.

    Args:
        attack: The attack within: its name, or ``{name: ..., options}``.
        n: Auxiliary images that it gets; all there are, if fewer.
    """

    name = "data_efficiency"

    def __init__(self, attack: AttackSpec, n: Annotated[int, Field(ge=2)]) -> None:
        super().__init__(attack)
        if not self.knowledge.auxiliary:
            raise ConfigError(
                f"attack {self._inner.name!r} takes no auxiliary images", hint="leave data_efficiency out of it"
            )
        self._n = n

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Fits the attack within to its share."""
        return self._inner.fit(view, auxiliary.evenly_spaced(self._n), rng)
