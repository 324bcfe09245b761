"""The alternating bipartite split that similarity merging and its controls share (ToMe, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from harness.contracts import Assignment
from harness.tokens import offsets_of


class Split(NamedTuple):
    """Packed rows of sets A and B; within an image, patches alternate A, B, A, B, ... in token order."""

    a_rows: Tensor
    b_rows: Tensor


def alternating(length: int, prefix: int, device: torch.device | None = None) -> Split:
    """Returns the split of one image of ``length`` tokens, as row numbers within the image."""
    patches = torch.arange(prefix, length, device=device)
    return Split(patches[::2], patches[1::2])


def merge_into(lengths: Tensor, target: Tensor) -> Assignment:
    """Builds the assignment in which every row moves to its ``target`` row, and order is kept.

    Args:
        lengths: (B,) tokens an image.
        target: (T,) packed row that each row merges into: itself for rows that stay. A target must itself stay.
    """
    stays = target == torch.arange(len(target), device=target.device)
    new_row = stays.long().cumsum(0) - 1
    images = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    counts = torch.bincount(images[stays], minlength=len(lengths))
    return Assignment(new_row[target], counts)


def image_start(lengths: Tensor) -> list[int]:
    """Returns the first packed row of every image."""
    return [int(x) for x in offsets_of(lengths)[:-1]]
