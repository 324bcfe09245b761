"""The CSV and Parquet writers: the tables of a report with the unit and the meaning of every column."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from leakgauge.harness.errors import StoreError
from leakgauge.harness.store.run_folder import RunFolder, typed_frame, write_atomic
from leakgauge.harness.store.table_file import guarded_csv, unguarded
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS, KIND_COLUMNS, Column
from leakgauge.reports.analysis.operating_points import POINT_COLUMNS, point_columns, point_rows
from leakgauge.reports.analysis.run import LoadedRun, load_runs

RUN = Column("run", "text", "", "label of the run")
TABLES: dict[str, tuple[Column, ...]] = {
    "operating_points": (RUN, *POINT_COLUMNS),
    "cells": (RUN, *CELL_COLUMNS),
    "images": (RUN, *IMAGE_COLUMNS),
    "quality_by_kind": (RUN, *KIND_COLUMNS),
}
"""The columns of each table, in order."""


def tables_of(runs: Sequence[LoadedRun]) -> dict[str, tuple[Column, ...]]:
    """Returns the columns of each table, those of the runs' own metrics among them."""
    own = {score.name: score for run in runs for score in run.own_scores}.values()
    return {
        **TABLES,
        "operating_points": (RUN, *point_columns(runs)),
        "cells": (*TABLES["cells"], *(column for score in own for column in score.cell_columns)),
        "images": (*TABLES["images"], *(score.column for score in own)),
    }


def _frame(name: str, run: LoadedRun) -> pd.DataFrame:
    if name == "operating_points":
        return typed_frame(point_rows(run), point_columns([run]))
    # Copies: other writers read the run's own.
    return {"quality_by_kind": run.kinds, "cells": run.cells, "images": run.images}[name].copy()


def _joined(name: str, runs: Sequence[LoadedRun]) -> pd.DataFrame:
    frames = [_frame(name, run) for run in runs]
    for run, frame in zip(runs, frames, strict=True):
        frame.insert(0, "run", run.label)
    joined = pd.concat(frames, ignore_index=True)
    return joined[[column.name for column in tables_of(runs)[name]]]


def columns_frame(runs: Sequence[LoadedRun] = ()) -> pd.DataFrame:
    """Returns a row a column of every table: table, column, kind, unit, meaning."""
    return pd.DataFrame(
        [{"table": table, **column._asdict()} for table, columns in tables_of(runs).items() for column in columns]
    )


def write_csv(runs: Sequence[RunFolder | LoadedRun], out: Path) -> list[Path]:
    """Writes operating_points.csv and cells.csv, ``NaN`` for unscored numbers, and columns.csv with their units.

    Where a run asked questions, quality_by_kind.csv too. A quote stands before texts that a spreadsheet would take for
    formulas; ``read_table`` takes it away.

    Raises:
        StoreError: A run cannot be read, or the folder cannot be written.
    """
    loaded = load_runs(runs)
    frames = {name: _joined(name, loaded) for name in ("operating_points", "cells")}
    for frame in frames.values():
        # No noise is not an unscored noise.
        frame["snr_db"] = frame["snr_db"].astype(object).where(frame["snr_db"].notna(), "")
    if len(kinds := _joined("quality_by_kind", loaded)):
        frames["quality_by_kind"] = kinds
    frames["columns"] = columns_frame(loaded)
    for name, frame in frames.items():
        write_atomic(out / f"{name}.csv", guarded_csv(frame, "NaN"))
    return [out / f"{name}.csv" for name in frames]


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table that ``write_csv`` wrote: texts as they were, NaN for unscored numbers.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        return unguarded(pd.read_csv(path, keep_default_na=False, na_values=["NaN"]))
    except (OSError, ValueError) as error:
        raise StoreError(f"no table: {error}", where=str(path), hint="write the report again") from error


def write_parquet(runs: Sequence[RunFolder | LoadedRun], out: Path) -> list[Path]:
    """Writes operating_points, cells and images as Parquet, with unit and meaning in the metadata of every field.

    Raises:
        StoreError: A run cannot be read, or the folder cannot be written.
    """
    loaded = load_runs(runs)
    for name, columns in tables_of(loaded).items():
        table = pa.Table.from_pandas(_joined(name, loaded), preserve_index=False)
        described = {column.name: {"unit": column.unit, "meaning": column.meaning} for column in columns}
        fields = [field.with_metadata(described[field.name]) for field in table.schema]
        stream = io.BytesIO()
        pq.write_table(table.cast(pa.schema(fields, metadata=table.schema.metadata)), stream)
        write_atomic(out / f"{name}.parquet", stream.getvalue())
    return [out / f"{name}.parquet" for name in TABLES]
