"""PiToMe: tokens in dense regions merge, informative ones are protected (Tran et al., NeurIPS 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.reductions.assignments import move_rows
from defenses.reductions.patches import by_score, nearest, patch_spans, similarity
from defenses.reductions.share import ShareOfPatches
from harness.options import KeptShare, PerBlock
from harness.reduction import Assignment, LayerState, Reduction
from harness.seeding import Streams

MARGIN = 0.9
ALPHA = 1.0


def energies(keys: Tensor, margin: float) -> Tensor:
    """Returns the (P,) energies of the tokens of one image: high where many others are similar.

    E_i = 1/P sum over j != i of f(cos(k_i, k_j)), where f(x) = x from the margin m on and alpha (exp(x - m) - 1) below
    (the paper's energy score).

    Args:
        keys: (P, K) unit vectors.
        margin: m, at most 1.
    """
    cosine = similarity(keys, keys).double()
    terms = torch.where(cosine >= margin, cosine, ALPHA * (torch.exp(cosine - margin) - 1))
    terms.fill_diagonal_(0.0)
    # Rounded, so that equal tokens tie however their sums were ordered.
    return terms.mean(dim=1).float()


class PiToMe(Reduction):
    """Merges k of the 2k tokens of highest energy of an image in every block; all others are protected.

    Ordered by energy, the 2k tokens fall alternately into A and B, and each A token merges into the B token with the
    most similar key, by size-weighted mean. The margin is .9 - .9 layer / depth of the model. Tokens that
    stay keep their order (assumed). The class token counts as no neighbour, being protected anyhow (assumed).

    Args:
        ratio: Share of the patch tokens that stays, in (0, 1], rounded up, for all edge blocks, or a list with one for
            each. At most half of the tokens can merge in a block.

    Raises:
        ConfigError: A ratio is out of range.
    """

    name = "pitome"

    def __init__(self, ratio: PerBlock[KeptShare]) -> None:
        self._ratio = ShareOfPatches("ratio", ratio)

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list of ratios does not have one for each of ``layers`` edge blocks."""
        self._ratio.check(layers, self.name)

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether the ratio of the block lets anything merge."""
        return self._ratio[layer] < 1

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Merges the tokens of highest energy."""
        target = torch.arange(len(state.keys), device=state.keys.device)
        margin = MARGIN - MARGIN * state.layer / state.depth
        for start, end in patch_spans(state.lengths, state.prefix):
            patches = end - start
            merges = min(patches - self._ratio.count(state.layer, patches), patches // 2)
            if merges:
                keys = state.keys[start:end]
                order = by_score(energies(keys, margin))[: 2 * merges]
                a, b = order[::2], order[1::2]
                target[start + a] = start + nearest(keys, a, b)
        return move_rows(state.lengths, target)
