"""Ridge regression that also tells what it would say of each image had that image been left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Sums:
    """Sums over images, in double precision: all that a fit and its error need of them.

    Args:
        gram: (F, F) of features by features.
        cross: (F, P) of features by what is wanted.
        x: (N, F) features of every place.
        y: (N, P) what is wanted of every place.
        squares: Of what is wanted.
        count: Images.
    """

    gram: Tensor = field(default_factory=lambda: torch.zeros(()))
    cross: Tensor = field(default_factory=lambda: torch.zeros(()))
    x: Tensor = field(default_factory=lambda: torch.zeros(()))
    y: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: float = 0.0
    count: int = 0

    @classmethod
    def of(cls, features: Tensor, wanted: Tensor) -> Sums:
        """Returns those of features (B, N, F) and what is wanted (B, N, P)."""
        x, y = features.double(), wanted.double()
        flat, asked = x.flatten(0, 1), y.flatten(0, 1)
        return cls(flat.T @ flat, flat.T @ asked, x.sum(dim=0), y.sum(dim=0), float(y.square().sum()), len(features))

    def _with(self, other: Sums, sign: int) -> Sums:
        return Sums(
            self.gram + sign * other.gram,
            self.cross + sign * other.cross,
            self.x + sign * other.x,
            self.y + sign * other.y,
            self.squares + sign * other.squares,
            self.count + sign * other.count,
        )

    def __add__(self, other: Sums) -> Sums:
        return self._with(other, 1)

    def __sub__(self, other: Sums) -> Sums:
        return self._with(other, -1)

    def solved(self, penalty: float) -> LinearMap:
        """Returns the map of least squared error, with a penalty relative to the mean feature energy."""
        count = max(1, self.count)
        x, y = self.x / count, self.y / count
        # Less what the bias of every place explains.
        gram, cross = self.gram - count * x.T @ x, self.cross - count * x.T @ y
        ridge = (penalty * gram.diagonal().mean()).clamp_min(1e-9) * torch.eye(len(gram)).to(gram)
        weights = torch.cholesky_solve(cross, torch.linalg.cholesky(gram + ridge))  # half the work of solve
        return LinearMap(weights.float(), (y - x @ weights).float())

    def error(self, one: LinearMap) -> float:
        """Returns the squared error of a map over these images."""
        weights, bias = one.weights.double(), one.bias.double()
        crossed = (weights * self.cross).sum() + (bias * self.y).sum()
        own = (weights * (self.gram @ weights)).sum() + 2 * (bias * (self.x @ weights)).sum()
        return float(self.squares - 2 * crossed + own + self.count * bias.square().sum())


class FoldedRidge:
    """Normal equations of every fold, accumulated batch by batch in double precision.

    Every place has a bias of its own: it is what the one-hot position of the place would add, without its cost.

    Args:
        folds: Folds; each image is in one of them.
        penalties: L2 penalties that are tried, relative to the mean feature energy.
    """

    def __init__(self, folds: int, penalties: Sequence[float]) -> None:
        self._penalties, self._sums = penalties, [Sums() for _ in range(folds)]

    def add(self, features: Tensor, wanted: Tensor, folds: Tensor) -> None:
        """Adds images: features (B, N, F), what is wanted of them (B, N, P), and the fold of each (B,)."""
        for fold, sums in enumerate(self._sums):
            own = folds == fold
            if bool(own.any()):
                self._sums[fold] = sums + Sums.of(features[own], wanted[own])

    def solve(self) -> tuple[LinearMap, list[LinearMap]]:
        """Chooses the penalty by left-out images; returns the map of all images, and for each fold that of the rest."""
        every = sum(self._sums[1:], self._sums[0])
        rest = [every - own if len(self._sums) > 1 else own for own in self._sums]
        maps = [[one.solved(penalty) for penalty in self._penalties] for one in rest]
        errors = [sum(own.error(maps[f][k]) for f, own in enumerate(self._sums)) for k in range(len(self._penalties))]
        best = errors.index(min(errors))
        return every.solved(self._penalties[best]), [of_fold[best] for of_fold in maps]
