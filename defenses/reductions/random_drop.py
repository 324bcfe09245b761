"""Random dropping at matched token counts."""

from __future__ import annotations

import torch

from leakgauge.defenses.reductions.bipartite import image_start
from leakgauge.defenses.reductions.matched import MatchedReduction
from leakgauge.harness.contracts.reduction import Assignment, LayerState
from leakgauge.harness.values.seeding import Streams


class RandomDrop(MatchedReduction):
    """Drops randomly chosen patch tokens, as many in each image and block as a reference removes.

    Args:
        match: The reference reduction, ``{name: ..., options}``.
    """

    name = "random_drop"
    merges = False

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Drops down to ``state.target_lengths``."""
        keep = torch.ones(len(state.keys), dtype=torch.bool)
        for i, (start, (length, drops)) in enumerate(zip(image_start(state.lengths), self.surplus(state), strict=True)):
            if drops:
                generator = rng.child("random_drop", state.layer, state.ids[i]).torch()
                order = torch.randperm(length - state.prefix, generator=generator)
                keep[start + state.prefix + order[:drops]] = False
        return Assignment.keeping(state.lengths, keep.to(state.keys.device))
