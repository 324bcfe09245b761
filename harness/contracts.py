"""The contracts that plug-ins implement: Task, Defense, Attack, Metric; reductions and links have modules of their own.

The author writes the small method; the harness owns the guarded call around it (``leakgauge.harness.guards``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from leakgauge.harness.declarations import Declarations
from leakgauge.harness.declarations import Knowledge as Knowledge  # noqa: PLC0414 - likewise
from leakgauge.harness.decoding import decode
from leakgauge.harness.errors import ConfigError, DataError, PluginError
from leakgauge.harness.images import ImageSet
from leakgauge.harness.inspection import LayerView
from leakgauge.harness.learning import LearningCurve
from leakgauge.harness.link import Channel, Encoded, Transmission
from leakgauge.harness.observation import Observation
from leakgauge.harness.reading import Reading, plain_reading
from leakgauge.harness.seeding import Streams
from leakgauge.harness.tokens import TokenBatch
from leakgauge.harness.victim import Victim as Victim  # noqa: PLC0414 - named here for all who import contracts

SplitName = Literal["attacker", "calibration", "search", "evaluation"]
SPLITS: tuple[SplitName, ...] = ("attacker", "calibration", "search", "evaluation")


class Task(ABC):
    """A data set, its victim and the quality of the victim's answers. ``version`` rises whenever numbers move."""

    name: ClassVar[str]
    version: ClassVar[int]

    @abstractmethod
    def victim(self) -> Victim:
        """Returns the victim, in evaluation mode on the CPU."""

    @abstractmethod
    def split(self, name: SplitName) -> ImageSet:
        """Returns the images of a split; splits are disjoint by content hash."""

    @abstractmethod
    def target(self, images: ImageSet) -> Tensor:
        """Returns what ``quality`` compares outputs with, (B, ...)."""

    @abstractmethod
    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns (B,) quality in [0, 1] of the victim's outputs (B, ...)."""

    def questions(self, images: ImageSet) -> Any:
        """Returns what is asked about images (``leakgauge.harness.questions``), which the server learns, or None."""
        return None

    def shifted(self) -> ImageSet | None:
        """Returns images of another domain than the task's, of its size, for attackers that have no better ones.

        Threat models with ``auxiliary: {domain: shifted}`` hand them out; None where the task has none to offer. They
        must share no image with any split, which is checked.
        """
        return None

    def attributes(self, images: ImageSet) -> dict[str, Tensor]:
        """Returns private attributes of the images by name, (B,) int64 classes from 0; empty where the task has none.

        An attribute is something other than what the task asks, which an image gives away all the same.
        """
        return {}

    @property
    @abstractmethod
    def quality_name(self) -> str:
        """What ``quality`` measures, for tables: ``top-1 accuracy``, say."""

    def reading(self) -> Reading:
        """Returns what was read. A task that reads files overrides it to say more; the harness adds ``undefended``."""
        return plain_reading(self, SPLITS)

    def missing(self) -> tuple[str, ...]:
        """Returns what this machine lacks to run the task, an item each, as far as that is quickly told."""
        return ()

    def read_image(self, data: bytes) -> Tensor:
        """Returns an image file of the user's, (3, px, px) uint8, as the task reads its own; raises as PIL does."""
        return decode(data, self.input_px())

    def input_px(self) -> int:
        """Returns the side of the task's square images; a task that knows it without loading a split overrides this."""
        height, width = self.split("evaluation").pixels.shape[2:]
        if height != width:
            raise DataError(f"images are {height} x {width} px, not square", where=f"task {self.name!r}")
        return int(height)


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
    def respond(self, transmission: Transmission, context: Any = None) -> Tensor:
        """Runs the server half: the task output (B, ...)."""

    projects_on_edge: bool = False
    """Whether the projector of a vision-language victim belongs to the edge."""

    def server_flops(self, transmission: Transmission, context: Any, output: Tensor) -> dict[str, Tensor] | None:
        """Returns GFLOP (B,) of the server by part, for questions ``context`` and the answers to them; None: measured.

        The parts are ``tower``, ``projector``, ``prefill`` and ``decoding``
        (``leakgauge.harness.scoring.compute.with_parts``).
        """
        return None

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
            mend="give it an `unreduced` method, or leave out the attack that asks for them",
        )

    def resolved(self) -> dict[str, Any]:
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
        raise ConfigError(f"defense {self.name!r} cannot be inspected", mend="give it an `inspect` method")

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Returns the unreduced tokens after the edge blocks, float32; gradients reach the images. Optional to offer.

        Args:
            images: (B, 3, H, W) in [0, 1] on the device of the defense.

        Raises:
            ConfigError: The defense does not offer it.
        """
        raise ConfigError(f"defense {self.name!r} cannot be differentiated", mend="give it an `edge_tokens` method")


class AttackerView(Protocol):
    """The attacker's handle on the system: it can push its own images through the defended edge, and no more."""

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


class Metric(ABC):
    """A score of a reconstruction against its original, in a column of its own named ``name``."""

    name: ClassVar[str]
    unit: ClassVar[str]
    leaks_when: ClassVar[Literal["higher", "lower"]]
    heading: ClassVar[str] = ""
    """What tables call it; its name, if empty."""
    digits: ClassVar[int] = 3
    """Decimals that it is shown with."""

    @abstractmethod
    def score(self, originals: Tensor, reconstructions: Tensor) -> Tensor:
        """Returns (B,) scores of images (B, 3, H, W) in [0, 1]; NaN means unscored."""
