"""Lays observed tokens on the patch grid, for attacks that decode position by position."""

from __future__ import annotations

from torch import Tensor

from leakgauge.harness.values.observation import Observation


def on_grid(observations: Observation) -> Tensor:
    """Returns one token for every patch, (B, N, D).

    With the merge map, every token is copied to its source patches. Without it, tokens are laid in received order, one
    a patch from the first, and patches beyond them stay zero: exact for an unreduced payload, naive for all others.
    """
    batch = observations.as_batch()
    patches = observations.grid[0] * observations.grid[1]
    if observations.merge_map is not None:
        return batch.unmerge()
    padded, _ = batch.padded(max(int(batch.lengths.max()), observations.prefix + patches))
    return padded[:, observations.prefix : observations.prefix + patches]


def patches_of(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cuts images (B, 3, H, W) into (B, N, 3 * h * w) patches in row-major order."""
    batch, channels, height, width = images.shape
    rows, columns = grid
    cut = images.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def from_patches(patches: Tensor, grid: tuple[int, int], height: int, width: int) -> Tensor:
    """Joins patches (B, N, 3 * h * w) to images (B, 3, H, W); the inverse of ``patches_of``."""
    rows, columns = grid
    cut = patches.reshape(len(patches), rows, columns, 3, height // rows, width // columns)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), 3, height, width)


def token_statistics(observations: Observation) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation (D,) of the observed token values, for standardising inputs."""
    tokens = observations.tokens
    return tokens.mean(dim=0), tokens.std(dim=0).clamp_min(1e-6)
