"""Muon, with a choice of the number type in which it orthogonalises."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that lifts singular values to about 1: Jordan et al. 2024, steepest at zero."""
ITERATIONS = 5


def orthogonalised(matrix: Tensor, number_type: torch.dtype) -> Tensor:
    """Returns a matrix with the singular vectors of ``matrix`` and singular values between about 0.7 and 1.2.

    Args:
        matrix: (M, N).
        number_type: What to compute in, and what the result has.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(number_type)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), its size that of AdamW's updates (Liu et al. 2025, section 2.2).

    torch's own orthogonalises in bfloat16 on every device; where a CPU emulates that, it takes three quarters of the
    training.

    Args:
        params: Matrices.
        number_type: In which to orthogonalise.
        weight_decay: Decoupled.
        momentum: Nesterov's.
    """

    def __init__(
        self, params: Iterable[Tensor], number_type: torch.dtype, weight_decay: float, momentum: float = 0.95
    ) -> None:
        self._number_type = number_type
        super().__init__(params, {"lr": 1e-3, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Takes one step along the gradients; ``closure`` is not called."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                mean = state["momentum"].lerp_(matrix.grad, 1 - momentum)
                update = orthogonalised(matrix.grad.lerp(mean, momentum), self._number_type)
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(update, alpha=-rate * 0.2 * math.sqrt(max(matrix.shape)))
