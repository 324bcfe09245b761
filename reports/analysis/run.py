"""One run, read once for every writer: its suite, every planned cell, the per-image rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from leakgauge.harness.errors import StoreError
from leakgauge.harness.scoring.measures import Score, own_scores
from leakgauge.harness.store.partial import frames
from leakgauge.harness.store.run_folder import RunFolder, typed_frame
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import Suite, parse_suite
from leakgauge.harness.values.columns import KIND_COLUMNS, Column
from leakgauge.reports.analysis.integrity import table_faults

Row = dict[str, Any]
Result = TypeVar("Result")
NOT_RUN = "not run"
_KEY = ("operating_point", "channel", "threat_model", "attack", "seed")


class Setting(NamedTuple):
    """What operating points are compared within: one channel under one threat model."""

    channel: str
    threat_model: str

    @property
    def said(self) -> str:
        """Names it: ``channel ideal, threat model server``."""
        return f"channel {self.channel}, threat model {self.threat_model}"


@dataclass(frozen=True)
class LoadedRun:
    """A run in memory.

    Args:
        folder: Where pictures and learning curves are read from.
        label: The name that tables and file names use; unique within a report.
        manifest: run.json.
        suite: The suite that was run.
        cells: Rows of cells.csv in the suite's order, with a row of status ``not run`` for each planned cell that is
            missing.
        images: images.parquet.
        kinds: quality_by_kind.csv; without rows where no question was asked.
        faults: What the tables lack, or contradict one another in.
    """

    folder: RunFolder
    label: str
    manifest: Row
    suite: Suite
    cells: pd.DataFrame
    images: pd.DataFrame
    faults: tuple[str, ...] = ()
    kinds: pd.DataFrame = field(default_factory=lambda: typed_frame([], KIND_COLUMNS))
    _computed: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Returns what ``compute`` returns, computed once for all that ask for ``key``; nobody may change it."""
        if key not in self._computed:
            self._computed[key] = compute()
        found: Result = self._computed[key]
        return found

    @property
    def status(self) -> str:
        """What run.json says of the run's end, and where it has not come there, how many cells of how many it holds."""
        status = str(self.manifest.get("status", "not stated"))
        return status if status == "complete" else f"{status}, {self.progress}"

    @property
    def progress(self) -> str:
        """How many of the planned cells have a result: ``4 of 12 cells``."""
        there = int((self.cells["status"] != NOT_RUN).sum())
        return f"{there} of {len(self.cells)} cells"

    @property
    def code(self) -> dict[str, str]:
        """Packages that measured the run, by name: digest or version; empty where run.json does not say."""
        stated = self.manifest.get("code")
        codes = stated.values() if isinstance(stated, dict) else ()
        return {str(k): str(v) for code in codes if isinstance(code, dict) for k, v in code.items()}

    @property
    def task(self) -> Row:
        """The task's entry in run.json."""
        return dict(self.manifest.get("task") or {})

    @property
    def attacks(self) -> dict[str, Row]:
        """What run.json says of each attack, by label: plug-in, floor, knowledge."""
        stated = self.manifest.get("attacks") or {}
        known = {a.label: {"plugin": a.plugin.name, **(stated.get(a.label) or {})} for a in self.suite.attacks}
        return {**known, **{label: dict(entry) for label, entry in stated.items() if label not in known}}

    @property
    def own_scores(self) -> tuple[Score, ...]:
        """The scores of the run's own metrics, as run.json describes them."""
        return own_scores(self.manifest)

    def is_floor(self, attack: str) -> bool:
        """Tells whether an attack rebuilds nothing specific and only marks the floor."""
        return bool(self.attacks.get(attack, {}).get("floor", False))

    def is_probe(self, attack: str) -> bool:
        """Tells whether an attack answers a question and paints no picture."""
        return bool(self.attacks.get(attack, {}).get("kind", "reconstruction") != "reconstruction")

    @property
    def settings(self) -> list[Setting]:
        """The pairs of channel and threat model that have cells, in the order of the cells."""
        pairs = zip(self.cells["channel"], self.cells["threat_model"], strict=True)
        return list(dict.fromkeys(Setting(str(channel), str(model)) for channel, model in pairs))

    def cells_at(self, setting: Setting, point: str | None = None) -> list[Row]:
        """Returns the cells of a setting, or of one operating point in it."""
        return [dict(row) for row in self.once(("cells", setting, point), lambda: self._cells_at(setting, point))]

    def _cells_at(self, setting: Setting, point: str | None) -> list[Row]:
        cells = self.cells
        chosen = (cells["channel"] == setting.channel) & (cells["threat_model"] == setting.threat_model)
        if point is not None:
            chosen &= cells["operating_point"] == point
        return rows_of(cells[chosen])

    def points_at(self, setting: Setting) -> list[str]:
        """Returns the operating points that have cells in a setting, in the suite's order."""
        return list(dict.fromkeys(str(row["operating_point"]) for row in self.cells_at(setting)))


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Returns the rows of a data frame as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _refuse_repeats(frame: pd.DataFrame, keys: list[str], table: str, noun: str, where: str) -> None:
    """Raises StoreError where a table holds a row twice: means would count it twice."""
    repeated = int(frame.duplicated(keys).sum())
    if repeated:
        raise StoreError(
            f"{table} holds {repeated} rows of a {noun} that it already holds", where=where, hint="run it again"
        )


