"""The front: operating points that no other of their channel dominates, ready to be put into a suite."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leakgauge.harness.search.metrics import METRICS
from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.search.trials.trials import TrialRecord
from leakgauge.harness.store.versioned import read_versioned
from leakgauge.harness.suite.schema import Name, OperatingPoint, PluginConfig
from leakgauge.harness.system.files.atomic_file import write_atomic

FRONT_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FrontPoint(_Strict):
    """A point of the front, as measured on the search split.

    ``shares`` are what was searched, and None for baselines; ``metrics`` are in the units of
    ``leakgauge.harness.search.metrics``.
    """

    name: Name
    trial: int | None = None
    channel: PluginConfig
    shares: tuple[float, ...] | None = None
    metrics: dict[str, float]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        value = self.channel.options.get("snr_db")
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not number:
            raise ValueError(f"snr_db of the channel of {self.name!r} is no finite number")
        return self

    @property
    def snr_db(self) -> float | None:
        """Es/N0 of its channel in dB; None for one without noise."""
        value = self.channel.options.get("snr_db")
        return float(value) if isinstance(value, (int, float)) else None


class Front(_Strict):
    """The result of a search. ``operating_points`` go into a suite as they are; ``points`` say what they measured."""

    schema_version: int = FRONT_VERSION
    space: str
    task: PluginConfig
    defense: PluginConfig
    quality_name: str
    objectives: tuple[str, ...]
    reference: dict[str, float]
    quality_base: float
    undefended: dict[str, float]
    operating_points: tuple[OperatingPoint, ...] = ()
    points: tuple[FrontPoint, ...] = ()
    baseline_points: tuple[OperatingPoint, ...] = ()
    baselines: tuple[FrontPoint, ...] = Field(default=())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for points, stated in ((self.points, self.operating_points), (self.baselines, self.baseline_points)):
            options = {point.name: point for point in stated}
            if len(options) != len(stated):
                raise ValueError("operating points: a name occurs twice")
            for point in points:
                if point.name not in options:
                    raise ValueError(f"no operating point is stated for point {point.name!r}")
        known = [point.metrics for point in (*self.points, *self.baselines)]
        for name in (*self.objectives, *(name for metrics in (self.undefended, *known) for name in metrics)):
            if name not in METRICS:
                raise ValueError(f"unknown metric {name!r}")
        return self

    def operating_point(self, name: str) -> OperatingPoint:
        """Returns the defense configuration of a point or baseline; KeyError where there is none of that name."""
        return {point.name: point for point in (*self.operating_points, *self.baseline_points)}[name]


def front_of(records: Sequence[TrialRecord], objectives: Objectives) -> list[TrialRecord]:
    """Returns the feasible trials that no other feasible trial of the same channel dominates, by first objective.

    Nature chooses the channel: a point at 20 dB does not make one at 5 dB useless.
    """
    kept = []
    for channel in sorted({str(record.channel) for record in records}):
        here = [record for record in records if str(record.channel) == channel and record.feasible]
        kept += [here[place] for place in objectives.front([record.metrics for record in here])]
    return kept


def write_front(front: Front, path: Path) -> None:
    """Writes front.json."""
    write_atomic(path, (json.dumps(front.model_dump(mode="json"), indent=2) + "\n").encode())


def read_front(path: Path) -> Front:
    """Reads front.json.

    Raises:
        StoreError: It is not there, is no front, or of a version that is not known.
    """
    return read_versioned(path, Front, FRONT_VERSION, "front", "name a front.json that `leakgauge search` wrote")
