"""Adaptive threshold merging (arXiv 2509.09955): data decides how many tokens stay."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from leakgauge.defenses.reductions.bipartite import OrderName, Pairs, SplitName
from leakgauge.defenses.reductions.per_layer import PerLayer
from leakgauge.defenses.reductions.similarity_merge import Cap, SimilarityMerge, SimilarityName
from leakgauge.harness.options import PerBlock
from leakgauge.harness.reduction import LayerState

Cosine = Annotated[float, Field(ge=-1, le=1)]
NEVER = 1.0


class ThresholdMerge(SimilarityMerge):
    """Merges every A token into its most similar B token where their cosine similarity exceeds tau.

    tau = 1 means never, also for identical keys, whose computed similarity may be just below or above one.

    Args:
        thresholds: One tau in [-1, 1] for all edge blocks, or a list with one for each.
        similarity: Compare mean-over-heads ``keys`` (assumed) or the ``tokens`` after attention.
        split: ``alternating`` A/B (assumed), or mutual nearest tokens among ``all_pairs``.
        order: ``kept`` keeps the token order (assumed); ``tome`` puts A tokens that stay before B tokens.
        cap: Largest share of an image's patch tokens merged away in one block (assumed half).

    Raises:
        ConfigError: A threshold is out of range or not a number.
    """

    name = "threshold"

    def __init__(
        self,
        thresholds: PerBlock[Cosine],
        similarity: SimilarityName = "keys",
        split: SplitName = "alternating",
        order: OrderName = "kept",
        cap: Cap = 0.5,
    ) -> None:
        super().__init__(similarity, split, order, cap)
        self._tau = PerLayer("thresholds", thresholds)

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list of thresholds does not have one for each of ``layers`` edge blocks."""
        self._tau.check(layers, self.name)

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether tau of the block lets anything merge."""
        return self._tau[layer] < NEVER

    def select(self, pairs: Pairs, state: LayerState) -> Tensor:
        """Selects the pairs above tau."""
        tau = self._tau[state.layer]
        return pairs.similarity > tau if tau < NEVER else pairs.similarity.new_zeros(len(pairs.source)).bool()
