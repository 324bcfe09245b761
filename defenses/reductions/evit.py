"""EViT: inattentive tokens become one fused token (Liang et al., ICLR 2022)."""

from __future__ import annotations

import torch

from leakgauge.defenses.reductions.acting_layers import Layers
from leakgauge.defenses.reductions.top_k import TopK
from leakgauge.harness.contracts.reduction import Assignment, LayerState
from leakgauge.harness.suite.options import KeptShare, PerBlock
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import offsets_of


class EViT(TopK):
    """Keeps the share of patch tokens with the highest class attention; the rest become one token after them.

    The fused token is sum_i a_i x_i over the rest, a_i being their class attentions, not normalised (the
    paper's inattentive token fusion). In later blocks it is a token like any other, as published. Training-free here,
    where the paper also trains.

    Args:
        keep: Share of the patch tokens that stays, in (0, 1] (published .7), for all of ``layers``, or a list with one
            for each edge block (1 keeps all), which leaves no room for ``layers``.
        layers: Block numbers from 0 in which it acts; None takes 3, 6 and 9, as published for 12 blocks.

    Raises:
        ConfigError: An option is out of range, or a list of ``keep`` comes with ``layers``.
    """

    name = "evit"
    merges = True

    def __init__(self, keep: PerBlock[KeptShare] = 0.7, layers: Layers | None = None) -> None:
        super().__init__(keep, layers)

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Fuses all but the top share."""
        if not self.active(state.layer, state.layers):
            return None
        kept = self.kept(state)
        if bool(kept.all()):
            return None
        assert state.attention is not None
        number = torch.arange(len(state.lengths), device=kept.device)
        images = torch.repeat_interleave(number, state.lengths)
        stay = torch.bincount(images[kept], minlength=len(number))
        fused = (stay < state.lengths).long()
        lengths = stay + fused
        # Each image before has put its fused token after its kept ones.
        own_row = kept.long().cumsum(0) - 1 + offsets_of(fused)[images]
        fused_row = offsets_of(lengths)[images + 1] - 1
        weights = torch.where(kept, 1.0, state.attention.double())
        return Assignment(torch.where(kept, own_row, fused_row), lengths, weights)
