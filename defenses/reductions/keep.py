"""Building the assignment that keeps some tokens and drops the others."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.reduction import Assignment
from harness.tokens import DROPPED


def keep_rows(lengths: Tensor, keep: Tensor) -> Assignment | None:
    """Keeps the rows where ``keep`` (T,) is True, in order, and drops the rest; None where all are kept.

    Args:
        lengths: (B,) tokens an image.
        keep: (T,) bool, True for protected tokens.
    """
    if bool(keep.all()):
        return None
    images = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    destination = torch.where(keep, keep.long().cumsum(0) - 1, DROPPED)
    return Assignment(destination, torch.bincount(images[keep], minlength=len(lengths)))
