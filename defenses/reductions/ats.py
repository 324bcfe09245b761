"""Adaptive token sampling: a count of tokens that each image decides for itself (ATS, Fayyaz et al., ECCV 2022)."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from defenses.reductions.acting_layers import ActingLayers, Layers
from defenses.reductions.assignments import keep_rows
from defenses.reductions.patches import patch_spans
from defenses.reductions.per_layer import PerLayer
from harness.options import Count, PerBlock
from harness.reduction import Assignment, LayerState, Reduction
from harness.seeding import Streams

PUBLISHED_LAYERS = range(3, sys.maxsize)


def sampled(significance: Tensor, samples: int) -> Tensor:
    """Returns the places, one a sample, at which quantiles (2i - 1) / (2K) of the significance fall.

    Args:
        significance: (P,) at least 0 with a positive sum; any scale.
        samples: K.
    """
    cumulative = significance.double().cumsum(0)
    odd = 2 * torch.arange(samples, dtype=torch.float64, device=significance.device) + 1
    quantiles = odd / (2 * samples) * cumulative[-1]
    # The last quantile is below the sum, so that rounding alone could point beyond the last token.
    return torch.searchsorted(cumulative, quantiles).clamp_max(len(significance) - 1)


class AdaptiveTokenSampling(Reduction):
    """Keeps the patch tokens at K fixed quantiles of an image's cumulative significance; the rest are dropped.

    Significance is class attention times the norm of the value (the paper's token scoring). Several quantiles may fall
    on one token, so that fewer than K stay where few matter (its token sampling). A quantile u takes the first token
    whose cumulative significance reaches u, the inverse of a step function (assumed); taking the nearest step instead
    differs in single tokens. Because all quantiles move with K, K - 1 samples may now and then leave more tokens than
    K; a third of the samples, whose quantiles are among the others, never does.

    Args:
        tokens: K, at least 1, for all of ``layers``, or a list with one for each edge block.
        layers: Block numbers from 0 in which it acts; None takes all from 3 on, as published.

    Raises:
        ConfigError: An option is out of range.
    """

    name = "ats"
    merges = False
    needs = frozenset({"significance"})
    proportional = False  # no token ever stands for two patches

    def __init__(self, tokens: PerBlock[Count], layers: Layers | None = None) -> None:
        self._tokens = PerLayer("tokens", tokens)
        self._layers = ActingLayers(layers, PUBLISHED_LAYERS)

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list of ``tokens`` or the acting layers do not fit ``layers`` edge blocks."""
        self._tokens.check(layers, self.name)
        self._layers.check(layers, self.name)

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether the block is one that it acts in."""
        return layer in self._layers

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Drops the tokens that no quantile falls on."""
        if not self.active(state.layer, state.layers):
            return None
        assert state.significance is not None
        keep = torch.ones(len(state.keys), dtype=torch.bool, device=state.keys.device)
        for start, end in patch_spans(state.lengths, state.prefix):
            own = state.significance[start:end]
            # Where nothing is significant, nothing says what to drop.
            if bool(own.sum() > 0):
                keep[start:end] = False
                keep[start + sampled(own, int(self._tokens[state.layer]))] = True
        return keep_rows(state.lengths, keep)
