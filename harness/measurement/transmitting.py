"""Runs both halves of a defense on more images than fit at once."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Channel, Encoded, Transmission
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams


def transmit_all(defense: Defense, images: ImageSet, rng: Streams, batch_size: int) -> Encoded:
    """Runs the edge on all images, batch by batch, with random numbers that depend on the image alone."""
    return Encoded.concatenate([defense.encode(batch, rng.child("encode")) for batch in images.batches(batch_size)])


def send(defense: Defense, encoded: Encoded, rng: Streams, channel: Channel | None = None) -> Transmission:
    """Sends what the edge made of images once; others send the same tokens again, so that they must stay as they are.

    Raises:
        PluginError: The channel or the defense wrote into the tokens that it was to carry.
    """
    before = _digest(encoded)
    sent = defense.send(encoded, rng, channel)
    if _digest(encoded) != before:
        carrier = channel or defense.channel
        raise PluginError(
            "the tokens that were to be carried have been written over",
            where=f"channel {getattr(carrier, 'name', '?')!r} of defense {defense.name!r}",
            hint="work on a copy, `sent.with_tokens(sent.tokens.clone())`",
        )
    return sent


def _digest(encoded: Encoded) -> tuple[int, ...]:
    batches = [batch for batch in (encoded.decoded, encoded.symbols) if batch is not None]
    tensors = [part for b in batches for part in (b.tokens, b.lengths, b.sizes, b.merge_map)]
    return tuple(zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data) for tensor in tensors)


def respond_all(defense: Defense, transmission: Transmission, batch_size: int, questions: Any = None) -> Tensor:
    """Runs the server half on a large transmission, batch by batch; ``questions`` are those about its images."""
    outputs = []
    for start in range(0, len(transmission.received), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(transmission.received)))
        part = Transmission(
            transmission.encoded, transmission.received.select(rows), transmission.channel_uses[rows], None
        )
        outputs.append(defense.respond(part, None if questions is None else questions.select(rows)))
    return joined(outputs)


def joined(outputs: list[Tensor]) -> Tensor:
    """Joins the outputs (b, ...) of batches; answers to fewer questions than in other batches are filled up (-1)."""
    most = max((output.shape[1] for output in outputs if output.ndim == 3), default=0)
    return torch.cat([pad(o, (0, 0, 0, most - o.shape[1]), value=-1) if o.ndim == 3 else o for o in outputs])
