"""Ridge regression that also tells what it would say of each image had that image been left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LinearMap(NamedTuple):
    """``x @ weights + bias[place]``: weights (F, P) shared by all places, a bias (N, P) for each."""

    weights: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Returns (B, N, P) for features (B, N, F)."""
        return features @ self.weights + self.bias


class FoldedRidge:
    """Normal equations of every fold, accumulated batch by batch in double precision.

    Every place has a bias of its own: it is what the one-hot position of the place would add, without its cost.

    Args:
        folds: Folds; each image is in one of them.
        penalties: L2 penalties that are tried, relative to the mean feature energy.
    """

    def __init__(self, folds: int, penalties: Sequence[float]) -> None:
        self._folds, self._penalties = folds, penalties
        self._gram, self._cross = [torch.zeros(()) for _ in range(folds)], [torch.zeros(()) for _ in range(folds)]
        self._x, self._y = [torch.zeros(()) for _ in range(folds)], [torch.zeros(()) for _ in range(folds)]
        self._count = [0] * folds

    def add(self, features: Tensor, wanted: Tensor, folds: Tensor) -> None:
        """Adds images: features (B, N, F), what is wanted of them (B, N, P), and the fold of each (B,)."""
        for fold in range(self._folds):
            own = folds == fold
            x, y = features[own].double(), wanted[own].double()  # (b, N, F), (b, N, P)
            flat = x.flatten(0, 1)
            self._gram[fold] = self._gram[fold] + flat.T @ flat
            self._cross[fold] = self._cross[fold] + flat.T @ y.flatten(0, 1)
            self._x[fold], self._y[fold] = self._x[fold] + x.sum(dim=0), self._y[fold] + y.sum(dim=0)
            self._count[fold] += len(x)

    def _maps(self, left_out: int | None) -> list[LinearMap]:
        """Returns the map for each penalty, fitted to all folds but one, or to all."""
        kept = [fold for fold in range(self._folds) if fold != left_out]
        count = max(1, sum(self._count[fold] for fold in kept))
        x, y = (torch.stack([parts[fold] for fold in kept]).sum(dim=0) / count for parts in (self._x, self._y))
        # Less what the bias of every place explains.
        gram = torch.stack([self._gram[fold] for fold in kept]).sum(dim=0) - count * x.T @ x
        cross = torch.stack([self._cross[fold] for fold in kept]).sum(dim=0) - count * x.T @ y
        values, vectors = torch.linalg.eigh(gram)
        turned, scale = vectors.T @ cross, float(gram.diagonal().mean())
        found = []
        for penalty in self._penalties:
            weights = vectors @ (turned / (values.clamp_min(0) + penalty * scale)[:, None])
            found.append(LinearMap(weights.float(), (y - x @ weights).float()))
        return found

    def solve(self, features: Tensor, wanted: Tensor, folds: Tensor) -> tuple[LinearMap, Tensor]:
        """Chooses the penalty by left-out images.

        Args:
            features: (B, N, F), as added.
            wanted: (B, N, P).
            folds: (B,).

        Returns:
            The map fitted to all images, and (B, N, P) what maps fitted without each image's fold give for it.
        """
        every = [self._maps(fold if self._folds > 1 else None) for fold in range(self._folds)]
        errors = torch.zeros(len(self._penalties), dtype=torch.float64)
        for fold, maps in enumerate(every):
            own = folds == fold
            for number, one in enumerate(maps):
                errors[number] += (one(features[own]) - wanted[own]).square().sum().double()
        best = int(errors.argmin())
        given = torch.empty_like(wanted)
        for fold, maps in enumerate(every):
            own = folds == fold
            given[own] = maps[best](features[own])
        return self._maps(None)[best], given
