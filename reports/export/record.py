"""A run as trackers keep it: parameters, metrics, curves, pictures and files, the same for each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leakgauge.harness.store.provenance import code_identity
from leakgauge.harness.system.plain_text import plain, shortened
from leakgauge.harness.values.columns import CELL_COLUMNS
from leakgauge.reports.analysis.operating_points import point_columns, point_rows
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.export.pictures import picture_rows
from leakgauge.reports.figures.curves import curves_at

LONGEST = 250
"""Characters of a parameter: the least that a tracker of those supported holds."""
_NO_METRIC = frozenset({"seed"})
_OF_SUITE = ("name", "task", "defense", "metrics", "judge", "seeds", "evaluation_images", "batch_size", "bandwidth_hz")


@dataclass(frozen=True)
class CurveRecord:
    """A learning curve: name, and (optimiser step, value) in the order of the steps."""

    name: str
    values: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class PointRecord:
    """One operating point in one channel under one threat model.

    Args:
        name: Unique within the run.
        parameters: Operating point, channel, threat model, options of the point, of the attacks and of what is granted.
        metrics: Means of the operating point with ``_lo`` and ``_hi``, the ends of their 95 % intervals, and those of
            its cells below the attack's label: ``set_decoder/psnr_db``. What is unscored is left out.
        curves: Of the attacks that trained.
        picture: Originals above what the strongest attack rebuilt, uint8 (H, W, 3); None where none is stored.
    """

    name: str
    parameters: dict[str, str]
    metrics: dict[str, float]
    curves: tuple[CurveRecord, ...]
    picture: NDArray[np.uint8] | None


@dataclass(frozen=True)
class RunRecord:
    """A run: what its operating points have in common, the points, and files, the report among them."""

    name: str
    parameters: dict[str, str]
    points: tuple[PointRecord, ...]
    files: tuple[Path, ...]


def record_of(run: LoadedRun, files: tuple[Path, ...] = ()) -> RunRecord:
    """Returns what trackers keep of a run.

    Args:
        run: The run; one that is not complete has the cells that are there.
        files: The report, and whatever else is kept beside it.
    """
    columns = [column.name for column in point_columns([run]) if column.kind in {"float", "int"}]
    points = []
    for row in point_rows(run):
        setting, point = Setting(str(row["channel"]), str(row["threat_model"])), str(row["operating_point"])
        metrics = dict(_scored(row, columns))
        for cell in run.cells_at(setting, point):
            metrics |= {f"{_label(run, cell)}/{name}": value for name, value in _scored(cell, _cell_columns(run))}
        name = " ".join((point, *(part for part in _told_apart(run, setting) if part)))
        parameters = _point_parameters(run, row)
        points.append(
            PointRecord(name, parameters, metrics, _curves(run, setting, point), _picture(run, setting, point))
        )
    return RunRecord(run.label, _run_parameters(run), tuple(points), files)


def _told_apart(run: LoadedRun, setting: Setting) -> tuple[str, str]:
    """Names channel and threat model where the run has more than one."""
    several = [len({other[i] for other in run.settings}) > 1 for i in range(2)]
    return setting.channel if several[0] else "", setting.threat_model if several[1] else ""


def _label(run: LoadedRun, cell: Row) -> str:
    return str(cell["attack"]) if len(run.suite.seeds) == 1 else f"{cell['attack']}/seed {cell['seed']}"


def _cell_columns(run: LoadedRun) -> list[str]:
    columns = (*CELL_COLUMNS, *run.folder.cell_columns())
    return list(dict.fromkeys(c.name for c in columns if c.kind in {"float", "int"} and c.name not in _NO_METRIC))


def _scored(row: Row, names: list[str]) -> Iterator[tuple[str, float]]:
    """Yields what was scored: an unscored value is left out, and never becomes a number."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float | np.number) and math.isfinite(float(value)):
            yield name, float(value)


def _curves(run: LoadedRun, setting: Setting, point: str) -> tuple[CurveRecord, ...]:
    found = []
    for cells in curves_at(run, setting).values():
        for cell, curve in ((cell, curve) for cell, curve in cells if cell["operating_point"] == point):
            for name in ("heldout_psnr_db", "loss"):
                values = ((p.step, float(getattr(p, name))) for p in curve.points)
                finite = tuple((step, value) for step, value in values if math.isfinite(value))
                found.append(CurveRecord(f"curves/{_label(run, cell)}/{name}", finite))
    return tuple(found)


def _picture(run: LoadedRun, setting: Setting, point: str) -> NDArray[np.uint8] | None:
    rows = picture_rows(run, setting, point)
    return None if rows is None else np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def flattened(data: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Returns nested options as parameters: ``{"a": {"b": 1}}`` as ``{"a.b": "1"}``; lists are one value."""
    found: dict[str, str] = {}
    for key, value in data.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            found |= flattened(value, f"{name}.")
        elif value is not None:
            found[name] = shortened(plain(str(value), keep=""), LONGEST)
    return found


def _run_parameters(run: LoadedRun) -> dict[str, str]:
    suite = run.suite.model_dump(mode="json")
    provenance = run.manifest.get("provenance") or {}
    versions = {name: provenance.get(name) for name in ("version", "device_name", "python", "system")}
    stated = {"run": run.label, "status": run.status, "suite": {name: suite.get(name) for name in _OF_SUITE}}
    return flattened({**stated, "code": code_identity(provenance), **versions, "data": run.manifest.get("data") or {}})


def _point_parameters(run: LoadedRun, row: Row) -> dict[str, str]:
    options = next((p.options for p in run.suite.operating_points if p.name == row["operating_point"]), {})
    models = [m for m in run.suite.threat_models if m.name == row["threat_model"]]
    # Options of attacks stand with each point, so that a table of points says what they were attacked with.
    attacks = {a.label: a.plugin.model_dump(mode="json") for a in run.suite.attacks}
    names = ("operating_point", "channel", "threat_model", "baseline", "strongest_attack", "verdict", "reason")
    return flattened(
        {
            "suite": run.suite.name,
            **{name: row[name] for name in names if row.get(name)},
            "point": options,
            "threat": models[0].model_dump(mode="json", exclude={"name"}) if models else {},
            "attack": attacks,
        }
    )
