"""Token Fusion: pruning in early blocks, norm-preserving merging in later ones (Kim et al., WACV 2024)."""

from __future__ import annotations

from torch import Tensor

from leakgauge.defenses.reductions.bipartite import OrderName, SplitName
from leakgauge.defenses.reductions.similarity_merge import Cap, SimilarityName
from leakgauge.defenses.reductions.tome import ToMe
from leakgauge.harness.contracts.reduction import Assignment, LayerState
from leakgauge.harness.suite.options import NotNegative, PerBlock
from leakgauge.harness.values.tokens import DROPPED


class ToFu(ToMe):
    """Removes the A tokens of the r most similar A-to-B matches of each image, as ToMe does, in one of two ways.

    Early blocks prune them: B keeps its value and the A token is gone. Later blocks merge by MLERP: the mean, rescaled
    to the largest norm among what merges (section 3.3). Assumed, because the paper leaves it open or sets it by a
    measured linearity of each block: that the change comes at half the depth of the model, that the mean is weighted by
    size, and that where several A tokens meet in one B token, all are scaled at once.

    Args:
        r: Tokens removed a block, for all edge blocks, or a list with one for each.
        prune_layers: Blocks from the first that prune; None takes half of the model's depth (assumed).
        similarity: Compare mean-over-heads ``keys`` (assumed) or the ``tokens`` after attention.
        split: ``alternating`` A/B in token order, or mutual nearest tokens among ``all_pairs``.
        order: ``tome`` puts A tokens that stay before B tokens, as ToMe; ``kept`` keeps the token order.
        cap: Largest share of an image's patch tokens removed in one block (assumed half).

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "tofu"

    def __init__(
        self,
        r: PerBlock[NotNegative],
        prune_layers: NotNegative | None = None,
        similarity: SimilarityName = "keys",
        split: SplitName = "alternating",
        order: OrderName = "tome",
        cap: Cap = 0.5,
    ) -> None:
        super().__init__(r, similarity, split, order, cap)
        self._prune_layers = prune_layers

    def combine(self, target: Tensor, sources: Tensor, state: LayerState) -> Assignment | None:
        """Prunes the sources in early blocks and merges them, with their norm, in later ones."""
        early = state.depth // 2 if self._prune_layers is None else self._prune_layers
        if state.layer < early:
            target[sources] = DROPPED
        assignment = super().combine(target, sources, state)
        return assignment if assignment is None else assignment._replace(rescale=state.layer >= early)
