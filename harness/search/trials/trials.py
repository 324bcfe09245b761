"""Trials as they are kept: what was tried, what it measured, which limits it broke."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from optuna import TrialPruned
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from leakgauge.harness.errors import LeakgaugeError, ResourceError, StoreError
from leakgauge.harness.search.objectives import violations
from leakgauge.harness.search.sampling.schedule import Params, TrialSchedule
from leakgauge.harness.search.trials.evaluation import Evaluator
from leakgauge.harness.suite.schema import PluginConfig
from leakgauge.harness.system.containment import contained

_OPTIONS, _CHANNEL, _SHARES, _METRICS, _VIOLATIONS = "options", "channel", "shares", "metrics", "violations"
REASON = "reason"
"""Set on a trial that failed by itself, rather than with its worker; it says why."""


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    Args:
        number: Its number in the study.
        params: What the sampler drew.
        options: Defense options, thresholds included.
        channel: The channel.
        shares: The share of each edge block.
        metrics: Means over the search images (``leakgauge.harness.search.metrics``).
        violations: By how much each constraint is exceeded; 0 or less keeps it.
    """

    number: int
    params: Params
    options: dict[str, Any]
    channel: PluginConfig
    shares: tuple[float, ...]
    metrics: dict[str, float]
    violations: dict[str, float]

    @property
    def feasible(self) -> bool:
        """Whether it keeps all constraints."""
        return all(excess <= 0 for excess in self.violations.values())

    @classmethod
    def of(cls, trial: FrozenTrial) -> TrialRecord:
        """Reads a finished trial.

        Raises:
            StoreError: The database does not hold what a search writes of it.
        """
        kept: Mapping[str, Any] = trial.user_attrs
        try:
            return cls(
                trial.number,
                dict(trial.params),
                dict(kept[_OPTIONS]),
                PluginConfig.model_validate(kept[_CHANNEL]),
                tuple(float(share) for share in kept[_SHARES]),
                {str(name): float(value) for name, value in kept[_METRICS].items()},
                {str(name): float(value) for name, value in kept[_VIOLATIONS].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"trial {trial.number} cannot be read: {type(error).__name__}",
                where="the database of the search",
                hint="restore it, or choose another --out",
            ) from error


def has_ended(trial: FrozenTrial) -> bool:
    """Tells whether a trial counts: measured on all images, given up on fewer, or failed for a reason of its own."""
    return trial.state in {TrialState.COMPLETE, TrialState.PRUNED} or failed_by_itself(trial)


def failed_by_itself(trial: FrozenTrial) -> bool:
    """Tells whether a trial failed for what it tried, and not because its worker was lost."""
    return trial.state is TrialState.FAIL and REASON in trial.user_attrs


class FailedTrial(NamedTuple):
    """A trial that could not be measured: its number, what the sampler drew, and why."""

    number: int
    params: Params
    reason: str


def failures(study: Study) -> list[FailedTrial]:
    """Returns the trials of a study that failed by themselves, by number."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [FailedTrial(t.number, dict(t.params), str(t.user_attrs[REASON])) for t in trials if failed_by_itself(t)]


class Tried(NamedTuple):
    """What became of the trials of a search, each by number: measured on all images, or failed by themselves."""

    finished: list[TrialRecord]
    failed: list[FailedTrial]


def tried(study: Study) -> Tried:
    """Returns what a search has tried; raises StoreError where the database is damaged."""
    return Tried(finished(study), failures(study))


class TrialFailedError(Exception):
    """Tells Optuna that a trial failed; its reason is kept."""


def finished(study: Study) -> list[TrialRecord]:
    """Returns the trials of a study that were measured on all images, by number.

    Raises:
        StoreError: The database is damaged.
    """
    try:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    except (SQLAlchemyError, StorageInternalError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"its trials cannot be read: {type(error).__name__}",
            where="the database of the search",
            hint="restore it, or choose another --out",
        ) from error
    return [TrialRecord.of(trial) for trial in trials]


def run_trial(trial: Trial, evaluator: Evaluator, schedule: TrialSchedule) -> list[float]:
    """Draws, measures and keeps one trial; returns the objectives in their own units.

    Constraints are handed to Optuna, which samplers that know constraints read.

    Raises:
        TrialPruned: On one of the space's rungs earlier trials did better.
        TrialFailedError: It could not be measured.
        ResourceError: Memory or disk ran out, which says nothing of the trial.
    """
    candidate = schedule.drawn(trial)
    with _kept_reason(trial):
        options = evaluator.options(candidate)
    space = evaluator.space
    for rung, share in enumerate(space.rungs):
        with _kept_reason(trial):
            found = evaluator.measure(options, candidate.channel, share)
        trial.report(found[space.objectives[0]], rung)
        if trial.should_prune():
            raise TrialPruned
    with _kept_reason(trial):
        metrics = evaluator.measure(options, candidate.channel)
    broken = violations(space.constraints, metrics, evaluator.quality_base)
    for name, excess in broken.items():
        trial.set_constraint(name, excess)
    kept = {
        _OPTIONS: options,
        _CHANNEL: candidate.channel.model_dump(),
        _SHARES: list(candidate.shares),
        _METRICS: metrics,
        _VIOLATIONS: broken,
    }
    for name, value in kept.items():
        trial.set_user_attr(name, value)
    return [metrics[name] for name in space.objectives]


@contextmanager
def _kept_reason(trial: Trial) -> Iterator[None]:
    """Keeps on a trial why it failed, so that the search can go on without it."""
    try:
        with contained("measuring", f"trial {trial.number}"):
            yield
    except (StoreError, ResourceError):
        raise
    except LeakgaugeError as error:
        trial.set_user_attr(REASON, str(error).encode(errors="backslashreplace").decode()[:1000])
        raise TrialFailedError(str(error)) from error
