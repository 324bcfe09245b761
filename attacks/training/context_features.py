"""What closed-form attacks look at for a patch: its token, those around it, and what the image says as a whole."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from leakgauge.attacks.training.folded_ridge import Features
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


def laid(observations: Observation, scaling: Scaling) -> Tensor:
    """Returns standardised tokens (B, N + P, D'), one for every patch, and behind them the P protected ones.

    Where map and sizes are told, D' has a last column with the logarithm of a token's size.
    """
    batch = observations.as_batch()
    tokens = (on_grid(observations) - scaling.mean) / scaling.std  # (B, N, D)
    padded, _ = batch.padded()
    first = (padded[:, : observations.prefix] - scaling.mean) / scaling.std  # (B, P, D)
    both = torch.cat([tokens, first], dim=1)
    if observations.merge_map is None or observations.sizes is None:
        return both
    sizes = batch.with_tokens(batch.sizes.float().log()[:, None]).unmerge()  # (B, N, 1)
    return torch.cat([both, torch.cat([sizes, sizes.new_zeros(len(sizes), first.shape[1], 1)], dim=1)], dim=2)


def context_of(tokens: Tensor, grid: tuple[int, int]) -> Features:
    """Returns features of every patch, linear in the tokens.

    Its own token and its four neighbours apart (zero beyond the edge of the image); of the whole image the mean, and
    the tokens that are protected.

    Args:
        tokens: (B, N + P, D), as ``laid`` lays them.
        grid: Patch rows and columns, N of them.
    """
    rows, columns = grid
    count, patches, width = len(tokens), rows * columns, tokens.shape[2]
    own, first = tokens[:, :patches], tokens[:, patches:].flatten(1)
    around = torch.nn.functional.pad(own.reshape(count, rows, columns, width), (0, 0, 1, 1, 1, 1))
    near = [
        around[:, 1 + down : 1 + down + rows, 1 + across : 1 + across + columns].reshape(count, patches, width)
        for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    whole = torch.cat([own.mean(dim=1), first], dim=1)  # (B, (1 + P) D)
    return Features(torch.cat([own, *near], dim=2), whole)
