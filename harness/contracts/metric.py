"""The contract of metrics: a score of a reconstruction against its original."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor


class Metric(ABC):
    """A score of a reconstruction against its original, in a column of its own named ``name``."""

    name: ClassVar[str]
    leaks_when: ClassVar[Literal["higher", "lower"]]
    """Which way more is given away."""
    unit: ClassVar[str] = ""
    """Its unit; empty for none."""
    heading: ClassVar[str] = ""
    """What tables call it; its name, if empty."""
    digits: ClassVar[int] = 3
    """Decimals that it is shown with."""

    @abstractmethod
    def score(self, originals: Tensor, reconstructions: Tensor) -> Tensor:
        """Returns (B,) scores of images (B, 3, H, W) in [0, 1]; NaN means unscored."""
