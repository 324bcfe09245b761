"""Token Fusion: pruning in early blocks, norm-preserving merging in later ones (Kim et al., WACV 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from defenses.reductions.bipartite import OrderName, SplitName, merge_into, tome_order
from defenses.reductions.similarity_merge import SimilarityName
from defenses.reductions.tome import ToMe
from harness.errors import ConfigError
from harness.reduction import Assignment, LayerState
from harness.seeding import Streams
from harness.tokens import DROPPED


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
        r: int | Sequence[int],
        prune_layers: int | None = None,
        similarity: SimilarityName = "keys",
        split: SplitName = "alternating",
        order: OrderName = "tome",
        cap: float = 0.5,
    ) -> None:
        super().__init__(r, similarity, split, order, cap)
        whole = isinstance(prune_layers, int) and not isinstance(prune_layers, bool)
        if prune_layers is not None and not (whole and prune_layers >= 0):
            raise ConfigError(
                f"prune_layers = {prune_layers!r} is not a number of blocks", mend="give how many blocks prune, or none"
            )
        self._prune_layers = prune_layers

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Prunes or merges the r best matches, by the depth of the block."""
        pairs = self.pairs(state)
        chosen = self._within_cap(pairs, self.select(pairs, state), state)
        if not bool(chosen.any()):
            return None
        target = torch.arange(len(state.keys), device=state.keys.device)
        target[pairs.source[chosen]] = pairs.target[chosen]
        group = tome_order(state.lengths, state.prefix) if self._order == "tome" else None
        merged = merge_into(state.lengths, target, group)
        early = state.depth // 2 if self._prune_layers is None else self._prune_layers
        if state.layer >= early:
            return merged._replace(rescale=True)
        merged.destination[pairs.source[chosen]] = DROPPED
        return merged
