"""A few images of a split, evenly spaced."""

from __future__ import annotations

import numpy as np
import torch

from harness.images import ImageSet


def every_kth(images: ImageSet, count: int | None) -> ImageSet:
    """Returns ``count`` images evenly spaced over the set, in order; all where None or where there are no more."""
    if count is None or count >= len(images):
        return images
    rows = np.unique(np.linspace(0, len(images) - 1, count).round().astype(np.int64))
    return images.select(torch.from_numpy(rows))
