"""Keeping the tokens that the class token attends to most, and dropping the rest (the plain form of EViT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leakgauge.defenses.reductions.acting_layers import EVERY, ActingLayers, Layers
from leakgauge.defenses.reductions.bipartite import rank_in_image
from leakgauge.defenses.reductions.share import ShareOfPatches
from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import KeptShare, PerBlock
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import offsets_of

PUBLISHED_LAYERS = (3, 6, 9)


class TopK(Reduction):
    """Keeps the share of an image's patch tokens with the highest class attention, rounded up, and drops the rest.

    Liang et al., ICLR 2022, attentive token identification, without the fused token (their ablation). Tokens that stay
    keep their order (assumed; the published order, by attention, would tell the receiver about it).

    Args:
        keep: Share of the patch tokens that stays, in (0, 1], for all of ``layers``, or a list with one for each edge
            block (1 keeps all), which leaves no room for ``layers``.
        layers: Block numbers from 0 in which it acts; None takes 3, 6 and 9, as published for 12 blocks.

    Raises:
        ConfigError: An option is out of range, or a list of ``keep`` comes with ``layers``.
    """

    name = "top_k"
    merges = False
    needs = frozenset({"attention"})
    proportional = False  # no token ever stands for two patches

    def __init__(self, keep: PerBlock[KeptShare], layers: Layers | None = None) -> None:
        self._keep = ShareOfPatches("keep", keep)
        listed = isinstance(keep, Sequence)
        if listed and layers is not None:
            raise ConfigError("a list of keep already says where it acts", hint="leave layers out, or give one share")
        self._layers = ActingLayers(layers, EVERY if listed else PUBLISHED_LAYERS)

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list of ``keep`` or the acting layers do not fit ``layers`` edge blocks."""
        self._keep.check(layers, self.name)
        self._layers.check(layers, self.name)

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether anything may go in the block."""
        return layer in self._layers and self._keep[layer] < 1

    def kept(self, state: LayerState) -> Tensor:
        """Returns (T,) True for the tokens that stay, protected ones included; ties keep the first."""
        assert state.attention is not None
        device = state.attention.device
        images = torch.repeat_interleave(torch.arange(len(state.lengths), device=device), state.lengths)
        place = torch.arange(len(images), device=device) - offsets_of(state.lengths)[images]
        # Attention is at most 1, so that protected tokens rank first.
        scores = state.attention.masked_fill(place < state.prefix, 2.0)
        most = [state.prefix + self._keep.count(state.layer, n - state.prefix) for n in state.lengths.tolist()]
        return rank_in_image(scores, images) < torch.tensor(most, device=device)[images]

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Drops all but the top share."""
        return Assignment.keeping(state.lengths, self.kept(state)) if self.active(state.layer, state.layers) else None
