"""What limits name, held against what a run has: operating points, measures, metrics of its own."""

from __future__ import annotations

from leakgauge.harness.errors import ConfigError, suggest
from leakgauge.harness.store.code_digest import differences
from leakgauge.reports.analysis.measures import MEASURES, PROBE, Measure, MeasuredPoint, measure_of
from leakgauge.reports.analysis.run import LoadedRun
from leakgauge.reports.gate.baseline import Baseline, BaselinePoint, attacks_of
from leakgauge.reports.gate.limits import Limits


def check_names(run: LoadedRun, baseline: Baseline | None, limits: Limits) -> None:
    """Raises ConfigError where limits name what neither side has, or there is nothing to check."""
    if baseline is None and not limits.absolute:
        raise ConfigError(
            "there is nothing to check", where="gate", hint="give --baseline, or --limits with `absolute`"
        )
    points = {p.name for p in run.suite.operating_points}
    points |= {p.operating_point for p in baseline.points} if baseline else set()
    known = {*MEASURES, *(score.name for score in run.own_scores)}
    known |= {name for point in (baseline.points if baseline else ()) for name in point.measures}
    for name in limits.measures:
        if name not in known and not name.startswith(PROBE):
            raise ConfigError(f"unknown measure {name!r}", where="limits", hint=suggest(name, sorted(known)))
    for name in limits.points:
        if name not in points:
            raise ConfigError(
                f"no operating point {name!r}", where="limits: points", hint=suggest(name, sorted(points))
            )


def measure_here(name: str, run: LoadedRun) -> Measure:
    """Returns a measure of the run, or for one that only the baseline has a stand-in that is unscored here."""
    try:
        return measure_of(name, run.own_scores)
    except KeyError:
        return Measure(name, "", "leakage", "higher", 4)


def unlike_attacks(run: LoadedRun, baseline: Baseline, point: BaselinePoint, mine: MeasuredPoint) -> str:
    """Names attacks that are not shown to be converged, nor to be the baseline's: of other options, or other code."""
    other = bool(differences(baseline.code, run.code))
    now = attacks_of(run, mine.doubted)
    return ", ".join(label for label, stated in now.items() if other or point.attacks.get(label) != stated)


def unchecked(run: LoadedRun, limits: Limits) -> list[str]:
    """Names the run's own metrics that no limit is set for, since none has a default."""
    return [
        f"metric {score.name} is not checked: it has no limit; write worse_by: {{{score.name}: ...}}"
        for score in run.own_scores
        if score.name not in limits.measures
    ]
