"""The contract of defenses: a pipeline from images to the server's answer, and the abilities that it may have beside.

``Defense`` is what every defense must be. An ability is a protocol: a defense has it by having its members, without
deriving from anything. The harness asks for each in one place; ``inspectable`` and its like name what is missing.

    ability          asked for by                                         without it
    Previewable      ``validate`` (``run.preview.forecast``)              its token count is left out
    Inspectable      ``inspect`` (``run.inspect``)                        refused
    Ablatable        attacks that train on unreduced tokens (the view)    such an attack fails
    Differentiable   white-box attacks (the view)                         such an attack fails
    Tunable          ``search`` (``search.trials.evaluation``)            refused
    Accountable      tasks that ask questions (``scoring.compute``)       refused
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from leakgauge.harness.contracts.link import Channel, Encoded, Transmission
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.system.json_data import Json
from leakgauge.harness.values.flops import Flops
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

    def resolved(self) -> dict[str, Json]:
        """Returns what ``prepare`` made of what a suite leaves to calibration, as plain data for run.json.

        Thresholds that keep a wanted share of the tokens, say; nothing by default.
        """
        return {}

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


@runtime_checkable
class Previewable(Protocol):
    """A defense that tells before a run how many tokens it will keep."""

    def tokens_kept(self, calibration: ImageSet, rng: Streams) -> float:
        """Returns the mean share, in (0, 1], of the tokens of a few calibration images that is left after the edge.

        What is left to calibration is decided on these images alone. Called unprepared.
        """


@runtime_checkable
class Inspectable(Protocol):
    """A defense whose edge can be watched at work."""

    def inspect(self, image: ImageSet, rng: Streams) -> tuple[LayerView, ...]:
        """Returns one image's tokens after every edge block; ``rng`` is what ``encode`` gets."""


@runtime_checkable
class Ablatable(Protocol):
    """A defense that can be had without what reduces and perturbs its tokens."""

    def unreduced(self) -> Defense:
        """Returns this defense without reduction and perturbations, all else equal; unprepared."""


@runtime_checkable
class Differentiable(Protocol):
    """A defense whose edge passes gradients to its images."""

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Returns the unreduced tokens after the edge blocks, float32; gradients reach the images.

        Args:
            images: (B, 3, H, W) in [0, 1] on the device of the defense.
        """


@runtime_checkable
class Tunable(Protocol):
    """A defense that can be rebuilt cheaply with other options.

    Attributes:
        cut: Edge blocks, each of which merges.
    """

    cut: int

    def tuned(self, **options: object) -> Defense:
        """Returns the defense with these options changed, unprepared; embedded images are computed once for all."""

    def calibrated_thresholds(self, images: ImageSet, shares: Sequence[float]) -> list[float]:
        """Returns for each edge block the threshold at which a share in [0, 1] of the images' matches merges."""

    def flops(
        self,
        images: ImageSet,
        transmission: Transmission,
        questions: Questions | None = None,
        output: Tensor | None = None,
    ) -> Flops | None:
        """Returns exactly what ``measure_flops`` would, faster; None where the defense cannot."""


@runtime_checkable
class Accountable(Protocol):
    """A defense that tells what answering questions costs its server; needed where a task asks.

    Attributes:
        projects_on_edge: Whether the projector of the victim belongs to the edge.
    """

    projects_on_edge: bool

    def server_flops(
        self, transmission: Transmission, questions: Questions, output: Tensor
    ) -> dict[str, Tensor] | None:
        """Returns GFLOP (B,) of the server by part, for the questions and the answers to them; None: measured.

        The parts are ``tower``, ``projector``, ``prefill`` and ``decoding`` (``scoring.compute.with_parts``).
        """


def inspectable(defense: Defense) -> Inspectable:
    """Returns the defense as one to inspect; raises ConfigError where it does not offer that."""
    if not isinstance(defense, Inspectable):
        raise ConfigError(f"defense {defense.name!r} cannot be inspected", hint="give it an `inspect` method")
    return defense


def ablatable(defense: Defense) -> Ablatable:
    """Returns the defense as one that can be had unreduced; raises PluginError where it does not offer that."""
    if not isinstance(defense, Ablatable):
        raise PluginError(
            f"defense {defense.name!r} cannot send unreduced tokens",
            hint="give it an `unreduced` method, or leave out the attack that asks for them",
        )
    return defense


def differentiable(defense: Defense) -> Differentiable:
    """Returns the defense as one with gradients; raises ConfigError where it does not offer them."""
    if not isinstance(defense, Differentiable):
        raise ConfigError(f"defense {defense.name!r} cannot be differentiated", hint="give it an `edge_tokens` method")
    return defense


def tunable(defense: object, name: str) -> Tunable:
    """Returns the defense as one to search; raises PluginError where it does not offer that."""
    if not isinstance(defense, Tunable):
        raise PluginError(
            f"defense {name!r} cannot be searched",
            where="defense",
            hint="give it `cut`, `tuned`, `calibrated_thresholds` and `flops` (leakgauge.harness.contracts.defense)",
        )
    return defense
