"""Adaptive token sampling: a count of tokens that each image decides for itself (ATS, Fayyaz et al., ECCV 2022)."""

from __future__ import annotations

import sys
from typing import Literal

import torch
from torch import Tensor

from leakgauge.defenses.reductions.acting_layers import ActingLayers, Layers
from leakgauge.defenses.reductions.patches import patch_spans
from leakgauge.defenses.reductions.per_layer import PerLayer
from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.suite.options import Count, PerBlock
from leakgauge.harness.values.seeding import Streams

Rule = Literal["paper", "authors"]
PUBLISHED_LAYERS = range(3, sys.maxsize)


def sampled(significance: Tensor, samples: int) -> Tensor:
    """Returns the places, one a sample, whose cumulative significance is nearest to (2i - 1) / (2K) of the sum.

    Args:
        significance: (P,) at least 0 with a positive sum; any scale.
        samples: K.
    """
    cumulative = significance.double().cumsum(0)
    odd = 2 * torch.arange(samples, dtype=torch.float64, device=significance.device) + 1
    return _nearest(cumulative, odd / (2 * samples) * cumulative[-1])


def sampled_as_authors(significance: Tensor, samples: int) -> Tensor:
    """Returns the places, one a sample, that the authors' code takes.

    It sorts the tokens by significance, least first, stretches the cumulative sum over them to [0, 1], and takes what
    is nearest to K values evenly spaced from the second of these sums to the last.

    Args:
        significance: (P,) at least 0 with a positive sum; any scale.
        samples: K.
    """
    scores, order = significance.double().sort(stable=True)
    cumulative = scores.cumsum(0)
    cumulative = cumulative - cumulative[0]
    if not bool(cumulative[-1] > 0):
        return order  # a single token, or none beside a single one that matters
    lowest = cumulative[cumulative > 0][0]
    share = torch.linspace(0, 1, samples, dtype=torch.float64, device=significance.device)
    return order[_nearest(cumulative, lowest + share * (cumulative[-1] - lowest))]


def _nearest(ascending: Tensor, wanted: Tensor) -> Tensor:
    """Returns for each of ``wanted`` (K,) the place of the nearest of ``ascending`` (P,); ties take the first."""
    right = torch.searchsorted(ascending, wanted).clamp_max(len(ascending) - 1)
    left = (right - 1).clamp_min(0)
    nearer = torch.where(wanted - ascending[left] <= (ascending[right] - wanted).abs(), left, right)
    return torch.searchsorted(ascending, ascending[nearer])  # the first of equal ones


class AdaptiveTokenSampling(Reduction):
    """Keeps the patch tokens at K fixed quantiles of an image's cumulative significance; the rest are dropped.

    Significance is class attention times the norm of the value, summed over heads (the paper's token scoring). Several
    quantiles may fall on one token, so that fewer than K stay where few matter (its token sampling). A quantile takes
    the token whose cumulative significance is nearest, as the paper says and as both public codes do; the first one to
    reach it is another choice for most tokens. The paper and the authors' code part in what else they do:

    - ``paper`` adds up in token order and takes the quantiles (2i - 1) / (2K); so does the code of Haurum et al. (ICCV
      workshops 2023), which leaves out the last quantile.
    - ``authors`` sorts the tokens by significance first, takes evenly spaced quantiles from the least to the whole, and
      multiplies the mean attention by the norm of all heads' values together. Their code always takes as many quantiles
      as the image had patches: give that number.

    Because all quantiles move with K, K - 1 samples may now and then leave more tokens than K; with ``paper``, a third
    of the samples, whose quantiles are among the others, never does.

    Args:
        tokens: K, at least 1, for all of ``layers``, or a list with one for each edge block.
        layers: Block numbers from 0 in which it acts; None takes all from 3 on, as published.
        rule: ``paper`` or ``authors``.

    Raises:
        ConfigError: An option is out of range.
    """

    name = "ats"
    merges = False
    proportional = False  # no token ever stands for two patches

    def __init__(self, tokens: PerBlock[Count], layers: Layers | None = None, rule: Rule = "paper") -> None:
        self._authors = rule == "authors"
        self.needs = frozenset({"attention", "value_norm"} if self._authors else {"significance"})
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
        significance = state.significance
        if self._authors:
            assert state.attention is not None
            assert state.value_norm is not None
            significance = state.attention * state.value_norm
        assert significance is not None
        sample = sampled_as_authors if self._authors else sampled
        keep = torch.ones(len(state.keys), dtype=torch.bool, device=state.keys.device)
        for start, end in patch_spans(state.lengths, state.prefix):
            own = significance[start:end]
            # Where nothing is significant, nothing says what to drop.
            if bool(own.sum() > 0):
                keep[start:end] = False
                keep[start + sample(own, int(self._tokens[state.layer]))] = True
        return Assignment.keeping(state.lengths, keep)
