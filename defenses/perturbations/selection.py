"""Takes some tokens of each image, in a given order; sizes and merge map follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leakgauge.harness.values.tokens import DROPPED, TokenBatch


def patch_counts(batch: TokenBatch) -> list[int]:
    """Returns the patch tokens of each image."""
    return [int(length) - batch.prefix for length in batch.lengths.tolist()]


def take_patches(batch: TokenBatch, orders: Sequence[Tensor]) -> TokenBatch:
    """Returns each image's protected tokens, then the patch tokens that its order names.

    Args:
        batch: Packed tokens.
        orders: For each image (K,) int64 on the CPU, distinct patch tokens counted from 0 after the protected ones.
            The patches of those that are not named count as dropped.
    """
    device, prefix = batch.tokens.device, batch.prefix
    rows, maps = [], []
    starts = batch.offsets[:-1].tolist()
    for start, count, order, old_map in zip(starts, patch_counts(batch), orders, batch.merge_map, strict=True):
        kept = torch.cat([torch.arange(prefix), prefix + order]).to(device)
        rows.append(start + kept)
        # One entry more than there are tokens: DROPPED is -1 and finds itself at the end.
        place = torch.full((prefix + count + 1,), DROPPED, device=device)
        place[kept] = torch.arange(len(kept), device=device)
        maps.append(place[old_map])
    taken = torch.cat(rows)
    lengths = torch.tensor([prefix + len(order) for order in orders], device=device)
    return TokenBatch(batch.tokens[taken], lengths, batch.sizes[taken], torch.stack(maps), prefix)
