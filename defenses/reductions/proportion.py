"""Merging by proportion (arXiv 2509.09168): a fixed share of the matches in each block."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.defenses.reductions.bipartite import OrderName, Pairs, SplitName, rank_in_image
from leakgauge.defenses.reductions.per_layer import PerLayer
from leakgauge.defenses.reductions.similarity_merge import Cap, SimilarityMerge, SimilarityName
from leakgauge.harness.contracts.reduction import LayerState, Searched
from leakgauge.harness.suite.options import PerBlock, Share


class ProportionMerge(SimilarityMerge):
    """Merges the most similar share gamma of an image's A-to-B matches, rounded down (assumed).

    Args:
        proportions: One gamma in [0, 1] for all edge blocks, or a list with one for each.
        similarity: Compare mean-over-heads ``keys`` (assumed) or the ``tokens`` after attention.
        split: ``alternating`` A/B (assumed), or mutual nearest tokens among ``all_pairs``.
        order: ``kept`` keeps the token order (assumed); ``tome`` puts A tokens that stay before B tokens.
        cap: Largest share of an image's patch tokens merged away in one block (assumed half).
    """

    name = "proportion"
    searched = Searched("proportions", calibrated=False)

    def __init__(
        self,
        proportions: PerBlock[Share],
        similarity: SimilarityName = "keys",
        split: SplitName = "alternating",
        order: OrderName = "kept",
        cap: Cap = 0.5,
    ) -> None:
        super().__init__(similarity, split, order, cap)
        self._gamma = PerLayer("proportions", proportions)

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list of proportions does not have one for each of ``layers`` edge blocks."""
        self._gamma.check(layers, self.name)

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether gamma of the block lets anything merge."""
        return self._gamma[layer] > 0

    def select(self, pairs: Pairs, state: LayerState) -> Tensor:
        """Selects the most similar pairs of each image."""
        matches = torch.bincount(pairs.image, minlength=len(state.lengths)).double()
        most = (matches * self._gamma[state.layer] + 1e-9).floor().long()
        return rank_in_image(pairs.similarity, pairs.image) < most[pairs.image]
