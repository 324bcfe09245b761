"""Ridge regression from tokens to pixels, in closed form: seconds of work, and the proxy attack of searches."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.networks.layout import from_patches, on_grid, patches_of
from harness.contracts import Attack, AttackerView, Observation
from harness.errors import ConfigError
from harness.images import ImageSet
from harness.learning import LearningCurve
from harness.seeding import Streams


class Ridge(Attack):
    """One linear map, shared by all positions, from the token of a patch and the image's mean token to its pixels.

    Uses the merge map where it is granted; otherwise tokens are laid in received order. Needs no iteration, so it is
    always converged; a nonlinear attacker can only do better.

    Args:
        penalty: L2 penalty relative to the mean feature energy.
    """

    name = "ridge"

    def __init__(self, penalty: float = 1e-3) -> None:
        if not penalty > 0:
            raise ConfigError(f"penalty = {penalty!r} is not positive", mend="write penalty: 0.001")
        self._penalty = penalty

    def _features(self, observations: Observation) -> Tensor:
        """Returns (B, N, 2 D + 1) float64: the token on each patch, the image's mean token, and 1."""
        tokens = on_grid(observations).double()
        mean = tokens.mean(dim=1, keepdim=True).expand_as(tokens)
        return torch.cat([tokens, mean, torch.ones_like(tokens[..., :1])], dim=2)

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Solves the normal equations, batch by batch."""
        observations = view.observe(auxiliary)
        self._grid, self._shape = view.grid, view.image_shape
        pixels = patches_of(auxiliary.select([0]).images(), view.grid).shape[2]
        width = 2 * observations.tokens.shape[1] + 1
        gram = torch.zeros(width, width, dtype=torch.float64)
        cross = torch.zeros(width, pixels, dtype=torch.float64)
        for start in range(0, len(auxiliary), 256):
            rows = range(start, min(start + 256, len(auxiliary)))
            x = self._features(observations.select(rows)).flatten(0, 1)
            y = patches_of(auxiliary.select(rows).images().double(), view.grid)
            gram += x.T @ x
            cross += x.T @ y.flatten(0, 1)
        ridge = self._penalty * gram.diagonal().mean() * torch.eye(width, dtype=torch.float64)
        self._weights = torch.linalg.solve(gram + ridge, cross)
        return None

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Applies the map to every patch."""
        parts = []
        for start in range(0, len(observations), 256):
            rows = range(start, min(start + 256, len(observations)))
            patches = self._features(observations.select(rows)) @ self._weights
            parts.append(from_patches(patches.float(), self._grid, *self._shape[1:]).clamp(0, 1))
        return torch.cat(parts)
