"""The baseline file: what a run measured, small enough to review and laid out so that a diff shows what moved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, model_validator

from leakgauge.harness.errors import ConfigError, StoreError, suggest
from leakgauge.harness.scoring.measures import COLUMN_NAME, Score
from leakgauge.harness.store.provenance import code_identity
from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.store.versioned import read_versioned
from leakgauge.reports.analysis.difference import interval_over
from leakgauge.reports.analysis.identity import as_json, grants_of, identity_of
from leakgauge.reports.analysis.measures import MEASURES, PROBE, MeasuredPoint, measure_of, measured
from leakgauge.reports.analysis.run import LoadedRun, Setting

BASELINE_VERSION = 3
_RETIRED = "picked attack and floor by image, and counts leakage otherwise"
"""Versions 1 and 2, of whose values an image no attack's own can be told."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recorded(_Strict):
    """One measure: its mean with its 95 % interval, and for leakage and quality a value an image."""

    mean: FiniteFloat
    lo: FiniteFloat | None = None
    hi: FiniteFloat | None = None
    images: tuple[FiniteFloat | None, ...] | None = None


OWN_DIGITS = 6
"""Decimals that a baseline keeps of the values of a run's own metrics."""


def _known(name: Any) -> Any:
    """Refuses what can be no measure; whether it is a metric of the run's own, the whole baseline tells."""
    if isinstance(name, str) and not (_built_in(name) or COLUMN_NAME.fullmatch(name)):
        raise ValueError(f"unknown measure {name!r} ({suggest(name, list(MEASURES))})")
    return name


VALUES_OF = {"leakage_p95": "leakage"}
"""Measures whose values an image are recorded once, with another measure."""


def _built_in(name: str) -> bool:
    return name in MEASURES or name.startswith(PROBE)


def _over(name: str, values: list[float]) -> float:
    if _built_in(name):
        return measure_of(name).over(pd.Series(values, dtype=float))
    return math.fsum(values) / len(values)


MeasureName = Annotated[str, BeforeValidator(_known)]


class BaselinePoint(_Strict):
    """One operating point over one channel under one threat model."""

    operating_point: str
    channel: str
    threat_model: str
    options: dict[str, Any]
    grants: dict[str, Any]
    attacks: dict[str, str]
    verdict: str
    reason: str
    measures: dict[MeasureName, Recorded]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.measures:
            raise ValueError(f"operating point {self.operating_point!r} holds no measure")
        for name, recorded in self.measures.items():
            values = [value for value in self.images_of(name) or () if value is not None]
            # Both are rounded: the values to the measure's digits, the mean to one more.
            digits = measure_of(name).digits if _built_in(name) else OWN_DIGITS
            if values and abs(_over(name, values) - recorded.mean) > 10.0**-digits:
                raise ValueError(f"{self.operating_point!r}: the mean of {name} is not that of its images")
        return self

    def images_of(self, name: str) -> tuple[float | None, ...] | None:
        """Returns a measure's value an image; None where only what they come to is recorded."""
        recorded = self.measures.get(VALUES_OF.get(name, name))
        return None if recorded is None else recorded.images

    @property
    def key(self) -> tuple[str, Setting]:
        """What it is known by."""
        return self.operating_point, Setting(self.channel, self.threat_model)


class Baseline(_Strict):
    """What later runs are judged by; ``counted`` are the attacks that count beside the floors, None for all.

    ``code`` is what measured it, by package; baselines that were written before it was noted have none.
    """

    schema_version: int = BASELINE_VERSION
    suite: str
    commit: str
    code: dict[str, str] = {}
    data: dict[str, str]
    seeds: tuple[int, ...]
    counted: tuple[str, ...] | None = None
    images: tuple[str, ...]
    points: tuple[BaselinePoint, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.images)) != len(self.images):
            raise ValueError("images: one occurs twice")
        if not self.points or len({point.key for point in self.points}) != len(self.points):
            raise ValueError("points: there is none, or one occurs twice")
        for point in self.points:
            for name, recorded in point.measures.items():
                if not _built_in(name) and f"metric {name}" not in self.data:
                    raise ValueError(f"unknown measure {name!r} ({suggest(name, list(MEASURES))})")
                if recorded.images is not None and len(recorded.images) != len(self.images):
                    raise ValueError(f"{point.operating_point!r}: {name} has no value for each image")
        return self

    def values(self, point: BaselinePoint, name: str) -> pd.Series[float] | None:
        """Returns a measure's value an image, by image; None where only the mean is recorded."""
        images = point.images_of(name)
        if images is None:
            return None
        return pd.Series(images, index=list(self.images), dtype=float)