def _with_missing(
    cells: pd.DataFrame, suite: Suite, task: str, where: str, columns: tuple[Column, ...]
) -> pd.DataFrame:
    """Puts cells in the planned order and adds a row for each planned cell that has none."""
    _refuse_repeats(cells, list(_KEY), "cells.csv", "cell", where)
    have = {tuple(row[name] for name in _KEY): row for row in rows_of(cells)}
    ordered: list[Row] = []
    # The plan's labels do not depend on the data, so that its hash may stay empty here.
    for cell in plan(suite, ""):
        exposure = cell.exposure
        identity: Row = {
            "operating_point": exposure.point.name,
            "channel": exposure.channel.label,
            "threat_model": exposure.threat_model.name,
            "attack": cell.attack.label,
            "seed": exposure.seed,
        }
        missing = {
            **identity,
            "task": task,
            "defense": exposure.defense.name,
            "n": 0,
            "status": NOT_RUN,
            "verdict": "inconclusive",
            "reason": "planned, but the run holds no result",
        }
        ordered.append(have.pop(tuple(identity[name] for name in _KEY), missing))
    return typed_frame([*ordered, *have.values()], columns)


Writer = Callable[[Sequence[RunFolder | LoadedRun], Path], list[Path]]
"""A report writer, as the entry points of ``leakgauge.reports`` are: runs and a folder to what was written."""


def load_runs(runs: Sequence[RunFolder | LoadedRun]) -> list[LoadedRun]:
    """Reads runs for a report; runs that are loaded already are returned as they are.

    Raises:
        StoreError: There is none, one cannot be read, or its schema version is unknown.
    """
    if not runs:
        raise StoreError("there is no run to report on", hint="name at least one run folder")
    loaded: list[LoadedRun] = []
    for run in runs:
        if isinstance(run, LoadedRun):
            loaded.append(run)
            continue
        manifest = run.manifest()
        suite = parse_suite(manifest.get("suite") or {}, where=str(run.path / "run.json"))
        name = run.path.resolve().name
        taken = {other.label for other in loaded}
        label = next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(runs) + 2))) if n not in taken)
        tables = frames(run, suite, manifest)
        cells, images = tables.cells, tables.images
        task = str(cells["task"].iloc[0]) if len(cells) else suite.task.name
        planned = _with_missing(cells, suite, task, str(run.path), run.cell_columns())
        _refuse_repeats(images, ["cell", "image"], "images.parquet", "cell and image", str(run.path))
        faults = table_faults(manifest, planned, images)
        loaded.append(LoadedRun(run, label, dict(manifest), suite, planned, images, faults, tables.kinds))
    return loaded
