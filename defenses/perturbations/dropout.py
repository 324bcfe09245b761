"""Random withholding of tokens."""

from __future__ import annotations

import torch

from defenses.perturbations.options import check_number
from defenses.perturbations.selection import patch_counts, take_patches
from harness.link import Perturbation
from harness.seeding import Streams
from harness.tokens import TokenBatch


class TokenDropout(Perturbation):
    """Withholds each patch token with probability p, whatever its size; its patches count as dropped.

    Protected tokens stay, and so does one patch token where chance would withhold all.

    Args:
        p: Probability in [0, 1).
    """

    name = "token_dropout"

    def __init__(self, p: float) -> None:
        self._p = check_number("p", p, 0.0, 1.0)

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
