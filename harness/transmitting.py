"""Runs both halves of a defense on more images than fit at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.contracts import Defense
from harness.images import ImageSet
from harness.link import Encoded, Transmission
from harness.seeding import Streams


def transmit_all(defense: Defense, images: ImageSet, rng: Streams, batch_size: int) -> Encoded:
    """Runs the edge on all images, batch by batch, with random numbers that depend on the image alone."""
    return Encoded.concatenate([defense.encode(batch, rng.child("encode")) for batch in images.batches(batch_size)])


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
