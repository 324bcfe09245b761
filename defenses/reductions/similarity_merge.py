"""What the similarity merging methods share: matching, the cap, the order of the tokens that stay."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from leakgauge.defenses.reductions.assignments import move_rows
from leakgauge.defenses.reductions.bipartite import (
    OrderName,
    Pairs,
    SplitName,
    best_pairs,
    rank_in_image,
    tome_order,
)
from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams

SimilarityName = Literal["keys", "tokens"]
Cap = Annotated[float, Field(gt=0, le=0.5)]
"""At most half of the tokens can merge in a block."""


class SimilarityMerge(Reduction):
    """Matches tokens by cosine similarity and merges the pairs that a method selects.

    Args:
        similarity: Compare mean-over-heads ``keys`` (assumed) or the ``tokens`` after attention.
        split: ``alternating`` A/B in token order (assumed), or mutual nearest tokens among ``all_pairs``.
        order: ``kept`` keeps the token order (assumed); ``tome`` puts A tokens that stay before B tokens, which makes
            another split in the next block.
        cap: Largest share of an image's patch tokens merged away in one block, best pairs first (assumed half).

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    def __init__(
        self,
        similarity: SimilarityName = "keys",
        split: SplitName = "alternating",
        order: OrderName = "kept",
        cap: Cap = 0.5,
    ) -> None:
        if order == "tome" and split != "alternating":
            raise ConfigError("order 'tome' is defined for the alternating split only", hint="take order: kept")
        self._similarity, self._split, self._order, self._cap = similarity, split, order, cap

    def matching(self) -> dict[str, Any]:
        """Returns the options that decide what is matched, by name."""
        return {"similarity": self._similarity, "split": self._split, "order": self._order, "cap": self._cap}

    @abstractmethod
    def select(self, pairs: Pairs, state: LayerState) -> Tensor:
        """Returns (P,) True for the pairs to merge."""

    def pairs(self, state: LayerState) -> Pairs:
        """Returns the candidate merges of a block."""
        features = state.keys
        if self._similarity == "tokens":
            assert state.tokens is not None
            features = normalize(state.tokens.float(), dim=-1)
        return best_pairs(features, state.lengths, state.prefix, self._split)

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Matches, selects within the cap, and merges."""
        pairs = self.pairs(state)
        chosen = self._within_cap(pairs, self.select(pairs, state), state).nonzero().squeeze(1)
        target = torch.arange(len(state.keys), device=state.keys.device)
        target[pairs.source[chosen]] = pairs.target[chosen]
        return self.combine(target, pairs.source[chosen], state)

    def combine(self, target: Tensor, sources: Tensor, state: LayerState) -> Assignment | None:
        """Builds the assignment from where each row goes (T,); ``sources`` are the rows that do not stay."""
        group = tome_order(state.lengths, state.prefix) if self._order == "tome" else None
        return move_rows(state.lengths, target, group)

    def _within_cap(self, pairs: Pairs, chosen: Tensor, state: LayerState) -> Tensor:
        """Drops the least similar of the chosen pairs where an image has more than the cap allows."""
        most = ((state.lengths - state.prefix).double() * self._cap + 1e-9).floor().long()
        if not bool((torch.bincount(pairs.image[chosen], minlength=len(most)) > most).any()):
            return chosen
        scores = pairs.similarity.masked_fill(~chosen, -torch.inf)
        return chosen & (rank_in_image(scores, pairs.image) < most[pairs.image])
