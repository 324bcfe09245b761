"""What natural images look like, in closed form: penalties for attacks that optimise pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def total_variation(images: Tensor) -> Tensor:
    """Returns (B,) isotropic total variation a pixel of images (B, 3, H, W) (Rudin et al., Physica D 1992)."""
    down = images[:, :, 1:, :-1] - images[:, :, :-1, :-1]
    right = images[:, :, :-1, 1:] - images[:, :, :-1, :-1]
    # The constant keeps the root differentiable on flat ground.
    return (down.square() + right.square() + 1e-8).sqrt().mean(dim=(1, 2, 3))


def patch_seams(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns (B,) mean squared steps across patch borders (GradViT, Hatamizadeh et al., CVPR 2022, eq. 9).

    A transformer sees each patch through one linear map, so that optimised images tend to break at the borders.

    Args:
        images: (B, 3, H, W).
        grid: Patch rows and columns.
    """
    height, width = images.shape[2] // grid[0], images.shape[3] // grid[1]
    seams = images.new_zeros(len(images))
    if grid[0] > 1:
        rows = torch.arange(height, images.shape[2], height, device=images.device)
        seams = seams + (images[:, :, rows] - images[:, :, rows - 1]).square().mean(dim=(1, 2, 3))
    if grid[1] > 1:
        columns = torch.arange(width, images.shape[3], width, device=images.device)
        seams = seams + (images[:, :, :, columns] - images[:, :, :, columns - 1]).square().mean(dim=(1, 2, 3))
    return seams


def energy(images: Tensor) -> Tensor:
    """Returns (B,) mean squared distance of images (B, 3, H, W) from mid-grey (L2 prior of He et al., ACSAC 2019)."""
    return (images - 0.5).square().mean(dim=(1, 2, 3))
