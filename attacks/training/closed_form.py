"""Ridge regression by normal equations, accumulated batch by batch in double precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def solve_ridge(batches: Iterable[tuple[Tensor, Tensor]], penalty: float) -> tuple[Tensor, Tensor]:
    """Fits ``y = x @ weights + bias``.

    Args:
        batches: Pairs of x (n, D) and y (n, P).
        penalty: L2 penalty on weights and bias, relative to the mean feature energy.

    Returns:
        weights (D, P) and bias (P,), float64.
    """
    gram, cross = torch.zeros(()), torch.zeros(())
    for x, y in batches:
        features = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64, device=x.device)], dim=1)
        gram = gram.to(features) + features.T @ features
        cross = cross.to(features) + features.T @ y.double()
    ridge = penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(gram + ridge, cross)
    return solution[:-1], solution[-1]
