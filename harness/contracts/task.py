"""The contract of tasks: a data set, its victim, and the quality of its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from leakgauge.harness.contracts.reading import Reading, plain_reading
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.decoding import decode
from leakgauge.harness.values.images import SPLITS, ImageSet, SplitName
from leakgauge.harness.values.questions import Questions


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

    def questions(self, images: ImageSet) -> Questions | None:
        """Returns what is asked about images, which the server learns, or None."""
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


class LabelledTask(Task):
    """A task of labelled images whose victim names the class: images and a model, and all else follows.

    The images are divided in the order in which they come, by ``shares``; quality is top-1 accuracy. The model is made
    with torch's random numbers seeded with 0, and its victim is named and hashed by its class and weights.

    Attributes:
        shares: Share of the images in each split but the attacker's, which has the rest.
        mean: Per-channel mean that the model was trained with, of images in [0, 1].
        std: Per-channel standard deviation, likewise.
    """

    version = 1
    quality_name = "top-1 accuracy"
    shares: ClassVar[Mapping[str, float]] = {"calibration": 0.1, "search": 0.1, "evaluation": 0.2}
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @abstractmethod
    def images(self) -> ImageSet:
        """Returns all images, with labels, each content once; called once."""

    @abstractmethod
    def model(self) -> nn.Module:
        """Returns the network, head included, on the CPU; called once."""

    @cached_property
    def _splits(self) -> dict[str, ImageSet]:
        images, where = self.images(), f"task {self.name!r}"
        if images.labels is None:
            raise DataError(
                "images carry no labels", where=where, hint="give them: ImageSet.from_pixels(pixels, labels)"
            )
        counts = {name: int(share * len(images)) for name, share in self.shares.items()}
        counts["attacker"] = len(images) - sum(counts.values())
        if min(counts.values()) < 1:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(f"{len(images)} images leave a split empty ({said})", where=where, hint="give more images")
        parts = torch.split(torch.arange(len(images)), [counts[name] for name in SPLITS])
        return {name: images.select(rows) for name, rows in zip(SPLITS, parts, strict=True)}

    @cached_property
    def _victim(self) -> Victim:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self.model().eval()
        return Victim.of(model, self.mean, self.std)

    def victim(self) -> Victim:
        """Returns the model with what feeds it."""
        return self._victim

    def split(self, name: SplitName) -> ImageSet:
        """Returns the images of a split."""
        return self._splits[name]

    def target(self, images: ImageSet) -> Tensor:
        """Returns the labels (B,)."""
        assert images.labels is not None
        return images.labels

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns (B,) 1 where the top class of the outputs (B, classes) is the label, else 0."""
        return (output.argmax(dim=1).cpu() == target).float()
