"""DiffRate: prune the least important tokens and merge the next ones, at given rates (Chen et al., ICCV 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from leakgauge.defenses.reductions.assignments import move_rows
from leakgauge.defenses.reductions.patches import by_score, closeness, nearest, patch_spans
from leakgauge.defenses.reductions.per_layer import PerLayer
from leakgauge.defenses.reductions.similarity_merge import SimilarityName
from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import Count, PerBlock
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED

Counts = PerBlock[Count]
SizesName = Literal["scaled", "counted"]
NONE = 2**31 - 1
"""More tokens than any image has."""


class DiffRate(Reduction):
    """Sorts patch tokens by class attention, drops the lowest, and merges the next lowest into those that stay.

    Each token of the merged group joins the most similar of the kept ones (section 3). As the authors' code does it,
    tokens themselves are compared, the new token is the plain mean of those that meet, whatever patches they stand for,
    and in proportional attention a token weighs what it weighed plus, of each that joined it, the weight times their
    cosine similarity. These weights stay on the edge: a payload carries sizes, by which the server's blocks attend
    (assumed: the code has no server). The rates that the paper learns are options here: give the token counts of a
    published or a trained schedule. Tokens that stay keep their order, which decides nothing but ties.

    Args:
        prune_kept: Patch tokens left after pruning, for all edge blocks, or a list with one for each; None, or a count
            above those present, prunes none. Subtract one where a published schedule counts the class token.
        merge_kept: Patch tokens left after merging, likewise.
        similarity: Compare ``tokens`` after attention, as the authors' code, or mean-over-heads ``keys``.
        sizes: ``scaled`` as above, or ``counted``, ToMe's way: the mean is weighted by size, and a token's weight in
            proportional attention is its size.

    Raises:
        ConfigError: A count or a word is out of range, or no count is given.
    """

    name = "diffrate"
    needs = frozenset({"attention"})

    def __init__(
        self,
        prune_kept: Counts | None = None,
        merge_kept: Counts | None = None,
        similarity: SimilarityName = "tokens",
        sizes: SizesName = "scaled",
    ) -> None:
        if prune_kept is None and merge_kept is None:
            raise ConfigError("neither prune_kept nor merge_kept is given", hint="give the tokens left a block")
        self._similarity, self._scaled = similarity, sizes == "scaled"
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
        features = state.keys
        if self._similarity == "tokens":
            assert state.tokens is not None
            features = normalize(state.tokens.float(), dim=-1)
        target = torch.arange(len(features), device=features.device)
        mass = torch.ones(len(features), device=features.device)
        for start, end in patch_spans(state.lengths, state.prefix):
            order = start + by_score(state.attention[start:end])
            target[order[after_prune:]] = DROPPED
            # In token order, so that ties in similarity take the first token, not the most attended one.
            anchors = order[:after_merge].sort().values
            merged = order[after_merge:after_prune]
            if len(merged):
                target[merged] = nearest(features, merged, anchors)
                mass[merged] = closeness(features, merged, target[merged]).clamp(0, 1)
        assignment = move_rows(state.lengths, target)
        if assignment is None or not self._scaled:
            return assignment
        return assignment._replace(weights=_plain_mean(assignment.destination), mass=mass)


def _plain_mean(destination: Tensor) -> Tensor:
    """Returns (T,) one over the number of tokens that share each token's destination; 1 for dropped ones."""
    kept = destination != DROPPED
    counts = torch.bincount(destination[kept])
    return torch.where(kept, 1.0 / counts[destination.clamp_min(0)].double(), 1.0)
