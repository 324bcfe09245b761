"""Contracts of probes: attacks on what an image shows or whose it is, rather than on its pixels.

Probes are named in suites among the attacks. They answer a question and paint no picture, so that their cells have no
PSNR; the harness scores the answers, and probes never see what they are scored against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Declarations
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

LABEL = "label"
"""Name under which the task's own label is asked for as an attribute."""


class AttributeProbe(Declarations, ABC):
    """Predicts an attribute of the image behind an observation.

    Attributes:
        attribute: Which one of ``Task.attributes``, or ``label``; the suite chooses it.
    """

    proves_on_baseline: ClassVar[bool] = True
    """Whether this probe must beat chance on the undefended payload before a low score elsewhere counts. False for one
    that reads only what the undefended payload does not vary in, such as the number of tokens: it cannot beat chance
    there, however well it works.
    """
    attribute: str

    @abstractmethod
    def fit(
        self, view: AttackerView, auxiliary: ImageSet, answers: Tensor, classes: int, rng: Streams
    ) -> LearningCurve | None:
        """Learns from the auxiliary images and their own attribute, ``answers`` (B,) int64 below ``classes``."""

    @abstractmethod
    def predict(self, observations: Observation, rng: Streams) -> Tensor:
        """Returns (B, classes) scores; the highest is the answer, and the order of images by a score gives its AUC."""


class IdentityProbe(Declarations, ABC):
    """Finds the image behind an observation in a gallery of candidates."""

    proves_on_baseline: ClassVar[bool] = True
    """As for an AttributeProbe."""

    @abstractmethod
    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Learns from the auxiliary images."""

    @abstractmethod
    def rank(self, observations: Observation, view: AttackerView, gallery: ImageSet, rng: Streams) -> Tensor:
        """Returns (B, G) scores of the candidates, highest for the one that the observation seems to come from.

        Args:
            observations: What was seen of B images.
            view: The attacker's handle; it may push the candidates through the edge as its own images.
            gallery: G candidates without labels, in an order that the harness draws; the originals are among them.
            rng: The attack's random streams.
        """


Attacker = Attack | AttributeProbe | IdentityProbe
"""Whatever a suite may name among its attacks."""
Kind = Literal["reconstruction", "attribute", "identity"]
_KINDS: dict[Kind, type] = {"reconstruction": Attack, "attribute": AttributeProbe, "identity": IdentityProbe}


def adapts(attacker: object) -> bool:
    """Tells whether an attacker trains on the very operating point that it attacks, where it may."""
    return bool(getattr(attacker, "adaptive", True))


def kind_of(attacker: object) -> Kind | None:
    """Returns which of the three contracts an object implements; None where it is no attacker."""
    return next((kind for kind, contract in _KINDS.items() if isinstance(attacker, contract)), None)