def options_of(run: LoadedRun, point: str) -> dict[str, Any]:
    """Returns what an operating point sets, the suite's defense included."""
    chosen = next((p for p in run.suite.operating_points if p.name == point), None)
    return {} if chosen is None else as_json({"defense": run.suite.defense.model_dump(), **chosen.options})


def attacks_of(run: LoadedRun, labels: Sequence[str]) -> dict[str, str]:
    """Writes each attack with its options."""
    stated = {attack.label: str(attack.plugin) for attack in run.suite.attacks}
    return {label: stated.get(label, "") for label in labels}


def baseline_of(run: LoadedRun, counted: Sequence[str] = ()) -> Baseline:
    """Builds the baseline of a run.

    Args:
        run: The run.
        counted: The attacks that count beside the floors; none named for all.

    Raises:
        StoreError: The run is not complete.
        ConfigError: It has no such attack.
    """
    for name in counted:
        if name not in run.attacks:
            raise ConfigError(f"no attack {name!r}", where="--attack", hint=suggest(name, sorted(run.attacks)))
    status = run.manifest.get("status", "not stated")
    if status != "complete":
        raise StoreError(
            f"the run is not complete (status: {run.status})",
            where=str(run.folder.path),
            hint="run it to its end before it becomes a baseline",
        )
    found = measured(run, counted or None)
    images = tuple(dict.fromkeys(str(image) for one in found for image in one.images.index))
    return Baseline(
        suite=run.suite.name,
        commit=code_identity(run.manifest.get("provenance") or {}),
        code=run.code,
        data=identity_of(run),
        seeds=run.suite.seeds,
        counted=tuple(counted) or None,
        images=images,
        points=tuple(_point(run, one, images) for one in found),
    )


def _point(run: LoadedRun, one: MeasuredPoint, images: Sequence[str]) -> BaselinePoint:
    return BaselinePoint(
        operating_point=one.point,
        channel=one.setting.channel,
        threat_model=one.setting.threat_model,
        options=options_of(run, one.point),
        grants=grants_of(run, one.setting.threat_model),
        attacks=attacks_of(run, one.attacks),
        verdict=one.verdict,
        reason=one.reason,
        measures={
            name: _recorded(one, name, images, run.own_scores) for name in one.names if one.images[name].notna().any()
        },
    )


def _recorded(one: MeasuredPoint, name: str, images: Sequence[str], own: Sequence[Score]) -> Recorded:
    measure = measure_of(name, own)
    values, digits = one.images[name], measure.digits if _built_in(name) else OWN_DIGITS
    interval = interval_over(values, one.images["group"], measure)
    each = None
    if measure.kind != "cost" and name not in VALUES_OF:
        each = tuple(None if math.isnan(v) else round(float(v), digits) for v in values.reindex(list(images)))
    lo, hi = (None if math.isnan(end) else round(end, digits + 1) for end in (interval.lo, interval.hi))
    return Recorded(mean=round(interval.mean, digits + 1), lo=lo, hi=hi, images=each)


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Writes a baseline: a line a measure, numbers first, so that a review sees what moved and where."""
    data = baseline.model_dump(mode="json")
    points = [_written_point(point) for point in data.pop("points")]
    head = [f" {json.dumps(key)}: {_compact(value)}" for key, value in data.items()]
    text = "{\n" + ",\n".join([*head, ' "points": [\n' + ",\n".join(points) + "\n ]"]) + "\n}\n"
    write_atomic(path, text.encode())


def _written_point(point: dict[str, Any]) -> str:
    measures = [f"    {json.dumps(name)}: {_compact(value)}" for name, value in point.pop("measures").items()]
    head = [f"   {json.dumps(key)}: {_compact(value)}" for key, value in point.items()]
    return "  {\n" + ",\n".join([*head, '   "measures": {\n' + ",\n".join(measures) + "\n   }"]) + "\n  }"


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_compact(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_compact(inner) for inner in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # 1 for 1.0: values of 0 and 1 are most of the file
    return json.dumps(value)


def read_baseline(path: Path) -> Baseline:
    """Reads a baseline.

    Raises:
        StoreError: It is not there, is no baseline, or of a version that is not known.
    """
    hint = "write it again with `leakgauge baseline RUN`"
    return read_versioned(path, Baseline, BASELINE_VERSION, "baseline", hint, retired=_RETIRED)
