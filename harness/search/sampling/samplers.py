"""Samplers: what is tried next. All are seeded by trial, so that a resumed search goes on as it would have."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.search.sampling.schedule import Params, TrialSchedule
from leakgauge.harness.search.sampling.screening import Screened
from leakgauge.harness.search.space import Space
from leakgauge.harness.search.trials.storage import begin
from leakgauge.harness.search.trials.trials import failed_by_itself
from leakgauge.harness.values.seeding import Streams

GP_MOST_TRIALS = 300
"""Trials that the Gaussian process may see. A trial costs seconds of CPU from about 200 on, growing with the cube of
their number, and memory of some 3 GB; more trials need another sampler."""
NSGA2_POPULATION = 20
ADAPTIVE = frozenset({"gp", "gp_screened", "botorch", "nsga2", "tpe"})
"""Samplers that learn from earlier trials, and therefore from a warm start."""
_Make = Callable[[int], BaseSampler]


def place_of(study: Study, trial: FrozenTrial) -> int:
    """Returns a trial's place, from 0, among those that did not fail."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return trial.number - sum(other.number < trial.number and not failed_by_itself(other) for other in failed)


class SeededByTrial(BaseSampler):
    """Makes a new sampler for every trial, seeded by the trial's place among those that did not fail.

    Whatever a sampler knows it must then have from the study: a search that was killed and resumed draws the same.
    The place rather than the number, because a trial that was lost is tried again under a new number.

    Args:
        make: Makes a sampler from a 32-bit seed.
        streams: Where seeds come from.
        schedule: The dimensions.
        warm: Parameters of the first trials, which are not drawn.
    """

    def __init__(self, make: _Make, streams: Streams, schedule: TrialSchedule, warm: Sequence[Params] = ()) -> None:
        self._make, self._streams, self._schedule, self._warm = make, streams, schedule, warm
        self._number, self._inner = -1, make(0)

    def _of(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        if self._number != trial.number:
            seed = self._streams.child(place_of(study, trial)).entropy() & 0x7FFFFFFF
            self._number, self._inner = trial.number, self._make(seed)
        return self._inner

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Asks this trial's sampler; a trial of the warm start has all dimensions."""
        begin(study, trial)
        if place_of(study, trial) < len(self._warm):
            return self._schedule.distributions()
        inner = self._of(study, trial)
        if isinstance(inner, Screened):
            return self._schedule.distributions()
        return inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Asks this trial's sampler, unless the trial belongs to the warm start."""
        inner, place = self._of(study, trial), place_of(study, trial)
        if place < len(self._warm):
            if isinstance(inner, NSGAIISampler):
                inner.get_trial_generation(study, trial)  # makes it a member of the first population
            return dict(self._warm[place])
        return inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Asks this trial's sampler."""
        return self._of(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Tells this trial's sampler."""
        self._of(study, trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tells this trial's sampler."""
        self._of(study, trial).after_trial(study, trial, state, values)


class Scheduled(BaseSampler):
    """Draws whole schedules, without regard to earlier trials.

    Args:
        schedule: The dimensions.
        draw: Returns the parameters of the trial at a place, from 0.
    """

    def __init__(self, schedule: TrialSchedule, draw: Callable[[int], Params]) -> None:
        self._schedule, self._draw = schedule, draw

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns all dimensions."""
        begin(study, trial)
        return self._schedule.distributions()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws the schedule at this trial's place among those that did not fail."""
        return self._draw(place_of(study, trial))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never called: every dimension is drawn together."""
        raise NotImplementedError(param_name)


def van_der_corput(place: int) -> float:
    """Returns the ``place``-th number in [0, 1] of 0, 1, 1/2, 1/4, 3/4, 1/8, ...: even however far it goes."""
    if place < 2:
        return float(place)
    return math.fsum(((place - 1) >> bit & 1) / 2 ** (bit + 1) for bit in range((place - 1).bit_length()))


def _sweep(schedule: TrialSchedule, low: float, high: float, place: int) -> Params:
    share = low + (high - low) * van_der_corput(place)
    return schedule.line(share, share, place)


def _line(schedule: TrialSchedule, low: float, high: float, streams: Streams, place: int) -> Params:
    rng = streams.child(place).numpy()
    start, end = (float(x) for x in rng.uniform(low, high, 2))
    return schedule.line(start, end, int(rng.integers(2**31)))


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Trials repeat exactly, but mean quality moves by whole images: the surrogate may take such steps for noise.
        return GPSampler(seed=seed, n_startup_trials=5, warn_independent_sampling=False)


def _botorch(seed: int, objectives: int) -> BaseSampler:
    try:
        extra = import_module("optuna_integration.botorch.botorch")
    except ImportError as error:
        raise ConfigError(
            "sampler 'botorch' is not installed", where="sampler", hint="pip install 'leakgauge[botorch]'"
        ) from error
    # Its own warnings come from inside every call.
    warnings.filterwarnings("ignore", category=ExperimentalWarning, module="optuna_integration")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Hypervolume improvement is for several objectives; for one the library's own choice.
        draw = extra.qnehvi_candidates_func if objectives > 1 else None
        sampler: BaseSampler = extra.BoTorchSampler(candidates_func=draw, seed=seed, n_startup_trials=5)
    return sampler


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=NSGA2_POPULATION)


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=10)


def _screened(seed: int, objectives: Objectives) -> BaseSampler:
    return Screened(seed, objectives)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


_SEEDED: Mapping[str, _Make] = {"gp": _gp, "nsga2": _nsga2, "tpe": _tpe, "random": _random}


def make_sampler(space: Space, schedule: TrialSchedule, objectives: Objectives | None = None) -> BaseSampler:
    """Builds the sampler of a space.

    ``gp`` is Optuna's Gaussian-process optimisation by expected hypervolume improvement, ``gp_screened`` chooses by the
    same among variations of the front (``search.sampling.screening``), ``botorch`` is qNEHVI; ``sweep`` tries
    uniform schedules ever more finely, and ``line`` draws both ends of a straight line over the blocks: the two
    cheap rivals that a search has to beat. The adaptive ones begin with the space's warm start.

    Args:
        space: The space.
        schedule: Its dimensions.
        objectives: Its objectives; may be left out where nothing is sampled.

    Raises:
        ConfigError: The sampler is not installed, or cannot serve this schedule or so many trials.
    """
    name, low, high = space.sampler, space.share.low, space.share.high
    streams = Streams(space.seed, ("search", name))
    if name in {"gp", "gp_screened", "botorch"} and space.trials > GP_MOST_TRIALS:
        raise ConfigError(
            f"{space.trials} trials are more than the {GP_MOST_TRIALS} that a Gaussian process can afford",
            where="trials",
            hint="take --sampler nsga2 or tpe, or fewer trials",
        )
    if name == "sweep":
        return Scheduled(schedule, lambda place: _sweep(schedule, low, high, place))
    if name == "line":
        schedule.line(low, high, 0)
        return Scheduled(schedule, lambda place: _line(schedule, low, high, streams, place))
    warm = schedule.warm_start(space.warm_start) if name in ADAPTIVE else []
    make = _SEEDED.get(name, _random)
    if name == "botorch":
        make = partial(_botorch, objectives=len(space.objectives))
    elif name == "gp_screened" and objectives is not None:
        make = partial(_screened, objectives=objectives)
    return SeededByTrial(make, streams, schedule, warm)


def quiet() -> None:
    """Keeps Optuna's own log to warnings."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
