from typing import Annotated

import torch
from pydantic import Field

from leakgauge.harness.contracts.reduction import Assignment, Reduction
from leakgauge.harness.values.tokens import DROPPED


class Stride(Reduction):
    """Keeps every n-th patch token in the first block and drops the others.

    Args:
        every: n; 2 keeps half.
    """

    name = "stride"
    merges = False

    def __init__(self, every: Annotated[int, Field(ge=2)] = 2):
        self.every = every

    def active(self, layer, layers):
        return layer == 0

    def assign(self, state, rng):
        # Rows are packed, image after image; the first `prefix` of each are protected.
        stays = torch.cat([self._stays(int(length), state.prefix) for length in state.lengths])
        destination = torch.where(stays, stays.cumsum(0) - 1, DROPPED)
        lengths = torch.stack([own.sum() for own in stays.split(state.lengths.tolist())])
        return Assignment(destination.to(state.keys.device), lengths.to(state.lengths.device))

    def _stays(self, length, prefix):
        place = torch.arange(length)
        return (place < prefix) | ((place - prefix) % self.every == 0)
