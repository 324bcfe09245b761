"""Building the assignment from where each token goes."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.harness.contracts.reduction import Assignment
from leakgauge.harness.values.tokens import DROPPED, offsets_of


def move_rows(lengths: Tensor, target: Tensor, group: Tensor | None = None) -> Assignment | None:
    """Builds the assignment in which every row moves to its ``target`` row; None where all stay as they are.

    Args:
        lengths: (B,) tokens an image.
        target: (T,) packed row that each row merges into, itself for rows that stay, or ``DROPPED``. A target must
            itself stay.
        group: (T,) sorts the rows that stay by this first and by their order second; None keeps their order.
    """
    stays = target == torch.arange(len(target), device=target.device)
    if bool(stays.all()):
        return None
    so_far = torch.cat([lengths.new_zeros(1), stays.long().cumsum(0)])
    counts = so_far[offsets_of(lengths)].diff()
    if group is None:
        new_row = so_far[1:] - 1
    else:
        images = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        rows = stays.nonzero().squeeze(1)
        order = rows[torch.argsort(images[rows] * (int(group.max()) + 1) + group[rows], stable=True)]
        new_row = torch.empty_like(target)
        new_row[order] = torch.arange(len(order), device=target.device)
    destination = new_row[target.clamp_min(0)]
    return Assignment(torch.where(target == DROPPED, DROPPED, destination), counts)
