"""PiToMe: tokens in dense regions merge, informative ones are protected (Tran et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from leakgauge.defenses.reductions.assignments import move_rows
from leakgauge.defenses.reductions.patches import by_score, closeness, nearest, patch_spans, similarity
from leakgauge.defenses.reductions.share import ShareOfPatches
from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.suite.options import KeptShare, NotNegative, PerBlock
from leakgauge.harness.values.seeding import Streams

MARGIN = 0.75
Margin = Annotated[float, Field(ge=-1, le=1)]
"""A cosine similarity."""


def energies(keys: Tensor, margin: float) -> Tensor:
    """Returns the (P,) energies of the tokens of one image: high where many others are similar.

    E_i = 1/P sum over j of ELU(cos(k_i, k_j) - m): x - m where the similarity x is above the margin m, exp(x - m) - 1
    below, continuous between them. The paper's equation 4 prints x for the former, which would jump by m there; the
    authors' code takes the ELU.

    Args:
        keys: (P, K) unit vectors.
        margin: m, at most 1.
    """
    above = similarity(keys, keys).double().fill_diagonal_(1.0) - margin
    # Rounded, so that equal tokens tie however their sums were ordered.
    return torch.where(above > 0, above, torch.expm1(above)).mean(dim=1).float()


class PiToMe(Reduction):
    """Merges tokens of high energy with one another, k of an image in every block; the rest is protected.

    Tokens in order of energy fall alternately into A and B, and an A token may merge into the B token with the most
    similar key, by size-weighted mean. As the authors' code does it for DeiT: in the first half of the model's blocks
    all tokens are matched so and the k most similar pairs merge; in the second half the 2k tokens of highest energy
    alone are matched, and all k pairs merge, as the paper's algorithm 1 has it for every block. The margin is
    .75 - .75 layer / depth (the paper says .9), attention is not proportional. Tokens that stay keep their order, which
    decides nothing but ties. The class token counts as no neighbour, as in the code.

    Args:
        ratio: Share of the patch tokens that stays, in (0, 1], rounded up, for all edge blocks, or a list with one for
            each. At most half of the tokens can merge in a block.
        margin: m of the first block, in [-1, 1].
        matched_blocks: Blocks from the first in which all tokens are matched; None takes half of the model's, rounded
            up, and 0 none.

    Raises:
        ConfigError: An option is out of range.
    """

    name = "pitome"
    proportional = False

    def __init__(
        self, ratio: PerBlock[KeptShare], margin: Margin = MARGIN, matched_blocks: NotNegative | None = None
    ) -> None:
        self._ratio = ShareOfPatches("ratio", ratio)
        self._margin, self._matched_blocks = margin, matched_blocks

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list of ratios does not have one for each of ``layers`` edge blocks."""
        self._ratio.check(layers, self.name)

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether the ratio of the block lets anything merge."""
        return self._ratio[layer] < 1

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Merges tokens of high energy."""
        target = torch.arange(len(state.keys), device=state.keys.device)
        margin = self._margin - self._margin * state.layer / state.depth
        first_half = -(-state.depth // 2) if self._matched_blocks is None else self._matched_blocks
        for start, end in patch_spans(state.lengths, state.prefix):
            patches = end - start
            merges = min(patches - self._ratio.count(state.layer, patches), patches // 2)
            if merges:
                keys = state.keys[start:end]
                order = by_score(energies(keys, margin))
                if state.layer >= first_half:
                    order = order[: 2 * merges]
                a, b = order[::2], order[1::2]
                best = nearest(keys, a, b)
                chosen = by_score(closeness(keys, a, best))[:merges]
                target[start + a[chosen]] = start + best[chosen]
        return move_rows(state.lengths, target)
