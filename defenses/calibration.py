"""Thresholds that merge a wanted share of the matches, calibrated block by block on given images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.edge import run_edge
from leakgauge.defenses.reductions.bipartite import OrderName, Pairs, SplitName
from leakgauge.defenses.reductions.similarity_merge import SimilarityMerge, SimilarityName
from leakgauge.defenses.reductions.threshold import NEVER
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.reduction import LayerState
from leakgauge.harness.seeding import Streams
from leakgauge.harness.tokens import TokenBatch


@torch.no_grad()
def calibrate_thresholds(
    backbone: Backbone,
    batch: TokenBatch,
    shares: Sequence[float],
    *,
    proportional: bool = True,
    similarity: SimilarityName = "keys",
    split: SplitName = "alternating",
    order: OrderName = "kept",
    cap: float = 0.5,
) -> list[float]:
    """Finds for each block a tau that lets ``shares`` of the matches of all images together merge.

    The similarities of one block range from .83 to .99 where another's are all above .98, so that one tau for all
    blocks, or a search over raw tau, is a poor choice; shares are comparable between blocks and models. Thresholds
    hold for the number type in which they were calibrated.

    Args:
        backbone: The model.
        batch: Embedded images; pin their list, thresholds depend on it.
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
    calibrating = _Calibrating(shares, similarity, split, order, cap)
    ids = tuple(str(i) for i in range(len(batch)))
    run_edge(backbone, batch, ids, calibrating, Streams(0), cut=len(shares), proportional=proportional)
    return calibrating.found


class _Calibrating(SimilarityMerge):
    """Merges the wanted share of the matches of all images together, and notes the tau that does so.

    No defense: here images of a batch do depend on one another.
    """

    name = "calibrating"

    def __init__(
        self, shares: Sequence[float], similarity: SimilarityName, split: SplitName, order: OrderName, cap: float
    ) -> None:
        super().__init__(similarity, split, order, cap)
        self._shares, self.found = shares, [NEVER] * len(shares)

    def select(self, pairs: Pairs, state: LayerState) -> Tensor:
        """Selects the pairs above the block's tau."""
        tau = threshold_for_share(pairs.similarity, self._shares[state.layer])
        self.found[state.layer] = tau
        return pairs.similarity > tau if tau < NEVER else torch.zeros_like(pairs.similarity, dtype=torch.bool)


def threshold_for_share(similarity: Tensor, share: float) -> float:
    """Returns a tau that at most ``share`` of the similarities (P,) float32 exceed; NEVER for none.

    It lies half-way between the least similar pair that merges and the next one, so that neither sits on the edge: in
    another number type, or with other last bits, the same pairs merge. Equal similarities merge together or not at
    all.
    """
    merges = int(share * len(similarity) + 1e-9)
    if merges == 0:
        return NEVER
    ordered = similarity.float().sort(descending=True).values
    if merges == len(ordered):
        return -1.0
    below = ordered[merges]
    merging = int((ordered > below).sum())
    if not merging:
        return NEVER
    above = ordered[merging - 1]
    middle = ((above.double() + below.double()) / 2).float()
    # Neighbouring floats have none between them, and from NEVER on nothing merges: what merges exceeds the lower one.
    tau = float(middle if middle < above and middle < NEVER else below)
    return max(-1.0, min(tau, NEVER))
