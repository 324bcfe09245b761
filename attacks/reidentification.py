"""Picks the image behind an observation out of a gallery, without rebuilding it."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.contracts.probing import IdentityProbe
from leakgauge.harness.suite.options import Count, Weight
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams


class Reidentification(IdentityProbe):
    """Pushes the gallery through the edge and compares tokens: by Chamfer distance, and by their pooled mean.

    Nothing is learned, so that there is nothing to cut short. Tokens are compared as sets: their order and their
    number need not agree, as random reductions and perturbations draw anew for every transmission. Values are compared
    as they are received: noise is equally strong in all of them, and scaling would amplify it where the signal is weak.

    Args:
        pooled_weight: Weight of the distance of mean tokens beside the Chamfer distance, both standardised over the
            gallery. Large, because a mean of many tokens carries little noise.
        draws: Transmissions of the gallery over a noisy channel, whose mean tokens are averaged.
    """

    name = "reidentification"
    training = "closed_form"
    layout = "needs none"

    def __init__(self, pooled_weight: Weight = 4.0, draws: Count = 4) -> None:
        self._pooled_weight, self._draws = pooled_weight, draws

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Learns nothing."""
        return None

    def rank(self, observations: Observation, view: AttackerView, gallery: ImageSet, rng: Streams) -> Tensor:
        """Returns (B, G) scores: minus the distance."""
        candidates = view.observe(gallery)
        tokens, mask = candidates.as_batch().padded()
        chamfer = torch.stack(
            [_chamfer(observations.select([i]).tokens, tokens, mask) for i in range(len(observations))]
        )
        draws = range(self._draws if view.noisy else 1)
        means = torch.stack([_means(view.observe(gallery, draw)) for draw in draws]).mean(dim=0)
        pooled = torch.cdist(_means(observations), means)
        return -_standardised(chamfer) - self._pooled_weight * _standardised(pooled)


def _means(observations: Observation) -> Tensor:
    """Returns the mean token of every image (B, D)."""
    batch = observations.as_batch()
    sums = batch.tokens.new_zeros(len(batch), batch.tokens.shape[1]).index_add_(0, batch.image_index, batch.tokens)
    return sums / batch.lengths[:, None]


def _chamfer(own: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Returns (G,) the Chamfer distance of an image's tokens (n, D) to those of the gallery (G, L, D)."""
    distances = torch.cdist(own.expand(len(tokens), -1, -1), tokens)
    forward = distances.masked_fill(~mask[:, None, :], torch.inf).amin(dim=2).mean(dim=1)
    backward = (distances.amin(dim=1) * mask).sum(dim=1) / mask.sum(dim=1)
    return forward + backward


def _standardised(distances: Tensor) -> Tensor:
    """Returns distances (B, G) with zero mean and unit variance over the gallery."""
    spread = distances.std(dim=1, keepdim=True) if distances.shape[1] > 1 else torch.ones_like(distances)
    return (distances - distances.mean(dim=1, keepdim=True)) / spread.clamp_min(1e-12)
