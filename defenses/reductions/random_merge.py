"""Random merging at matched token counts: do the similarities matter, or only the count?"""

from __future__ import annotations

import torch

from leakgauge.defenses.reductions.assignments import move_rows
from leakgauge.defenses.reductions.bipartite import alternating, image_start
from leakgauge.defenses.reductions.matched import MatchedReduction
from leakgauge.harness.contracts.reduction import Assignment, LayerState
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.seeding import Streams


class RandomMerge(MatchedReduction):
    """Merges randomly chosen A tokens into random B tokens, as many in each image and block as a reference removes.

    Where the reference removes more than the A half, B tokens chosen at random merge too.

    Args:
        match: The reference reduction, ``{name: ..., options}``.
    """

    name = "random_merge"

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Merges down to ``state.target_lengths``."""
        target = torch.arange(len(state.keys), device=state.keys.device)
        for i, (start, (length, merges)) in enumerate(
            zip(image_start(state.lengths), self.surplus(state), strict=True)
        ):
            if merges == 0:
                continue
            if merges >= length - state.prefix:
                raise PluginError(f"cannot merge all of {length - state.prefix} patch tokens", hint="take random_drop")
            a, b = alternating(length, state.prefix)
            generator = rng.child("random_merge", state.layer, state.ids[i]).torch()
            order = torch.randperm(len(a), generator=generator)
            chosen = a[order[:merges]]
            if merges > len(a):
                more = torch.randperm(len(b), generator=generator)
                chosen, b = torch.cat([a, b[more[: merges - len(a)]]]), b[more[merges - len(a) :]]
            into = b[torch.randint(len(b), (merges,), generator=generator)]
            target[start + chosen.to(target.device)] = start + into.to(target.device)
        return move_rows(state.lengths, target)
