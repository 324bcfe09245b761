"""The gate: does a run leak more, or cost more, than a baseline and limits allow? Where it cannot tell, it fails."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from leakgauge.harness.scoring.statistics import holm
from leakgauge.reports.analysis.difference import images_for, interval_over, paired_difference
from leakgauge.reports.analysis.identity import IDENTITIES, grants_of, identity_of, other_scorer
from leakgauge.reports.analysis.measures import Measure, MeasuredPoint, measured
from leakgauge.reports.analysis.run import NOT_RUN, LoadedRun
from leakgauge.reports.comparison.compare import code_notes
from leakgauge.reports.gate.baseline import Baseline, BaselinePoint, attacks_of, options_of
from leakgauge.reports.gate.check import Check, Gate, Outcome
from leakgauge.reports.gate.limited import check_names, measure_here, unchecked, unlike_attacks
from leakgauge.reports.gate.limits import Absolute, Limits
from leakgauge.reports.gate.sample_size import advice, images_that_stand_out, images_that_tell

SIGNIFICANCE = 0.05
_NOT_BY_IMAGES = "more evaluation images cannot tell"


def judge(run: LoadedRun, baseline: Baseline | None, limits: Limits) -> Gate:
    """Judges a run.

    A measure passes where the 95 % interval of its paired change lies within what is allowed, and exceeds where the
    interval lies beyond and the p-value, adjusted for all checks together, is below 5 %. In between the gate cannot
    tell; nor can it where something is unscored, missing, inconclusive, a lower bound or not comparable.

    Args:
        run: The run.
        baseline: What it is compared with; None where only absolute limits count.
        limits: The limits.

    Raises:
        ConfigError: The limits name an operating point that neither side has, or there is nothing to check.
    """
    check_names(run, baseline, limits)
    ours = measured(run, None if baseline is None else baseline.counted)
    checks = [Check("the whole run", None, "comparable", "cannot tell", why) for why in _doubts_of_all(run, baseline)]
    notes = unchecked(run, limits)
    if baseline is not None:
        for point in baseline.points:
            mine = next((m for m in ours if (m.point, m.setting) == point.key), None)
            checks += _against(run, baseline, point, mine, limits)
            notes += [] if mine is None else _changed(run, point, mine)
        known = {point.key for point in baseline.points}
        unknown = [m for m in ours if (m.point, m.setting) not in known]
        notes += code_notes(baseline.code, run.code, "the baseline", "the run")
        why = "not in the baseline; write it again"
        checks += [Check(m.place, None, "known to the baseline", "cannot tell", why) for m in unknown]
    for limit in limits.absolute:
        checks += _absolute(run, ours, limit, limits)
    return Gate(run.label, tuple(_adjusted(checks)), tuple(dict.fromkeys(notes)))


def _doubts_of_all(run: LoadedRun, baseline: Baseline | None) -> Iterator[str]:
    """Says what makes the whole run impossible to judge."""
    status = run.manifest.get("status", "not stated")
    if status != "complete":
        yield f"the run is not complete (status: {run.status})"
    absent = int((run.cells["status"] == NOT_RUN).sum())
    if absent:
        yield f"{absent} of {len(run.cells)} planned cells have no result"
    yield from run.faults
    if baseline is None:
        return
    ours = identity_of(run)
    for name, what in IDENTITIES.items():
        theirs = baseline.data.get(name, "")
        if theirs != ours[name]:
            yield f"another {what}: {theirs or 'not stated'} in the baseline, {ours[name] or 'not stated'} now"


def _against(
    run: LoadedRun, baseline: Baseline, point: BaselinePoint, mine: MeasuredPoint | None, limits: Limits
) -> Iterator[Check]:
    """Checks an operating point against the baseline."""
    place = f"{point.operating_point}, channel {point.channel}, threat model {point.threat_model}"
    if mine is None:
        yield Check(place, None, "measured", "cannot tell", "in the baseline, but the run does not hold it")
        return
    yield from _unrecorded(run, place, point, mine, limits)
    for name, recorded in point.measures.items():
        measure = measure_here(name, run)
        allowance = limits.allowance(point.operating_point, measure)
        if allowance is None:
            continue
        rule = f"at most {allowance} {measure.worse}"
        check = Check(place, measure, rule, "pass", base=recorded.mean)
        another = other_scorer(name, baseline.data, identity_of(run))
        if another:
            check = replace(check, outcome="cannot tell", why=another)
        else:
            check = _of_measure(check, measure, baseline, point, mine, allowance.of(recorded.mean), limits)
        if check.outcome == "pass" and measure.kind == "leakage":
            on = mine.resting_on(name)
            why = _leakage_doubt(run, point, on, limits)
            why = why or _weakened(check, on, allowance.of(recorded.mean), unlike_attacks(run, baseline, point, on))
            check = replace(check, outcome="cannot tell", why=why) if why else replace(check, rests_on=_rest(on))
        yield check


def _rest(mine: MeasuredPoint) -> str:
    return "" if mine.conclusive else mine.verdict


def _unproven(mine: MeasuredPoint, limits: Limits) -> str:
    """Says why leakage within the limits proves nothing; empty where it does, or where that is accepted."""
    stated = {"inconclusive": limits.inconclusive, "lower bound": limits.lower_bounds}
    why = f"{mine.verdict}: {mine.reason}; {_NOT_BY_IMAGES}"
    return why if stated.get(mine.verdict) == "cannot tell" else ""


def _of_measure(
    check: Check,
    measure: Measure,
    baseline: Baseline,
    point: BaselinePoint,
    mine: MeasuredPoint,
    allowed: float,
    limits: Limits,
) -> Check:
    """Judges one measure by what the baseline recorded of it."""
    now = mine.images.get(measure.name)
    if now is None or not now.notna().any():
        return replace(check, outcome="cannot tell", why="unscored in the run")
    check = replace(check, new=measure.over(now))
    values = baseline.values(point, measure.name)
    if not math.isfinite(check.base):
        return replace(check, outcome="cannot tell", why="unscored in the baseline")
    if values is not None:
        return _paired(check, measure, values, mine, allowed, limits.minimum_images)
    if measure.kind != "cost":
        return replace(check, outcome="cannot tell", why="the baseline holds no value an image")
    if now.isna().any():
        return replace(check, outcome="cannot tell", why="unscored for some images of the run")
    return _by_means(check, measure, allowed)


def _unrecorded(
    run: LoadedRun, place: str, point: BaselinePoint, mine: MeasuredPoint, limits: Limits
) -> Iterator[Check]:
    """Checks that the baseline holds every limited measure that the run scores: what it lacks would go unchecked."""
    for name in mine.names:
        measure = measure_here(name, run)
        limited = limits.allowance(point.operating_point, measure) is not None
        if limited and name not in point.measures and mine.images[name].notna().any():
            yield Check(place, measure, "recorded", "cannot tell", "the baseline does not hold it; write it again")


def _weakened(check: Check, mine: MeasuredPoint, allowed: float, unlike: str) -> str:
    """Says that clearly less was rebuilt, which a weaker attack would do too; empty where that cannot be why."""
    sign = 1 if check.measure is None else check.measure.sign
    if not max(sign * check.lo, sign * check.hi) < -allowed:
        return ""
    if mine.verdict == "lower bound":
        return "a lower bound that is much lower than in the baseline: less leakage, or hidden better from this attack?"
    if mine.verdict == "inconclusive":
        return "an inconclusive attack rebuilds much less than in the baseline: less leakage, or a weaker attack?"
    return (
        f"much less than in the baseline, and not shown to be converged: {unlike}; a weaker attack?" if unlike else ""
    )


def _lost(run: LoadedRun, mine: MeasuredPoint) -> str:
    """Says which attacks failed or did not run: no lower bound either, so ``inconclusive: judge`` does not cover it."""
    cells = [cell for cell in run.cells_at(mine.setting, mine.point) if cell["attack"] in mine.attacks]
    lost = [cell for cell in cells if cell["status"] != "done"]
    names = ", ".join(dict.fromkeys(str(cell["attack"]) for cell in lost))
    return f"not measured: {names} ({lost[0]['status']}: {lost[0]['reason'] or 'no reason given'})" if lost else ""


def _leakage_doubt(run: LoadedRun, point: BaselinePoint, mine: MeasuredPoint, limits: Limits) -> str:
    """Says why leakage that seems unchanged proves nothing; empty where it proves something."""
    missing = [label for label in point.attacks if label not in mine.attacks]
    if missing:
        return f"attacks of the baseline are missing: {', '.join(missing)}"
    if lost := _lost(run, mine):
        return lost
    if grants_of(run, point.threat_model) != point.grants:
        return f"threat model {point.threat_model} grants something else than in the baseline"
    return _unproven(mine, limits)


def _by_means(check: Check, measure: Measure, allowed: float) -> Check:
    change = check.new - check.base
    # Means are recorded rounded, and a change of nothing but that is none.
    slack = 0.51 * 10.0 ** -(measure.digits + 1)
    outcome: Outcome = "exceeds" if measure.sign * change > allowed + slack else "pass"
    if not math.isfinite(change):
        return replace(check, outcome="cannot tell", why="the means are no finite numbers")
    return replace(check, outcome=outcome, change=change)


def _paired(
    check: Check, measure: Measure, values: pd.Series[float], mine: MeasuredPoint, allowed: float, least: int
) -> Check:
    found = paired_difference(values, mine.images[measure.name], mine.images["group"], measure, allowed)
    check = replace(check, change=found.mean, lo=found.lo, hi=found.hi, p=found.p_worse, n=found.n)
    if found.n < least:
        why = f"{found.n} images were scored in both, fewer than {least}"
        return replace(check, outcome="cannot tell", why=why, p=math.nan, images_needed=least)
    known, now = values.notna(), mine.images[measure.name].reindex(values.index).notna()
    unscored, unknown = int((known & ~now).sum()), len(mine.images.index.difference(values.index))
    if unscored or unknown:
        one = f"{unscored} images of the baseline are unscored in the run"
        why = one if unscored else f"{unknown} images of the run are not in the baseline"
        return replace(check, outcome="cannot tell", why=why, p=math.nan)
    return _bounded(_between(check, measure.sign, allowed), measure, mine)


def _bounded(check: Check, measure: Measure, mine: MeasuredPoint) -> Check:
    """Lets no percentile pass of so few independent images that they cannot bound it from above."""
    if measure.percentile is None or check.outcome != "pass":
        return check
    least = images_for(measure.percentile)
    independent = mine.images.loc[mine.images[measure.name].notna(), "group"].nunique()
    if independent >= least:
        return check
    why = f"{independent} independent images, fewer than the {least} that bound a {measure.percentile}th percentile"
    return replace(check, outcome="cannot tell", why=why, images_needed=least)


def _between(check: Check, sign: int, allowed: float) -> Check:
    """Judges by the interval: within what is allowed, beyond it, or across."""
    if not (math.isfinite(check.lo) and math.isfinite(check.hi)):
        return replace(check, outcome="cannot tell", why="there is no interval: too few scored images or groups")
    least, most = sorted((sign * check.lo, sign * check.hi))
    if most <= allowed:
        return replace(check, outcome="pass")
    if least > allowed:
        return replace(check, outcome="exceeds")
    needed = images_that_tell(check.n, sign * check.change, least, most, allowed)
    why = f"the interval reaches across the limit; {advice(needed)}"
    return replace(check, outcome="cannot tell", why=why, images_needed=needed)


def _absolute(run: LoadedRun, ours: Sequence[MeasuredPoint], limit: Absolute, limits: Limits) -> Iterator[Check]:
    covered = [m for m in ours if limit.covers(m.point, m.setting.channel, m.setting.threat_model)]
    if not covered:
        place = f"{limit.operating_point}, channel {limit.channel}, threat model {limit.threat_model}"
        yield Check(place, None, limit.text, "cannot tell", "the run holds nothing that this limit is for")
    for one in covered:
        measure = measure_here(limit.measure, run)
        check = Check(one.place, measure, limit.text, "pass")
        values = one.images.get(limit.measure)
        scored = 0 if values is None else int(values.notna().sum())
        if values is None or scored == 0:
            yield replace(check, outcome="cannot tell", why="unscored in the run")
            continue
        found = interval_over(values, one.images["group"], measure)
        check = replace(check, new=found.mean, change=found.mean, lo=found.lo, hi=found.hi, n=found.n)
        if scored < limits.minimum_images:
            why = f"{scored} images were scored, fewer than {limits.minimum_images}"
            yield replace(check, outcome="cannot tell", why=why, images_needed=limits.minimum_images)
            continue
        bound = limit.at_most if limit.at_most is not None else limit.at_least
        assert bound is not None
        sign = 1 if limit.at_most is not None else -1
        check = _bounded(_between(check, sign, sign * bound), measure, one)
        if check.outcome == "pass":
            on = one.resting_on(limit.measure)
            why = _passing_doubt(run, on, measure, len(values) - scored, limits)
            rest = _rest(on) if measure.kind == "leakage" else ""
            check = replace(check, outcome="cannot tell", why=why) if why else replace(check, rests_on=rest)
        yield check


def _passing_doubt(run: LoadedRun, one: MeasuredPoint, measure: Measure, unscored: int, limits: Limits) -> str:
    """Says why what is within its limit proves nothing; empty where it proves something."""
    if unscored:
        return f"{unscored} of {len(one.images)} images are unscored"
    if measure.kind != "leakage":
        return ""
    if lost := _lost(run, one):
        return lost
    return _unproven(one, limits)


def _changed(run: LoadedRun, point: BaselinePoint, mine: MeasuredPoint) -> list[str]:
    """Says what else is not as it was when the baseline was written."""
    notes = []
    if options_of(run, point.operating_point) != point.options:
        notes.append(f"operating point {point.operating_point} is configured otherwise than in the baseline")
    now = attacks_of(run, mine.attacks)
    notes += [
        f"attack {label} is configured otherwise than in the baseline: {stated}, was {point.attacks[label]}"
        for label, stated in now.items()
        if label in point.attacks and point.attacks[label] != stated
    ]
    notes += [f"attack {label} is new since the baseline" for label in now if label not in point.attacks]
    return notes


def _adjusted(checks: list[Check]) -> Iterator[Check]:
    """Puts adjusted p-values in place; what no longer stands out among so many checks cannot be told."""
    for check, p in zip(checks, holm([check.p for check in checks]), strict=True):
        if check.outcome == "exceeds" and p >= SIGNIFICANCE:
            needed = images_that_stand_out(check.n, check.p, p, SIGNIFICANCE)
            why = f"beyond the limit, but not clearly for as many checks; {advice(needed)}"
            yield replace(check, outcome="cannot tell", why=why, p=p, images_needed=needed)
        else:
            yield replace(check, p=p)
