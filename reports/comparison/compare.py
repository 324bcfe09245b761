"""Compares two runs, image by image: what got worse, better, did not clearly change, or cannot be compared, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from leakgauge.harness.scoring.statistics import holm
from leakgauge.harness.store.code_digest import Code, differences
from leakgauge.reports.analysis.difference import Difference, paired_difference
from leakgauge.reports.analysis.identity import IDENTITIES, grants_of, identity_of, other_scorer
from leakgauge.reports.analysis.measures import Measure, MeasuredPoint, measure_of, measured
from leakgauge.reports.analysis.run import LoadedRun, Setting

Outcome = Literal["worse", "better", "no clear change", "identical", "not comparable"]
OUTCOMES: tuple[Outcome, ...] = ("worse", "better", "no clear change", "identical", "not comparable")
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Compared:
    """One measure of one operating point in both runs.

    Args:
        place: Operating point, channel, threat model.
        measure: The measure.
        base: Its mean in the base; NaN where unscored.
        new: Its mean in the new run.
        difference: The paired difference; None where there is none.
        p: Two-sided p-value, adjusted for the number of comparisons (Holm).
        outcome: What is to be said.
        why: Why it cannot be compared; empty otherwise.
    """

    place: str
    measure: Measure
    base: float
    new: float
    difference: Difference | None
    p: float
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that two runs have or lack in common.

    Args:
        base: Label of the base.
        new: Label of the new run.
        rows: What was compared, in the order of the new run.
        notes: What differs between the runs beside the results, and what only one of them holds.
    """

    base: str
    new: str
    rows: tuple[Compared, ...]
    notes: tuple[str, ...]

    def of(self, outcome: Outcome) -> list[Compared]:
        """Returns the rows of an outcome."""
        return [row for row in self.rows if row.outcome == outcome]


def incomparable(base: LoadedRun, new: LoadedRun) -> str:
    """Says why nothing in two runs can be compared; empty where they speak of the same task, images and victim."""
    theirs, ours = identity_of(base), identity_of(new)
    for name, what in IDENTITIES.items():
        if theirs[name] != ours[name]:
            return f"another {what}: {theirs[name] or 'not stated'}, now {ours[name] or 'not stated'}"
    return ""


def compare(base: LoadedRun, new: LoadedRun) -> Comparison:
    """Compares every measure of every operating point that both runs hold.

    A difference is called worse or better where its p-value, adjusted for all comparisons together, is below 5 %.
    Leakage of an operating point that is not conclusive, but inconclusive or a lower bound, is bounded from below: it
    cannot show that less leaks, nor, in the base, that more does.

    Args:
        base: The run to compare with.
        new: The run that is judged.
    """
    reason = incomparable(base, new)
    theirs = {(m.point, m.setting): m for m in measured(base)}
    ours = {(m.point, m.setting): m for m in measured(new)}
    rows: list[Compared] = []
    for key, mine in ours.items():
        if key in theirs:
            rows += _rows(theirs[key], mine, reason, (base, new))
    rows = _judged(rows, theirs, ours, _unlike(base, new))
    notes = [f"nothing is comparable: {reason}"] if reason else []
    notes += [f"only in {new.label}: {m.place}" for key, m in ours.items() if key not in theirs]
    notes += [f"only in {base.label}: {m.place}" for key, m in theirs.items() if key not in ours]
    notes += [f"attack only in {new.label}: {label}" for label in new.attacks if label not in base.attacks]
    notes += [f"attack only in {base.label}: {label}" for label in base.attacks if label not in new.attacks]
    notes += [
        f"the tables of {run.label} do not belong together: {fault}" for run in (base, new) for fault in run.faults
    ]
    notes += _definition_notes(base, new)
    models = dict.fromkeys(setting.threat_model for _, setting in ours if setting in base.settings)
    notes += filter(None, (_other_grants(name, base, new) for name in models))
    notes += [f"{run.label} is not complete: {run.status}" for run in (base, new) if run.status != "complete"]
    notes += code_notes(base.code, new.code, base.label, new.label)
    return Comparison(base.label, new.label, tuple(rows), tuple(notes))


def code_notes(base: Code, new: Code, base_name: str, new_name: str) -> list[str]:
    """Says where the code that measured two runs differs; nothing where it is the same, or where neither states it."""
    if bool(base) != bool(new):
        silent = " and ".join(name for name, code in ((base_name, base), (new_name, new)) if not code)
        return [f"whether the code is the same cannot be told: {silent} does not state it"]
    found = differences(base, new)
    return [f"the code differs: {found}"] if found else []


