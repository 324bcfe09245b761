"""The contract of tasks: a data set, its victim, and the quality of its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

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
