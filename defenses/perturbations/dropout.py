"""Random withholding of tokens."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from leakgauge.defenses.perturbations.selection import patch_counts, take_patches
from leakgauge.harness.contracts.link import Perturbation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


class TokenDropout(Perturbation):
    """Withholds each patch token with probability p, whatever its size; its patches count as dropped.

    Protected tokens stay, and so does one patch token where chance would withhold all.

    Args:
        p: Probability in [0, 1).
    """

    name = "token_dropout"

    def __init__(self, p: Annotated[float, Field(ge=0, lt=1)]) -> None:
        self._p = p

    def apply(self, batch: TokenBatch, ids: tuple[str, ...], rng: Streams) -> TokenBatch:
        """Returns the tokens that stay, in their order."""
        orders = []
        for count, image_id in zip(patch_counts(batch), ids, strict=True):
            drawn = torch.rand(count, generator=rng.child(self.name, image_id).torch())
            stays = drawn >= self._p
            if count:
                stays[drawn.argmax()] = True  # every token is equally likely to be the last
            orders.append(stays.nonzero().squeeze(1))
        return take_patches(batch, orders) if orders else batch
