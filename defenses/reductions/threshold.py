"""Adaptive threshold merging (arXiv 2509.09955): data decides how many tokens stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from defenses.backbones.timm_vit import equal_lengths
from defenses.reductions.bipartite import alternating, merge_into
from harness.contracts import Assignment, LayerState, Reduction
from harness.errors import ConfigError
from harness.seeding import Streams

NEVER = 1.0


class ThresholdMerge(Reduction):
    """Merges every A token into its most similar B token where the cosine similarity of their keys exceeds tau.

    Assumed, as 2509.09955 leaves it open: similarity of mean-over-heads keys, alternating A/B split in token order,
    kept order, at most the A half a layer, ties to the first B token. tau = 1 means never, also for identical keys.

    Args:
        thresholds: One tau in [-1, 1] for all edge blocks, or a list with one for each.

    Raises:
        ConfigError: A threshold is out of range or not a number.
    """

    name = "threshold"

    def __init__(self, thresholds: float | Sequence[float]) -> None:
        single = not isinstance(thresholds, Sequence)
        values: list[Any] = list(thresholds) if isinstance(thresholds, Sequence) else [thresholds]
        for i, tau in enumerate(values):
            place = "thresholds" if single else f"thresholds[{i}]"
            if isinstance(tau, bool) or not isinstance(tau, int | float) or math.isnan(tau) or not -1.0 <= tau <= 1.0:
                raise ConfigError(f"{place} = {tau!r} is not in [-1, 1]", mend="cosine similarities lie in [-1, 1]")
        self._shared = bool(single)
        self._values = [float(tau) for tau in values]

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list of thresholds does not have one for each of ``layers`` edge blocks."""
        if not self._shared and len(self._values) != layers:
            raise ConfigError(
                f"{len(self._values)} thresholds for {layers} edge blocks",
                where="reduction 'threshold'",
                mend=f"give {layers} thresholds (one for each block before the cut), or a single number",
            )

    def threshold(self, layer: int) -> float:
        """Returns tau of a block."""
        return self._values[0] if self._shared else self._values[layer]

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Matches A to B in every image, group by group of equal length, and merges the pairs above tau."""
        tau = self.threshold(state.layer)
        if tau >= NEVER:
            return None
        device = state.keys.device
        target = torch.arange(len(state.keys), device=device)
        for length, rows in equal_lengths(state.lengths):
            a, b = alternating(length, state.prefix, device)
            if len(a) == 0 or len(b) == 0:
                continue
            similarity = state.keys[rows[:, a]] @ state.keys[rows[:, b]].transpose(1, 2)
            best, match = similarity.max(dim=2)
            destination = rows[:, b].gather(1, match)
            target[rows[:, a]] = torch.where(best > tau, destination, rows[:, a])
        return merge_into(state.lengths, target)
