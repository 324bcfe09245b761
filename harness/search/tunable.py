"""The optional contract of a defense whose thresholds can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.errors import PluginError
from leakgauge.harness.scoring.compute import Flops
from leakgauge.harness.values.images import ImageSet


@runtime_checkable
class Tunable(Protocol):
    """A defense that can be rebuilt cheaply with other options.

    Attributes:
        cut: Edge blocks, each of which merges.
    """

    cut: int

    def tuned(self, **options: Any) -> Defense:
        """Returns the defense with these options changed, unprepared; embedded images are computed once for all."""

    def calibrated_thresholds(self, images: ImageSet, shares: Sequence[float]) -> list[float]:
        """Returns for each edge block the threshold at which a share in [0, 1] of the images' matches merges."""

    def flops(
        self, images: ImageSet, transmission: Transmission, questions: Any = None, output: Tensor | None = None
    ) -> Flops | None:
        """Returns exactly what ``measure_flops`` would, faster; None where the defense cannot."""


def tunable(defense: object, name: str) -> Tunable:
    """Returns the defense as a Tunable.

    Raises:
        PluginError: It does not offer the methods.
    """
    if not isinstance(defense, Tunable):
        raise PluginError(
            f"defense {name!r} cannot be searched",
            where="defense",
            hint="give it `cut`, `tuned`, `calibrated_thresholds` and `flops` (leakgauge.harness.search.tunable)",
        )
    return defense
