"""Token merging at a fixed count a block (ToMe, Bolya et al., ICLR 2023)."""

from __future__ import annotations

from torch import Tensor

from leakgauge.defenses.reductions.bipartite import OrderName, Pairs, SplitName, rank_in_image
from leakgauge.defenses.reductions.per_layer import PerLayer
from leakgauge.defenses.reductions.similarity_merge import Cap, SimilarityMerge, SimilarityName
from leakgauge.harness.contracts.reduction import LayerState
from leakgauge.harness.suite.options import NotNegative, PerBlock


class ToMe(SimilarityMerge):
    """Merges the r most similar A-to-B matches of each image, as many as there are where there are fewer.

    Written from the paper, whose order of tokens (``order: tome``) is the default here. One difference: the split
    starts with the first patch, where the published code counts the class token in.

    Args:
        r: Tokens merged away a block, for all edge blocks, or a list with one for each.
        similarity: Compare mean-over-heads ``keys`` (assumed) or the ``tokens`` after attention.
        split: ``alternating`` A/B (assumed), or mutual nearest tokens among ``all_pairs``.
        order: ``tome`` puts A tokens that stay before B tokens, as published; ``kept`` keeps the token order.
        cap: Largest share of an image's patch tokens merged away in one block (assumed half).
    """

    name = "tome"

    def __init__(
        self,
        r: PerBlock[NotNegative],
        similarity: SimilarityName = "keys",
        split: SplitName = "alternating",
        order: OrderName = "tome",
        cap: Cap = 0.5,
    ) -> None:
        super().__init__(similarity, split, order, cap)
        self._r = PerLayer("r", r)

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list does not have one count for each of ``layers`` edge blocks."""
        self._r.check(layers, self.name)

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether anything merges in the block."""
        return self._r[layer] > 0

    def select(self, pairs: Pairs, state: LayerState) -> Tensor:
        """Selects the r most similar pairs of each image."""
        return rank_in_image(pairs.similarity, pairs.image) < int(self._r[state.layer])
