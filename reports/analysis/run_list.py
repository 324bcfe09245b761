"""The runs below a folder, with their headline numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from leakgauge.harness.errors import LeakgaugeError, StoreError
from leakgauge.harness.store.provenance import code_identity
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import NOT_RUN, LoadedRun, load_runs
from leakgauge.reports.analysis.verdicts.point_verdict import bounds_only
from leakgauge.reports.tables.table import Grid, Heading, Value, figure, ranged, words


def find_runs(folder: Path) -> list[Path]:
    """Returns the run folders below a folder, itself included, by path.

    Raises:
        StoreError: There is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise StoreError("no such folder", where=str(folder), hint="name a folder that holds runs")
    found = sorted(path.parent for path in folder.rglob("run.json") if "parts" not in path.parts)
    if not found:
        raise StoreError("no run in it", where=str(folder), hint="name a folder that holds runs")
    return found


def runs_grid(folder: Path) -> Grid:
    """Returns a row a run: status, cells, and the operating points that leak most and least, with intervals.

    A run that cannot be read has a row that says why.
    """
    headings = [Heading(name, numeric=False) for name in ("Run", "Suite", "Status", "Commit")]
    headings += [Heading("Cells"), Heading("Failed"), Heading("Inconclusive"), Heading("Lower bounds")]
    headings += [Heading("Baseline leaks", "dB above floor"), Heading("Least leaks", "dB above floor")]
    headings += [Heading("Baseline quality", "%"), Heading("Its quality", "%")]
    return Grid(f"Runs in {folder}", headings, [_row(path, folder) for path in find_runs(folder)])


def runs_data(folder: Path) -> list[dict[str, Any]]:
    """Returns the runs of a folder as ``runs --json`` prints them: operating points by the columns of the report.

    Of a run that cannot be read ``error`` says why.

    Raises:
        StoreError: There is no such folder, or no run in it.
    """
    found = []
    for path in find_runs(folder):
        try:
            run = load_runs([RunFolder.open(path)])[0]
            cells = Counter(run.cells["status"])
            points = point_rows(run)
        except LeakgaugeError as error:
            found.append({"run": path, "error": str(error)})
            continue
        told = {"suite": run.suite.name, "status": run.status, "cells": dict(cells), "operating_points": points}
        found.append({"run": path, **told})
    return found


def _row(path: Path, folder: Path) -> list[Value]:
    name = str(path.relative_to(folder)) if path != folder else path.resolve().name
    try:
        run = load_runs([RunFolder.open(path)])[0]
        return [words(name), *_headline(run)]
    except LeakgaugeError as error:
        nothing = [Value("", numeric=True)] * 8
        return [words(name), words(""), words("cannot be read", str(error), "bad"), words(""), *nothing]


def _headline(run: LoadedRun) -> list[Value]:
    cells, unscored = run.cells, figure(None)
    failed = int((cells["status"] == "failed").sum())
    inconclusive, bounds = (
        int(((cells["status"] == "done") & (cells["verdict"] == name)).sum())
        for name in ("inconclusive", "lower bound")
    )
    rows = [row for row in point_rows(run) if row["strongest_leakage"] == row["strongest_leakage"]]
    base = next((row for row in rows if row["baseline"] == "yes"), None)
    # What an attacker without a verdict leaves is no statement about the defense.
    sure = [row for row in rows if not bounds_only(row["verdict"], row["reason"])]
    least = min(sure, key=lambda row: float(row["strongest_leakage"]), default=None)
    provenance = run.manifest.get("provenance") or {}
    return [
        words(run.suite.name),
        words(run.status),
        words(_code(provenance), "uncommitted changes" if provenance.get("dirty") else ""),
        figure(int((cells["status"] != NOT_RUN).sum()), 0),
        figure(failed, 0),
        figure(inconclusive, 0),
        figure(bounds, 0),
        unscored if base is None else ranged(base, "strongest_leakage", 2),
        unscored if least is None else _named(ranged(least, "strongest_leakage", 2), str(least["operating_point"])),
        unscored if base is None else ranged(base, "quality", 1, scale=100),
        unscored if least is None else ranged(least, "quality", 1, scale=100),
    ]


def _code(provenance: dict[str, Any]) -> str:
    """Returns the commit, shortened, or version and digest where there is none."""
    return str(provenance["commit"])[:8] if provenance.get("commit") else code_identity(provenance)


def _named(value: Value, name: str) -> Value:
    return Value(value.text, f"{name} {value.detail}".strip(), value.sort, value.tone, value.numeric)
