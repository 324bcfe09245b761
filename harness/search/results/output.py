"""What a search leaves behind: tables of trials, front and hypervolume, and the front as operating points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.run.executors import one_thread
from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.search.results.front import Front, FrontPoint, front_of, write_front
from leakgauge.harness.search.study import Prepared
from leakgauge.harness.search.trials.trials import TrialRecord, Tried
from leakgauge.harness.store.table_file import guarded_csv
from leakgauge.harness.suite.schema import OperatingPoint
from leakgauge.harness.system.files.atomic_file import write_atomic

RESULTS = ("study.json", "trials.csv", "hypervolume.csv", "front.csv", "front.json")
"""Files that a search leaves in its folder."""


def hypervolumes(records: Sequence[TrialRecord], objectives: Objectives) -> list[float]:
    """Returns the hypervolume after each trial; over several channels, the mean of their hypervolumes."""
    channels = list(dict.fromkeys(str(record.channel) for record in records))
    points: dict[str, list[dict[str, float]]] = {channel: [] for channel in channels}
    volumes, found = dict.fromkeys(channels, 0.0), []
    for record in records:
        channel = str(record.channel)
        if record.feasible:
            points[channel].append(record.metrics)
            volumes[channel] = objectives.hypervolume(points[channel])
        found.append(sum(volumes.values()) / len(channels))
    return found


def write_results(prepared: Prepared, tried: Tried, out: Path) -> Front:
    """Measures the baselines and writes trials.csv, hypervolume.csv, front.csv and front.json.

    Trials that failed go to failed_trials.csv, with the reason.

    Raises:
        ConfigError: No trial keeps the constraints; what was tried is written all the same.
    """
    space, records, failed = prepared.space, tried.finished, tried.failed
    kept = front_of(records, prepared.objectives)
    names = {record.number: f"{space.name}-{record.number:03d}" for record in kept}
    tau = space.searched.option if space.searched.calibrated else ""
    _write_csv(out / "trials.csv", [_row(record, names.get(record.number, ""), tau) for record in records])
    _write_csv(out / "front.csv", [_row(record, names[record.number], tau) for record in kept])
    volumes = hypervolumes(records, prepared.objectives)
    _write_csv(out / "hypervolume.csv", [{"trials": i + 1, "hypervolume": v} for i, v in enumerate(volumes)])
    if failed:
        rows = [{"trial": one.number, **one.params, "reason": one.reason} for one in failed]
        _write_csv(out / "failed_trials.csv", rows)
    if not kept and failed and not records:
        raise ConfigError(f"all {len(failed)} trials failed, the first with: {failed[0].reason}", where=space.name)
    if not kept:
        raise ConfigError(_nearest_miss(records), where=f"{space.name}: constraints", hint="relax that limit")
    front = Front(
        space=space.name,
        task=space.task,
        defense=space.defense,
        quality_name=prepared.evaluator.quality_name,
        objectives=prepared.objectives.names,
        reference=prepared.objectives.reference,
        quality_base=prepared.evaluator.quality_base,
        undefended=prepared.undefended,
        operating_points=tuple(
            OperatingPoint.model_validate({"name": names[record.number], **record.options}) for record in kept
        ),
        points=tuple(
            FrontPoint(
                name=names[record.number],
                trial=record.number,
                channel=record.channel,
                shares=record.shares,
                metrics=record.metrics,
            )
            for record in kept
        ),
        baseline_points=space.baselines,
        baselines=tuple(_baselines(prepared)),
    )
    write_front(front, out / "front.json")
    return front


def _baselines(prepared: Prepared) -> list[FrontPoint]:
    space, found = prepared.space, []
    with one_thread():
        for channel in space.channels:
            for point in space.baselines:
                metrics = prepared.evaluator.measure(point.options, channel)
                found.append(FrontPoint(name=point.name, channel=channel, metrics=metrics))
    return found


def _row(record: TrialRecord, name: str, calibrated: str) -> dict[str, Any]:
    """Returns a trial as a row; ``calibrated`` is the option that holds its thresholds, empty where it has none."""
    row: dict[str, Any] = {"trial": record.number, "front_point": name, "feasible": record.feasible}
    row |= {"channel": str(record.channel), "cut": len(record.shares)}
    row |= {f"share_{block}": share for block, share in enumerate(record.shares)}
    thresholds = record.options["reduction"][calibrated] if calibrated else []
    row |= {f"tau_{block}": tau for block, tau in enumerate(thresholds)}
    row |= {key: value for key, value in record.params.items() if key not in row}
    excess = {f"excess {limit}": value for limit, value in record.violations.items()}
    return {**row, **record.metrics, **excess}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    write_atomic(path, guarded_csv(pd.DataFrame(rows)))


def _nearest_miss(records: Sequence[TrialRecord]) -> str:
    if not records:
        return "no trial has finished"
    best = min(records, key=lambda record: max(record.violations.values()))
    limit = max(best.violations, key=lambda name: best.violations[name])
    return f"no trial of {len(records)} keeps all limits; the nearest exceeds {limit} by {best.violations[limit]:.4g}"
