"""A Gaussian-process search that screens variations of the front: what is tried next is never far from what was good.

Optuna's own Gaussian-process sampler optimises its acquisition function over the whole box and proposes its corners:
half of all shares were exactly 1 in a measured search, where merging everything falls off a cliff. Here candidates are
crossings and mutations of points on the front, beside a few random ones, and the surrogate only chooses among them, by
expected hypervolume improvement (Emmerich et al. 2006). The improvement is expected over the whole predictive
distribution, what the surrogate takes for noise included: trials repeat exactly, so that a lucky point stays lucky.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from moocore import hypervolume
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from leakgauge.harness.search.metrics import HIGHER_IS_BETTER
from leakgauge.harness.search.objectives import Objectives, non_dominated
from leakgauge.harness.search.sampling.schedule import CHANNEL, Params

Values = NDArray[np.float64]
FEWEST = 5
"""With fewer finished trials there is nothing to learn from."""
VARIATIONS, RANDOM = 150, 50
"""Candidates of either kind that are screened."""
MUTATION = 0.12
"""Standard deviation of a mutation, as a share of the range."""
DRAWS = 12
"""Draws of the predictive distribution that the improvement is averaged over."""


class Screened(BaseSampler):
    """Chooses, among variations of the front, that of the largest expected hypervolume improvement.

    Args:
        seed: Decides all draws.
        objectives: Turns metrics into losses below the reference point.
    """

    def __init__(self, seed: int, objectives: Objectives) -> None:
        self._rng, self._objectives = np.random.default_rng(seed), objectives

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Leaves the dimensions to the caller, who knows them all."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never called: every dimension is drawn together."""
        raise NotImplementedError(param_name)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws candidates, and returns the best of them."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < FEWEST:
            return self._random(search_space)
        losses = self._objectives.losses([dict(zip(self._objectives.names, t.values, strict=True)) for t in done])
        feasible = np.array([_feasible(t) for t in done])
        parents = [done[i].params for i in np.flatnonzero(_front(losses, feasible))]
        candidates = [self._variation(parents, search_space) for _ in range(VARIATIONS)]
        candidates += [self._random(search_space) for _ in range(RANDOM)]
        tried = np.array([encoded(t.params, search_space) for t in done])
        asked = np.array([encoded(params, search_space) for params in candidates])
        draws = self._predicted(tried, losses, asked)
        gain = np.zeros(len(candidates))
        for channel in {params.get(CHANNEL) for params in candidates}:
            here = np.array([t.params.get(CHANNEL) == channel for t in done]) & feasible
            front = losses[here][non_dominated(losses[here])] if here.any() else losses[:0]
            own = np.array([params.get(CHANNEL) == channel for params in candidates])
            gain[own] = [improvement(front, draws[:, i]) for i in np.flatnonzero(own)]
        gain *= self._likely_feasible(done, tried, asked)
        # Where nothing is expected to reach the reference point, whatever comes nearest.
        best = int(gain.argmax()) if gain.max() > 0 else int(draws.mean(axis=0).sum(axis=1).argmin())
        return candidates[best]

    def _random(self, space: Mapping[str, BaseDistribution]) -> Params:
        return {name: self._draw(distribution) for name, distribution in space.items()}

    def _draw(self, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[int(self._rng.integers(len(distribution.choices)))]
        assert isinstance(distribution, FloatDistribution)
        return float(self._rng.uniform(distribution.low, distribution.high))

    def _variation(self, parents: Sequence[Params], space: Mapping[str, BaseDistribution]) -> Params:
        """Crosses two parents, or takes one, and mutates about half of its dimensions, one at least."""
        first, second = (parents[int(i)] for i in self._rng.integers(len(parents), size=2))
        crossed = self._rng.random() < 0.5
        chosen = {name: (second if crossed and self._rng.random() < 0.5 else first)[name] for name in space}
        moved = self._rng.random(len(space)) < 0.5
        moved[self._rng.integers(len(space))] = True
        for name, move in zip(space, moved, strict=True):
            distribution = space[name]
            if move and isinstance(distribution, FloatDistribution):
                step = self._rng.normal(0, MUTATION) * (distribution.high - distribution.low)
                chosen[name] = float(np.clip(chosen[name] + step, distribution.low, distribution.high))
            elif move:
                chosen[name] = self._draw(distribution)
        return chosen

    def _predicted(self, tried: Values, losses: Values, asked: Values) -> Values:
        """Returns (draws, candidates, objectives) losses drawn from the predictive distributions."""
        normals = norm.ppf((np.arange(DRAWS) + 0.5) / DRAWS)
        drawn = np.empty((DRAWS, len(asked), losses.shape[1]))
        for column, name in enumerate(self._objectives.names):
            values = losses[:, column]
            logarithmic = name not in HIGHER_IS_BETTER and bool((values > 0).all())
            mean, spread = _surrogate(tried, np.log(values) if logarithmic else values, asked)
            found = mean + self._rng.permutation(normals)[:, None] * spread
            drawn[:, :, column] = np.exp(found) if logarithmic else found
        return drawn

    @staticmethod
    def _likely_feasible(done: Sequence[FrozenTrial], tried: Values, asked: Values) -> Values:
        """Returns for each candidate the probability that it keeps all constraints."""
        likely = np.ones(len(asked))
        for name in done[0].user_attrs.get("violations", {}):
            excess = np.array([float(t.user_attrs["violations"][name]) for t in done])
            mean, spread = _surrogate(tried, excess, asked)
            likely *= norm.cdf(-mean / np.maximum(spread, 1e-12))
        return likely


def _feasible(trial: FrozenTrial) -> bool:
    return all(excess <= 0 for excess in trial.user_attrs.get("violations", {}).values())


def _front(losses: Values, feasible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tells which trials nothing feasible dominates; where none is feasible, of all trials."""
    counted = feasible if feasible.any() else np.ones(len(losses), dtype=bool)
    kept = np.zeros(len(losses), dtype=bool)
    kept[np.flatnonzero(counted)] = non_dominated(losses[counted])
    return kept


def encoded(params: Params, space: Mapping[str, BaseDistribution]) -> Values:
    """Returns parameters as numbers in [0, 1]: shares of the range, and 1 for the choice taken of several."""
    found: list[float] = []
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            found += [float(params[name] == choice) for choice in distribution.choices]
        elif isinstance(distribution, FloatDistribution):
            found.append((params[name] - distribution.low) / (distribution.high - distribution.low))
    return np.array(found)


def improvement(front: Values, losses: Values) -> float:
    """Returns by how much points (n, objectives) would each enlarge the hypervolume below 1 of a front, on average."""
    gains = []
    for loss in losses:
        point = np.maximum(loss, 0.0)
        if (point >= 1).any():
            gains.append(0.0)
            continue
        covered = np.maximum(front, point)
        covered = covered[(covered < 1).all(axis=1)]
        inner = float(hypervolume(covered, ref=np.ones(len(point)))) if len(covered) else 0.0
        gains.append(float(np.prod(1 - point)) - inner)
    return float(np.mean(gains))


def _surrogate(tried: Values, values: Values, asked: Values) -> tuple[Values, Values]:
    """Fits a Gaussian process with a length scale a dimension; returns predictive means and standard deviations."""
    if np.ptp(values) == 0:
        return np.full(len(asked), values[0]), np.zeros(len(asked))
    scales = Matern([1.0] * tried.shape[1], length_scale_bounds=(0.1, 20.0), nu=2.5)
    kernel = ConstantKernel(1.0) * scales + WhiteKernel(0.01, (1e-6, 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(tried, values)
    mean, spread = process.predict(asked, return_std=True)
    return mean, spread
