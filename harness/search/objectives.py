"""Objectives, constraints, the reference point, and the hypervolume that a front dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from moocore import hypervolume
from numpy.typing import NDArray
from optuna.study import StudyDirection

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.metrics import HIGHER_IS_BETTER
from leakgauge.harness.search.space import Constraint, Space

Values = NDArray[np.float64]
Metrics = Mapping[str, float]


def violations(constraints: Sequence[Constraint], metrics: Metrics, quality_base: float) -> dict[str, float]:
    """Returns by how much each limit is exceeded, in the metric's unit; 0 or less keeps it."""
    found = {}
    for limit in constraints:
        value = metrics[limit.metric]
        if limit.at_most is not None:
            found[limit.name] = value - limit.at_most
        elif limit.at_least is not None:
            found[limit.name] = limit.at_least - value
        else:
            assert limit.drop_at_most is not None
            found[limit.name] = quality_base - limit.drop_at_most - value
    return found


class Objectives:
    """Turns metrics into losses of one scale: 0 is ideal, 1 the reference point, beyond which a point counts nothing.

    A cost c has the loss c / reference, quality q the loss (1 - q) / (1 - reference). The hypervolume of a set is the
    volume of losses in [0, 1] that it dominates: comparable between searches of one space, and between its samplers.

    Args:
        space: The space; its ``reference`` comes first.
        undefended: Metrics of the undefended operating point, which stand in where no reference is given. Quality has
            0.9 times the undefended quality, since the undefended point itself would leave nothing to dominate.

    Raises:
        ConfigError: A reference leaves no room.
    """

    def __init__(self, space: Space, undefended: Metrics) -> None:
        self.names: tuple[str, ...] = space.objectives
        self.reference: dict[str, float] = {
            name: space.reference.get(name, self._default(name, undefended)) for name in space.objectives
        }
        for name, value in self.reference.items():
            if value >= 1 if name in HIGHER_IS_BETTER else value <= 0:
                raise ConfigError(
                    f"reference {name} = {value:g} leaves no room", where=space.name, hint=f"set reference.{name}"
                )

    @staticmethod
    def _default(name: str, undefended: Metrics) -> float:
        return 0.9 * undefended[name] if name in HIGHER_IS_BETTER else undefended[name]

    @property
    def directions(self) -> list[StudyDirection]:
        """Which way is better, for each objective."""
        better = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}
        return [better[name in HIGHER_IS_BETTER] for name in self.names]

    def front(self, points: Sequence[Metrics]) -> list[int]:
        """Returns the places of the points that no other dominates, the least loss of the first objective first."""
        losses = self.losses(points)
        return sorted(np.flatnonzero(non_dominated(losses)).tolist(), key=lambda place: losses[place].tolist())

    def losses(self, points: Sequence[Metrics]) -> Values:
        """Returns the (n, objectives) losses of points."""
        rows = [[self._loss(name, point[name]) for name in self.names] for point in points]
        return np.array(rows, dtype=np.float64).reshape(len(points), len(self.names))

    def _loss(self, name: str, value: float) -> float:
        if name in HIGHER_IS_BETTER:
            return (1 - value) / (1 - self.reference[name])
        return value / self.reference[name]

    def hypervolume(self, points: Sequence[Metrics]) -> float:
        """Returns the share of the reference box that points dominate, 0 to 1 (more where a loss is negative)."""
        losses = self.losses(points)
        inside = losses[(losses <= 1).all(axis=1)]
        return float(hypervolume(inside, ref=np.ones(len(self.names)))) if len(inside) else 0.0


def non_dominated(losses: Values) -> NDArray[np.bool_]:
    """Returns (n,) True for rows of ``losses`` (n, m) that no other row dominates; of equal rows the first only.

    A row dominates another where it is nowhere higher and somewhere lower. A row that is not known in full (NaN), which
    nothing would dominate, is never kept.
    """
    kept: NDArray[np.bool_] = np.array([not np.isnan(row).any() for row in losses], dtype=bool)
    for i, row in enumerate(losses):
        if not kept[i]:
            continue
        better = (losses <= row).all(axis=1) & (losses < row).any(axis=1)
        equal = (losses[:i] == row).all(axis=1)
        kept[i] = not (better.any() or equal.any())
    return kept
