"""Random merging at matched token counts: do the similarities matter, or only the count?"""

from __future__ import annotations

from typing import Any

import torch

from defenses.reductions.bipartite import alternating, image_start, merge_into
from harness.contracts import Assignment, LayerState, Reduction
from harness.errors import ConfigError, PluginError
from harness.registry import create
from harness.seeding import Streams


class RandomMerge(Reduction):
    """Merges randomly chosen A tokens into random B tokens, as many in each image and block as a reference merges.

    The reference runs beside the defense to supply the counts; its cost is the experimenter's and is not counted.

    Args:
        match: The reference reduction, ``{name: ..., options}``.
    """

    name = "random_merge"

    def __init__(self, match: dict[str, Any]) -> None:
        if not isinstance(match, dict) or "name" not in match:
            raise ConfigError("match must name a reduction", mend="write match: {name: threshold, thresholds: 0.9}")
        options = {k: v for k, v in match.items() if k != "name"}
        self.match = create("reductions", match["name"], options, where="reduction 'random_merge': match")

    def check(self, layers: int) -> None:
        """Checks the reference's options."""
        if self.match is not None:
            self.match.check(layers)

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Merges down to ``state.target_lengths``."""
        if state.target_lengths is None:
            raise PluginError("random_merge needs target lengths", mend="run it inside a defense that supplies them")
        target = torch.arange(len(state.keys), device=state.keys.device)
        lengths = state.lengths.tolist()
        wanted = state.target_lengths.tolist()
        for i, start in enumerate(image_start(state.lengths)):
            merges = lengths[i] - wanted[i]
            if merges == 0:
                continue
            a, b = alternating(lengths[i], state.prefix)
            if merges < 0 or merges > len(a) or len(b) == 0:
                raise PluginError(f"cannot merge {lengths[i]} tokens down to {wanted[i]} in one block")
            generator = rng.child("random_merge", state.layer, state.ids[i]).torch()
            chosen = a[torch.randperm(len(a), generator=generator)[:merges]]
            into = b[torch.randint(len(b), (merges,), generator=generator)]
            target[start + chosen.to(target.device)] = start + into.to(target.device)
        return merge_into(state.lengths, target)
