"""Random order of the tokens."""

from __future__ import annotations

import torch

from leakgauge.defenses.perturbations.selection import patch_counts, take_patches
from leakgauge.harness.contracts.link import Perturbation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


class Shuffle(Perturbation):
    """Sends the patch tokens in a random order, another one for each image; protected tokens stay first.

    The server half does not need the order: attention and pooling see a set. What it hides is little where token
    values still carry their position embedding.
    """

    name = "shuffle"

    def apply(self, batch: TokenBatch, ids: tuple[str, ...], rng: Streams) -> TokenBatch:
        """Returns the same tokens in another order."""
        orders = [
            torch.randperm(count, generator=rng.child(self.name, image_id).torch())
            for count, image_id in zip(patch_counts(batch), ids, strict=True)
        ]
        return take_patches(batch, orders) if orders else batch
