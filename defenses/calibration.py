"""Thresholds that merge a wanted share of the matches, calibrated block by block on given images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from defenses.attention import attention_half, mlp_half
from defenses.backbones.backbone import Backbone
from defenses.edge import reduce_tokens
from defenses.reductions.bipartite import OrderName, SplitName
from defenses.reductions.similarity_merge import SimilarityName
from defenses.reductions.threshold import NEVER, ThresholdMerge
from harness.errors import ConfigError
from harness.reduction import LayerState
from harness.seeding import Streams


@torch.no_grad()
def calibrate_thresholds(
    backbone: Backbone,
    images: Tensor,
    shares: Sequence[float],
    *,
    proportional: bool = True,
    similarity: SimilarityName = "keys",
    split: SplitName = "alternating",
    order: OrderName = "kept",
    cap: float = 0.5,
) -> list[float]:
    """Finds for each block the tau that lets ``shares`` of the matches of all images together merge.

    The similarities of one block range from .83 to .99 where another's are all above .98, so that one tau for all
    blocks, or a search over raw tau, is a poor choice; shares are comparable between blocks and models. Thresholds
    hold for the number type in which they were calibrated.

    Args:
        backbone: The model.
        images: (B, 3, H, W) normalised; pin this list, thresholds depend on it.
        shares: One share in [0, 1] for each edge block; 0 never merges.
        proportional: Proportional attention.
        similarity: As in ThresholdMerge.
        split: As in ThresholdMerge.
        order: As in ThresholdMerge.
        cap: As in ThresholdMerge.

    Returns:
        One tau for each of ``shares``.

    Raises:
        ConfigError: A share is out of range, or there are more of them than blocks.
    """
    if len(shares) > backbone.depth or not all(0 <= share <= 1 for share in shares):
        raise ConfigError(
            f"shares {list(shares)!r} are not in [0, 1], at most {backbone.depth} of them", mend="give one a block"
        )
    batch, found = backbone.embed(images), list[float]()
    ids = tuple(str(i) for i in range(len(images)))
    for layer, share in enumerate(shares):
        attended = attention_half(backbone, layer, batch, proportional=proportional, keys=True)
        batch = batch.with_tokens(attended.tokens)
        assert attended.keys is not None
        state = LayerState(
            attended.keys, batch.sizes, None, batch.lengths, batch.prefix, layer, ids, tokens=attended.tokens
        )
        merge = ThresholdMerge(NEVER, similarity, split, order, cap)
        tau = threshold_for_share(merge.pairs(state).similarity, share)
        batch = reduce_tokens(batch, state, ThresholdMerge(tau, similarity, split, order, cap), Streams(0))
        batch = mlp_half(backbone, layer, batch)
        found.append(tau)
    return found


def threshold_for_share(similarity: Tensor, share: float) -> float:
    """Returns the lowest tau such that at most ``share`` of the similarities (P,) exceed it; NEVER for none."""
    merges = int(share * len(similarity) + 1e-9)
    if merges == 0:
        return NEVER
    ordered = similarity.sort(descending=True).values
    tau = float(ordered[merges]) if merges < len(ordered) else -1.0
    return max(-1.0, min(tau, NEVER))
