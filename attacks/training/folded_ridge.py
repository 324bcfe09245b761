"""Ridge regression that also tells what it would say of each image had that image been left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What a map looks at: features of every place (B, N, F), and behind them those of the whole image (B, G).

    They are kept apart, because what is the same at all places costs next to nothing to sum over them.
    """

    local: Tensor
    whole: Tensor

    def select(self, rows: Tensor | slice) -> Features:
        """Returns those of some images."""
        return Features(self.local[rows], self.whole[rows])


class LinearMap(NamedTuple):
    """``x @ weights + bias[place]``: weights (F + G, P) shared by all places, a bias (N, P) for each."""

    weights: Tensor
    bias: Tensor

    def __call__(self, features: Features) -> Tensor:
        """Returns (B, N, P)."""
        width = features.local.shape[2]
        of_image = features.whole @ self.weights[width:]
        return features.local @ self.weights[:width] + of_image[:, None] + self.bias


@dataclass(frozen=True)
class Sums:
    """Sums over images, in double precision: all that a fit and its error need of them.

    Args:
        gram: (F + G, F + G) of features by features.
        cross: (F + G, P) of features by what is wanted.
        x: (N, F + G) features of every place.
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
    def of(cls, features: Features, wanted: Tensor) -> Sums:
        """Returns those of features and what is wanted (B, N, P)."""
        local, whole, asked = features.local.double(), features.whole.double(), wanted.double()
        flat, places = local.flatten(0, 1), local.shape[1]
        mixed = local.sum(dim=1).T @ whole  # (F, G)
        gram = torch.cat(
            [
                torch.cat([flat.T @ flat, mixed], dim=1),
                torch.cat([mixed.T, places * whole.T @ whole], dim=1),
            ]
        )
        cross = torch.cat([flat.T @ asked.flatten(0, 1), whole.T @ asked.sum(dim=1)])
        x = torch.cat([local.sum(dim=0), whole.sum(dim=0).expand(places, -1)], dim=1)
        return cls(gram, cross, x, asked.sum(dim=0), float(asked.square().sum()), len(local))

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

    def solved(self, penalties: Sequence[float]) -> list[LinearMap]:
        """Returns the maps of least squared error, with penalties relative to the mean feature energy."""
        count = max(1, self.count)
        x, y = self.x / count, self.y / count
        # Less what the bias of every place explains.
        gram, cross = self.gram - count * x.T @ x, self.cross - count * x.T @ y
        scale, one = gram.diagonal().mean(), torch.eye(len(gram)).to(gram)
        maps = []
        for penalty in penalties:
            ridge = (penalty * scale).clamp_min(1e-9) * one
            weights = torch.cholesky_solve(cross, torch.linalg.cholesky(gram + ridge))  # half the work of solve
            maps.append(LinearMap(weights.float(), (y - x @ weights).float()))
        return maps

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

    def add(self, features: Features, wanted: Tensor, folds: Tensor) -> None:
        """Adds images: their features, what is wanted of them (B, N, P), and the fold of each (B,)."""
        for fold, sums in enumerate(self._sums):
            own = folds == fold
            if bool(own.any()):
                self._sums[fold] = sums + Sums.of(features.select(own), wanted[own])

    def solve(self) -> tuple[LinearMap, list[LinearMap]]:
        """Chooses the penalty by left-out images; returns the map of all images, and for each fold that of the rest."""
        every = sum(self._sums[1:], self._sums[0])
        rest = [every - own if len(self._sums) > 1 else own for own in self._sums]
        maps = [one.solved(self._penalties) for one in rest]
        errors = [sum(own.error(maps[f][k]) for f, own in enumerate(self._sums)) for k in range(len(self._penalties))]
        best = errors.index(min(errors))
        return every.solved(self._penalties[best : best + 1])[0], [of_fold[best] for of_fold in maps]
