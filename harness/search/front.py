"""The front: operating points that no other of their channel dominates, ready to be put into a suite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.search.objectives import Objectives, non_dominated
from harness.search.trials import TrialRecord
from harness.store import write_atomic
from harness.suite import OperatingPoint, PluginConfig
from harness.versioned import read_versioned

FRONT_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FrontPoint(_Strict):
    """A point of the front, as measured on the search split.

    ``shares`` are what was searched, and None for baselines; ``metrics`` are in the units of
    ``harness.search.metrics``.
    """

    name: str
    trial: int | None = None
    channel: PluginConfig
    shares: tuple[float, ...] | None = None
    metrics: dict[str, float]

    @property
    def snr_db(self) -> float | None:
        """Es/N0 of its channel in dB; None for one without noise."""
        value = self.channel.options.get("snr_db")
        return None if value is None else float(value)


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

    def operating_point(self, name: str) -> OperatingPoint:
        """Returns the defense configuration of a point or baseline; KeyError where there is none of that name."""
        return {point.name: point for point in (*self.operating_points, *self.baseline_points)}[name]


def front_of(records: Sequence[TrialRecord], objectives: Objectives) -> list[TrialRecord]:
    """Returns the feasible trials that no other feasible trial of the same channel dominates, by first objective.

    Nature chooses the channel: a point at 20 dB does not make one at 5 dB useless.
    """
    kept = []
    for channel in dict.fromkeys(str(record.channel) for record in records):
        here = [record for record in records if str(record.channel) == channel and record.feasible]
        on_front = non_dominated(objectives.losses([record.metrics for record in here]))
        kept += [record for record, keep in zip(here, on_front, strict=True) if keep]
    return sorted(kept, key=lambda record: (str(record.channel), objectives.losses([record.metrics])[0].tolist()))


def write_front(front: Front, path: Path) -> None:
    """Writes front.json."""
    write_atomic(path, (json.dumps(front.model_dump(mode="json"), indent=2) + "\n").encode())


def read_front(path: Path) -> Front:
    """Reads front.json.

    Raises:
        StoreError: It is not there, is no front, or of a version that is not known.
    """
    return read_versioned(path, Front, FRONT_VERSION, "front", "name a front.json that `leakgauge search` wrote")