def _rows(
    base: MeasuredPoint, new: MeasuredPoint, reason: str, runs: tuple[LoadedRun, LoadedRun]
) -> Iterator[Compared]:
    own = (*runs[1].own_scores, *runs[0].own_scores)
    identities = [identity_of(run) for run in runs]
    grants = _other_grants(new.setting.threat_model, *runs)
    for name in dict.fromkeys([*new.names, *base.names]):
        measure = measure_of(name, own)
        theirs, mine = base.images.get(name), new.images.get(name)
        means = [math.nan if values is None else measure.over(values) for values in (theirs, mine)]
        if all(math.isnan(mean) for mean in means):
            continue
        why = (
            reason
            or (grants if measure.kind == "leakage" else "")
            or _unscored(means)
            or other_scorer(name, *identities)
        )
        if why or theirs is None or mine is None:
            yield Compared(new.place, measure, means[0], means[1], None, math.nan, "not comparable", why)
            continue
        difference = paired_difference(theirs, mine, new.images["group"], measure)
        if difference.n < 2:
            why = "fewer than two images were scored in both"
            yield Compared(new.place, measure, means[0], means[1], difference, math.nan, "not comparable", why)
        else:
            yield Compared(new.place, measure, means[0], means[1], difference, difference.p, "no clear change")


def _other_grants(name: str, base: LoadedRun, new: LoadedRun) -> str:
    """Says what a threat model of one name grants otherwise in two runs; empty where it is the same."""
    theirs, ours = (_flat(grants_of(run, name)) for run in (base, new))
    changed = [
        f"{key} {json.dumps(theirs.get(key))}, now {json.dumps(ours.get(key))}"
        for key in dict.fromkeys([*theirs, *ours])
        if theirs.get(key) != ours.get(key)
    ]
    return f"threat model {name} grants something else: {'; '.join(changed)}" if changed else ""


def _flat(grants: dict[str, Any]) -> dict[str, Any]:
    """Returns grants with the keys of those within others joined: ``auxiliary.n``."""
    found: dict[str, Any] = {}
    for key, value in grants.items():
        found |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _unscored(means: list[float]) -> str:
    return " and ".join(
        f"unscored in the {run}" for run, mean in zip(("base", "new run"), means, strict=True) if math.isnan(mean)
    )


def _judged(
    rows: list[Compared],
    base: dict[tuple[str, Setting], MeasuredPoint],
    new: dict[tuple[str, Setting], MeasuredPoint],
    unlike: Collection[str],
) -> list[Compared]:
    places = {m.place: key for key, m in new.items()}
    adjusted = holm([row.p for row in rows])
    found = []
    for row, p in zip(rows, adjusted, strict=True):
        key = places[row.place]
        outcome, why = _outcome(row, p, base[key], new[key], unlike)
        found.append(replace(row, p=p, outcome=outcome, why=why))
    return found


def _outcome(
    row: Compared, p: float, base: MeasuredPoint, new: MeasuredPoint, unlike: Collection[str]
) -> tuple[Outcome, str]:
    difference = row.difference
    if row.outcome == "not comparable" or difference is None:
        return "not comparable", row.why
    if difference.mean == difference.lo == difference.hi == 0:
        return "identical", ""
    if p >= SIGNIFICANCE:
        return "no clear change", ""
    worse = row.measure.sign * difference.mean > 0
    why = _unproven(row.measure, worse, base, new, unlike) if row.measure.kind == "leakage" else ""
    if why:
        return "not comparable", why
    return ("worse" if worse else "better"), ""


def _unproven(measure: Measure, worse: bool, base: MeasuredPoint, new: MeasuredPoint, unlike: Collection[str]) -> str:
    """Says why a change of leakage may be one of the attackers; empty where it is none."""
    way, side, weaker = ("higher", "base", base) if worse else ("lower", "new run", new)
    weaker = weaker.resting_on(measure.name)
    if weaker.given_whole:
        return f"measured {way}, but the {side} gives images away whole, and a stronger attack may rebuild more still"
    if not weaker.conclusive:
        return f"measured {way}, but the {side} only bounds leakage from below ({weaker.verdict})"
    cut_short = ", ".join(label for label in weaker.doubted if label in unlike)
    return f"measured {way}, but not shown to be converged in the {side}: {cut_short}" if cut_short else ""


def _unlike(base: LoadedRun, new: LoadedRun) -> set[str]:
    """Names the attacks that are not the same in two runs: other options by one name, or only in one of them."""
    theirs, ours = ({attack.label: str(attack.plugin) for attack in run.suite.attacks} for run in (base, new))
    return {label for label in {*theirs, *ours} if theirs.get(label) != ours.get(label)}


def _stated(run: LoadedRun) -> dict[str, str]:
    """Returns what a run states of each attack and operating point."""
    stated = {f"attack {attack.label}": str(attack.plugin) for attack in run.suite.attacks}
    points = {f"operating point {p.name}": str(p.options) for p in run.suite.operating_points}
    return stated | points


def _definition_notes(base: LoadedRun, new: LoadedRun) -> list[str]:
    """Says which attacks and operating points go by one name and are not the same."""
    theirs, ours = _stated(base), _stated(new)
    return [
        f"{name} differs: {theirs[name]} in {base.label}, {stated} in {new.label}"
        for name, stated in ours.items()
        if name in theirs and theirs[name] != stated
    ]
