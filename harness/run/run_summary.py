"""What a command prints of a run: its cells, how many failed or prove nothing, and why."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import pandas as pd
from rich.table import Table

from leakgauge.harness.errors import FailedCellsError
from leakgauge.harness.run.best_known import RunBest, achieved, news
from leakgauge.harness.store.cell_record import FailedRecord, MeasuredRecord
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.system import console
from leakgauge.harness.system.console import debugging

_out, _err = console.output(), console.errors()


def check_none_failed(store: RunFolder) -> None:
    """Checks that no cell of a run failed.

    Raises:
        FailedCellsError: Some did.
    """
    cells = store.cells()
    failed = cells[cells["status"] == "failed"]
    if len(failed):
        raise FailedCellsError(
            f"{len(failed)} of {len(cells)} cells failed, the first with: {failed['reason'].iloc[0]}",
            where=str(store.path),
            hint="mend the cause; the same command tries them again",
        )


def summary_of(store: RunFolder) -> dict[str, Any]:
    """Returns a run as ``run --json`` prints it: cells by the columns of cells.csv, and how they ended."""
    cells, manifest = store.cells(), store.manifest()
    done = cells[cells["status"] == "done"]
    return {
        "run": store.path,
        "suite": manifest["suite"]["name"],
        "status": manifest["status"],
        "failed": int((cells["status"] == "failed").sum()),
        "verdicts": {str(verdict): int(count) for verdict, count in done["verdict"].value_counts().items()},
        "new_best_known": ["/".join(one.place) for one in _achieved(store, cells) if one.beats],
        "cells": cells.astype(object).where(cells.notna(), None).to_dict("records"),
    }


def show(store: RunFolder) -> None:
    """Prints the cells of a run, their counts and what is to be said of them; tracebacks where ``--debug`` asks."""
    cells = store.cells()
    stated = store.manifest().get("attacks", {})
    probes = [label for label, entry in stated.items() if entry.get("kind", "reconstruction") != "reconstruction"]
    asked = cells["attack"].isin(probes)
    own = tuple(_Shown(score.name, score.heading, score.digits) for score in store.own_scores())
    # A table of their own, because the first is as wide as a terminal.
    for rows, columns in ((cells[~asked], _REBUILT), (cells[~asked], own), (cells[asked], _ASKED)):
        if len(rows) and columns:
            _out.print(_cells_table(rows, columns))
    failed = int((cells["status"] == "failed").sum())
    inconclusive = int((cells["verdict"] == "inconclusive").sum()) - failed
    bounds = int((cells["verdict"] == "lower bound").sum())
    counts = f"{failed} failed, {inconclusive} inconclusive" + (f", {bounds} lower bounds" if bounds else "")
    _out.print(f"{len(cells)} cells: {counts}. Results in {store.path}")
    for row in cells[cells["warning"] != ""].to_dict("records"):
        _out.print(f"  warning: {row['attack']} on {row['operating_point']}: {row['warning']}", markup=False)
    for line in news(_achieved(store, cells), store.path):
        _out.print(f"  {line}", markup=False, soft_wrap=True)
    for note in _notes(store, cells):
        _out.print(f"  note: {note}", markup=False)
    if failed and debugging():
        for key in cells.loc[cells["status"] == "failed", "cell"]:
            _err.print(_traceback(store, key), markup=False, highlight=False, soft_wrap=True)
    elif failed:
        _out.print(f"  tracebacks are in {store.path / 'log'}; --debug shows them", markup=False, soft_wrap=True)


def _achieved(store: RunFolder, cells: pd.DataFrame) -> list[RunBest]:
    """Returns where the operating points of a run stand against the best known."""
    manifest = store.manifest()
    floors = {label for label, entry in manifest.get("attacks", {}).items() if entry.get("floor")}
    rows = [{str(key): value for key, value in row.items()} for row in cells.to_dict("records")]
    return achieved(parse_suite(manifest["suite"]), manifest.get("data", {}), rows, floors)


def _traceback(store: RunFolder, key: str) -> str:
    part = store.read_part(key)
    return part.traceback if isinstance(part, FailedRecord) else ""


def _notes(store: RunFolder, cells: pd.DataFrame) -> list[str]:
    """Returns what is to be said of the cells, each thing once: the scores that one lacks, most of them lack."""
    doubts, unscored = dict[str, None](), dict[str, None]()
    for key, reason in zip(cells["cell"], cells["reason"], strict=True):
        part = store.read_part(key) if " unscored: " in reason else None
        lacks = part.unscored_text() if isinstance(part, MeasuredRecord) else ""
        unscored[lacks] = None
        doubts[reason.removesuffix(lacks).removesuffix("; ")] = None
    return [note for note in (*doubts, *unscored) if note]


class _Shown(NamedTuple):
    name: str
    heading: str
    digits: int | None = None


_REBUILT = (
    _Shown("quality", "quality", 3),
    _Shown("tokens", "tokens", 1),
    _Shown("payload_bytes", "bytes", 0),
    _Shown("psnr_db", "PSNR dB", 2),
    _Shown("ssim", "SSIM", 3),
    _Shown("lpips", "LPIPS", 3),
    _Shown("judge_reid_top1", "re-identified", 3),
    _Shown("leakage", "leakage dB", 2),
)
_ASKED = (
    _Shown("attribute", "attribute"),
    _Shown("attribute_accuracy", "named", 3),
    _Shown("attribute_chance", "by chance", 3),
    _Shown("attribute_auc", "AUC", 3),
    _Shown("reid_top1", "re-identified", 3),
)


def _cells_table(cells: pd.DataFrame, columns: tuple[_Shown, ...]) -> Table:
    table = Table(title=None, header_style="bold")
    for name in ("operating point", "channel", "attack"):
        table.add_column(name, no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="left" if column.digits is None else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in cells.to_dict("records"):
        values = [_written(row[c.name], c.digits) for c in columns]
        table.add_row(row["operating_point"], row["channel"], row["attack"], *values, _judged(row))
    return table


def _judged(row: dict[Hashable, Any]) -> str:
    """Returns the verdict, or what became of a cell that has none: failed is a word of its own."""
    return str(row["verdict"] if row["status"] == "done" else row["status"])


def _written(value: Any, digits: int | None) -> str:
    if digits is None:
        return str(value)
    return "unscored" if math.isnan(value) else f"{value:.{digits}f}"
