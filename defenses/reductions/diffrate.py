"""DiffRate: prune the least important tokens and merge the next ones, at given rates (Chen et al., ICCV 2023)."""

from __future__ import annotations

import torch

from defenses.reductions.assignments import move_rows
from defenses.reductions.patches import by_score, nearest, patch_spans
from defenses.reductions.per_layer import PerLayer
from harness.errors import ConfigError
from harness.options import Count, PerBlock
from harness.reduction import Assignment, LayerState, Reduction
from harness.seeding import Streams
from harness.tokens import DROPPED

Counts = PerBlock[Count]
NONE = 2**31 - 1
"""More tokens than any image has."""


class DiffRate(Reduction):
    """Sorts patch tokens by class attention, drops the lowest, and merges the next lowest into those that stay.

    Each token of the merged group joins the kept token with the most similar key, by size-weighted mean (section 3).
    The rates that the paper learns are options here: give the token counts of a published or a trained schedule. Tokens
    that stay keep their order, and keys are what is compared (both assumed).

    Args:
        prune_kept: Patch tokens left after pruning, for all edge blocks, or a list with one for each; None, or a count
            above those present, prunes none. Subtract one where a published schedule counts the class token.
        merge_kept: Patch tokens left after merging, likewise.

    Raises:
        ConfigError: A count is out of range, or neither is given.
    """

    name = "diffrate"
    needs = frozenset({"attention"})

    def __init__(self, prune_kept: Counts | None = None, merge_kept: Counts | None = None) -> None:
        if prune_kept is None and merge_kept is None:
            raise ConfigError("neither prune_kept nor merge_kept is given", mend="give the tokens left a block")
        self._prune_kept, self._merge_kept = (
            PerLayer(name, NONE if value is None else value)
            for name, value in (("prune_kept", prune_kept), ("merge_kept", merge_kept))
        )

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list does not have one count for each of ``layers`` edge blocks."""
        self._prune_kept.check(layers, self.name)
        self._merge_kept.check(layers, self.name)

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Drops down to the first count and merges down to the second."""
        assert state.attention is not None
        after_prune = min(int(self._prune_kept[state.layer]), NONE)
        after_merge = min(int(self._merge_kept[state.layer]), after_prune)
        target = torch.arange(len(state.keys), device=state.keys.device)
        for start, end in patch_spans(state.lengths, state.prefix):
            order = start + by_score(state.attention[start:end])
            target[order[after_prune:]] = DROPPED
            # In token order, so that ties in similarity take the first token, not the most attended one.
            anchors = order[:after_merge].sort().values
            merged = order[after_merge:after_prune]
            if len(merged):
                target[merged] = nearest(state.keys, merged, anchors)
        return move_rows(state.lengths, target)
