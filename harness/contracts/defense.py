"""The contract of defenses: a pipeline from images to the server's answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from leakgauge.harness.contracts.link import Channel, Encoded, Transmission
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.system.json_data import Json
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.layer_view import LayerView
from leakgauge.harness.values.questions import Questions
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


class Defense(ABC):
    """A pipeline from images to the server's answer. ``transmit`` is ``encode`` followed by ``send``."""

    name: ClassVar[str]
    grid: tuple[int, int]
    """Patch rows and columns of the victim."""
    channel: Channel
    """The channel between edge and server."""

    def prepare(self, calibration: ImageSet, rng: Streams) -> None:  # noqa: B027 - optional to override
        """Fits what edge and server share beforehand to images of the calibration split; called before all else."""

    @property
    def needs_calibration(self) -> bool:
        """Whether ``prepare`` must be called, for which a split is loaded; by default where it is overridden."""
        return type(self).prepare is not Defense.prepare

    @abstractmethod
    def encode(self, images: ImageSet, rng: Streams) -> Encoded:
        """Runs the edge half on images and serialises the payloads."""

    @abstractmethod
    def send(self, encoded: Encoded, rng: Streams, channel: Channel | None = None) -> Transmission:
        """Sends payloads once, through the defense's channel, or through ``channel``: an eavesdropper's."""

    @abstractmethod
    def respond(self, transmission: Transmission, questions: Questions | None = None) -> Tensor:
        """Runs the server half: the task output (B, ...)."""

    def transmit(self, images: ImageSet, rng: Streams) -> Transmission:
        """Encodes and sends images."""
        return self.send(self.encode(images, rng.child("encode")), rng.child("channel"))

    def unreduced(self) -> Defense:
        """Returns this defense without reduction and perturbations, all else equal; unprepared. Optional to offer.

        Raises:
            PluginError: The defense does not offer it.
        """
        raise PluginError(
            f"defense {self.name!r} cannot send unreduced tokens",
            hint="give it an `unreduced` method, or leave out the attack that asks for them",
        )

    def resolved(self) -> dict[str, Json]:
        """Returns what ``prepare`` made of what a suite leaves to calibration, as plain data for run.json.

        Thresholds that keep a wanted share of the tokens, say. Optional to offer; nothing by default.
        """
        return {}

    def tokens_kept(self, calibration: ImageSet, rng: Streams) -> float | None:
        """Returns the mean share, in (0, 1], of the tokens of a few calibration images that is left after the edge.

        What is left to calibration is decided on these images alone. Called unprepared, for ``validate``; optional to
        offer, None where it is not.
        """
        return None

    def inspect(self, image: ImageSet, rng: Streams) -> tuple[LayerView, ...]:
        """Returns one image's tokens after every edge block; ``rng`` is what ``encode`` gets. Optional to offer.

        Raises:
            ConfigError: The defense does not offer it.
        """
        raise ConfigError(f"defense {self.name!r} cannot be inspected", hint="give it an `inspect` method")

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Returns the unreduced tokens after the edge blocks, float32; gradients reach the images. Optional to offer.

        Args:
            images: (B, 3, H, W) in [0, 1] on the device of the defense.

        Raises:
            ConfigError: The defense does not offer it.
        """
        raise ConfigError(f"defense {self.name!r} cannot be differentiated", hint="give it an `edge_tokens` method")
