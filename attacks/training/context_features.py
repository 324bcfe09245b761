"""What closed-form attacks look at for a patch: its token, those around it, and what the image says as a whole."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from leakgauge.attacks.training.layout import on_grid, token_statistics
from leakgauge.harness.values.observation import Observation


class Scaling(NamedTuple):
    """Mean and standard deviation (D,) of token values."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, observations: Observation) -> Scaling:
        """Returns those of what was observed."""
        return cls(*token_statistics(observations))


def context_of(observations: Observation, scaling: Scaling) -> Tensor:
    """Returns features of every patch.

    Its own standardised token, its four neighbours apart (zero beyond the edge of the image), the mean of the image and
    the protected tokens; where map and sizes are told, the logarithm of its token's size.

    Args:
        observations: B images.
        scaling: Of token values.

    Returns:
        (B, N, F) float32.
    """
    rows, columns = observations.grid
    tokens = (on_grid(observations) - scaling.mean) / scaling.std  # (B, N, D)
    count, patches, width = tokens.shape
    laid = tokens.reshape(count, rows, columns, width)
    around = torch.nn.functional.pad(laid, (0, 0, 1, 1, 1, 1))  # (B, rows + 2, columns + 2, D)
    near = [
        around[:, 1 + down : 1 + down + rows, 1 + across : 1 + across + columns].reshape(count, patches, width)
        for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    whole = [tokens.mean(dim=1, keepdim=True).expand_as(tokens)]
    if observations.prefix:
        padded, _ = observations.as_batch().padded()
        first = ((padded[:, : observations.prefix] - scaling.mean) / scaling.std).flatten(1)  # (B, prefix D)
        whole.append(first[:, None].expand(-1, patches, -1))
    if observations.merge_map is not None and observations.sizes is not None:
        batch = observations.as_batch()
        laid_sizes = batch.with_tokens(batch.sizes.float().log()[:, None]).unmerge()  # (B, N, 1)
        whole.append(laid_sizes)
    return torch.cat([tokens, *near, *whole], dim=2)
