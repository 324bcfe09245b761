"""The contract of model-inversion attacks, and the handle on the system that they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from leakgauge.harness.contracts.declarations import Declarations
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


class AttackerView(Protocol):
    """The attacker's handle on the system: it can push its own images through the defended edge, and no more.

        auxiliary images (the attacker's own) -> observe -> Observation, what the threat model grants of it
                                                                 | fit: what the attack learns from
        images under attack -> edge -> channel -> Observation ---+ reconstruct -> images (B, 3, H, W) in [0, 1]

    What is said of ``observe`` holds for every image alone: it never depends on its batch mates.
    """

    image_shape: tuple[int, int, int]
    grid: tuple[int, int]
    device: torch.device
    noisy: bool
    """Whether another ``draw`` gives another observation of the same images."""

    def observe(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns what the attacker would see, were the edge to transmit ``images``; cached between attacks."""

    def trace(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns ``observe(images, draw)`` with the sizes, order and merge map of these images (``white-box``).

        Whoever holds the victim's weights runs the edge on its own images and watches where their patches go.
        """

    def unreduced(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns these images' tokens without reduction and perturbation, same codec and channel (``white-box``).

        Every patch has a token of its own, in order, and the merge map says so.
        """

    def branch(self) -> AttackerView:
        """Returns the view once more; what it is asked from now on is forgotten with it, for pictures shown once."""

    def predict(self, images: Tensor) -> Tensor:
        """Queries the victim (needs ``query``): (B, classes) for images (B, 3, H, W) in [0, 1]."""

    def white_box(self) -> Victim:
        """Returns the victim itself (needs ``white-box``)."""

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Returns what the edge makes of images without reduction (``white-box``); gradients reach the images.

        Args:
            images: (B, 3, H, W) in [0, 1] on ``device``.
        """


class Attack(Declarations, ABC):
    """A model-inversion attack. It never sees the images it is scored on."""

    floor: ClassVar[bool] = False
    """True for attacks that rebuild nothing specific; leakage is counted above the best of them."""

    @abstractmethod
    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Learns from the auxiliary images; returns the learning curve where there is training."""

    @abstractmethod
    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Returns reconstructions (B, 3, H, W) in [0, 1]."""
