"""A defense of two functions: what the edge makes of images, and what the server answers; the link is ours."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from leakgauge.defenses.wire.link import Link
from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Channel, Encoded, Transmission
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import PluginError
from leakgauge.harness.suite.options import NestedPlugin, Spec
from leakgauge.harness.suite.registry import create_nested
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

PREPARATION_IMAGES = 128


class SimpleDefense(Defense):
    """A defense that sends as many tokens of every image, and computes them by a function of its own.

        images (B, 3, H, W) -> edge -> tokens (B, n, D) -> codec, packets, channel -> server -> output (B, ...)

    Options of its own go beside ``**given``: ``def __init__(self, width: Count = 8, **given)``, which hands ``given``
    on to this constructor.

    Args:
        victim: The victim.
        device: Where to compute.
        channel: Channel between edge and server.
        codec: Turns token values into payload bytes.

    Attributes:
        grid: Rows and columns of the picture's parts, one token each; (1, 1) where one token stands for all of it.
        victim: The victim, on ``device``.
    """

    grid = (1, 1)

    def __init__(
        self,
        victim: Victim,
        device: torch.device,
        channel: Annotated[Spec, NestedPlugin("channels")] = "ideal",
        codec: Annotated[Spec, NestedPlugin("codecs")] = "float32",
    ) -> None:
        victim.to(device)
        self.victim, self.device = victim, device
        # A class that leaves its name to the entry point has none yet.
        self._where = f"defense {getattr(self, 'name', type(self).__name__)!r}"
        self._count = self.grid[0] * self.grid[1]
        carrier = create_nested("channels", channel, where=self._where)
        self._link = Link(carrier, create_nested("codecs", codec, where=self._where), self._count, "drop")
        self.channel = self._link.channel
        self._mean: Tensor | None = None

    @abstractmethod
    def edge(self, images: Tensor) -> Tensor:
        """Returns the tokens (B, rows * columns, D) of images (B, 3, H, W) in [0, 1], both on ``device``.

        What becomes of an image depends on that image alone.
        """

    @abstractmethod
    def server(self, tokens: Tensor) -> Tensor:
        """Returns the task output (B, ...) for the tokens (B, rows * columns, D) that arrived, on ``device``."""

    @property
    def needs_calibration(self) -> bool:
        """Whether the codec is fitted, or lost tokens are stood in for."""
        return self._link.needs_tokens

    def prepare(self, calibration: ImageSet, rng: Streams) -> None:
        """Fits the codec, and what stands in for lost tokens, to images of the calibration split."""
        if self.needs_calibration:
            batch = self._batch(calibration.evenly_spaced(PREPARATION_IMAGES))
            self._mean = batch.tokens.reshape(len(batch), self._count, -1).mean(dim=0)
            self._link.prepare(batch, rng)

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Returns the tokens of images (B, 3, H, W) in [0, 1]; gradients reach the images where ``edge`` lets them."""
        tokens = self.edge(images)
        if tokens.ndim != 3 or tokens.shape[:2] != (len(images), self._count):
            raise PluginError(
                f"edge returned {tuple(tokens.shape)} for {len(images)} images and the grid {self.grid}",
                where=self._where,
                hint=f"return ({len(images)}, {self._count}, width), or state another `grid`",
            )
        return TokenBatch.from_uniform(tokens.float(), prefix=0)

    def encode(self, images: ImageSet, rng: Streams) -> Encoded:
        """Runs the edge and serialises a packet an image."""
        batch = self._batch(images)
        return self._link.encode(batch, images.ids, batch.lengths[:, None], sizes_sent=False)

    def send(self, encoded: Encoded, rng: Streams, channel: Channel | None = None) -> Transmission:
        """Sends payloads once, through the defense's channel or an eavesdropper's.

        A packet holds an image: where it is lost, the mean tokens of the calibration images stand in for its own.
        """
        sent = self._link.send(encoded, rng, channel)
        if sent.lost is None or self._mean is None:
            return sent
        tokens = self._mean.repeat(len(sent.received), 1, 1)
        tokens[sent.received.lengths > 0] = sent.received.tokens.reshape(-1, *self._mean.shape)
        return replace(sent, received=TokenBatch.from_uniform(tokens, prefix=0))

    def respond(self, transmission: Transmission, questions: object = None) -> Tensor:
        """Runs the server on what was received."""
        received = transmission.received.to(self.device)
        with torch.no_grad():
            return self.server(received.tokens.reshape(len(received), self._count, -1)).float().cpu()

    def _batch(self, images: ImageSet) -> TokenBatch:
        """Returns the tokens of images as they enter the link: float32, on the CPU, checked."""
        with torch.no_grad():
            batch = self.edge_tokens(images.images().to(self.device)).to("cpu")
        batch.check()
        return batch
