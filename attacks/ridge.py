"""Ridge regression from tokens to pixels, in closed form: seconds of work, and the proxy attack of searches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from leakgauge.attacks.training.closed_form import solve_ridge
from leakgauge.attacks.training.layout import from_patches, on_grid, patches_of
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.suite.options import Positive
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

BATCH = 256


class Ridge(Attack):
    """One linear map, shared by all positions, from the token of a patch and the image's mean token to its pixels.

    Uses the merge map where it is granted; otherwise tokens are laid in received order. Needs no iteration, so that
    only images can be lacking. It cannot find positions: where tokens were merged and the map is withheld, what it
    rebuilds is a lower bound.

    Args:
        penalty: L2 penalty relative to the mean feature energy.
    """

    name = "ridge"
    training = "closed_form"
    layout = "needs order"

    def __init__(self, penalty: Positive = 1e-3) -> None:
        self._penalty = penalty

    @staticmethod
    def _features(observations: Observation) -> Tensor:
        """Returns (B, N, 2 D) float64: the token on each patch, and the image's mean token."""
        tokens = on_grid(observations).double()
        return torch.cat([tokens, tokens.mean(dim=1, keepdim=True).expand_as(tokens)], dim=2)

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Solves the normal equations, batch by batch."""
        observations = view.observe(auxiliary)
        self._grid, self._shape = view.grid, view.image_shape

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in torch.split(torch.arange(len(auxiliary)), BATCH):
                pixels = patches_of(auxiliary.select(rows).images(), view.grid)
                yield self._features(observations.select(rows)).flatten(0, 1), pixels.flatten(0, 1)

        self._weights, self._bias = solve_ridge(batches(), self._penalty)
        return None

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Applies the map to every patch."""
        parts = []
        for rows in torch.split(torch.arange(len(observations)), BATCH):
            patches = self._features(observations.select(rows)) @ self._weights + self._bias
            parts.append(from_patches(patches.float(), self._grid, *self._shape[1:]).clamp(0, 1))
        return torch.cat(parts)
