"""Transposed convolutions from a token grid to pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from leakgauge.attacks.training.closed_form import solve_ridge
from leakgauge.attacks.training.layout import from_patches, on_grid
from leakgauge.harness.values.observation import Observation


class GridNetwork(nn.Module):
    """Transposed convolutions from the token grid to pixels.

    Args:
        mean: (D,) of the token values.
        std: (D,) likewise.
        image_shape: (3, H, W).
        grid: Patch rows and columns.
        channels: Widths after each doubling of resolution; the last repeats where more doublings are needed.
        skip: Whether a linear map from each token to its patch is added.
    """

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        image_shape: tuple[int, int, int],
        grid: tuple[int, int],
        channels: list[int],
        *,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.image_shape = grid, image_shape
        self.mean = nn.Buffer(mean)
        self.std = nn.Buffer(std)
        doublings = math.ceil(math.log2(image_shape[1] / grid[0]))
        widths = [len(mean), *(channels[min(i, len(channels) - 1)] for i in range(doublings))]
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            blocks += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.body = nn.Sequential(*blocks, last)
        pixels = 3 * (image_shape[1] // grid[0]) * (image_shape[2] // grid[1])
        self.skip = nn.Linear(len(mean), pixels) if skip else None
        if skip:
            # Start as the linear map alone.
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def start_from_ridge(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Sets the skip to the least-squares map from tokens (n, D) to patches (n, P) in [0, 1]."""
        assert self.skip is not None
        weights, bias = solve_ridge((((x - self.mean) / self.std, 2.0 * y - 1.0) for x, y in batches), penalty=1e-3)
        self.skip.weight.copy_(weights.T)
        self.skip.bias.copy_(bias)

    def decode(self, tokens: Tensor) -> Tensor:
        """Returns images (B, 3, H, W), not clamped, from one token a position (B, N, D)."""
        values = (tokens - self.mean) / self.std
        images: Tensor = self.body(values.transpose(1, 2).reshape(len(values), -1, *self.grid))
        if images.shape[-2:] != self.image_shape[1:]:
            images = interpolate(images, size=self.image_shape[1:], mode="bilinear", align_corners=False)
        if self.skip is not None:
            images = images + from_patches(self.skip(values), self.grid, *self.image_shape[1:])
        return 0.5 + 0.5 * images

    def forward(self, observations: Observation) -> Tensor:
        """Returns images (B, 3, H, W), not clamped; tokens are laid by merge map or in received order."""
        return self.decode(on_grid(observations))
