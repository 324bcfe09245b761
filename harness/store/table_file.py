"""Tables from outside, each column of the kind that the schema states: CSV and Parquet, within bounds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leakgauge.harness.errors import StoreError
from leakgauge.harness.system.files.bounded_file import MIB, read_bytes, read_text
from leakgauge.harness.system.plain_text import formula_guarded, formula_unguarded, plain, quoted
from leakgauge.harness.values.columns import CELL_KEY, Column

Series: TypeAlias = NDArray[np.object_] | NDArray[np.int64] | NDArray[np.float64]
Row: TypeAlias = dict[str, str | float | None]
"""A row of a table by column name."""
MAX_CSV_BYTES = 256 * MIB
MAX_PARQUET_BYTES = 2048 * MIB
MAX_ROWS = 20_000_000
MAX_UNPACKED_BYTES = 16 * 2**30
"""What a Parquet file may say that it unpacks to: a small file may hold gigabytes of one value."""
HINT = "run it again"
_INT = re.compile(r"[-+]?[0-9]{1,18}(\.0*)?")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?inf|nan|NaN|")


def read_csv(path: Path, columns: Sequence[Column], required: Collection[str]) -> pd.DataFrame:
    """Reads a CSV into exactly ``columns``: absent numbers are NaN, absent texts empty.

    Args:
        path: The file.
        columns: The columns, in order.
        required: Names of those that must be there; the others may be missing as a whole.

    Raises:
        StoreError: It cannot be read, a required column is missing, a value is not of its column's kind, or a cell's
            name is none that a run gives to a cell.
    """
    text = read_text(path, MAX_CSV_BYTES, hint=HINT)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        if not rows:
            raise ValueError("it is empty")  # noqa: TRY301
        names, *body = rows
        for number, row in enumerate(body, start=2):
            if len(row) != len(names):
                raise ValueError(f"row {number} has {len(row)} fields, not {len(names)}")  # noqa: TRY301
        frame = _frame({name: [row[i] for row in body] for i, name in enumerate(names)}, names, columns, required)
    except (csv.Error, ValueError) as error:
        raise StoreError(f"{path.name} cannot be read: {error}", where=str(path.parent), hint=HINT) from error
    return _checked_keys(path, frame)


def _frame(
    found: dict[str, list[str]], names: Sequence[str], columns: Sequence[Column], required: Collection[str]
) -> pd.DataFrame:
    _check_names(names, required)
    count = len(next(iter(found.values()), []))
    series: dict[str, Series] = {}
    for column in columns:
        if column.name in found:
            series[column.name] = _values(found[column.name], column)
        else:
            series[column.name] = _absent(column, count)
    return pd.DataFrame(series, columns=[column.name for column in columns])


def _absent(column: Column, count: int) -> Series:
    return np.full(count, "", dtype=object) if column.kind == "text" else np.full(count, np.nan)


def _check_names(names: Sequence[str], required: Collection[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"column {quoted(name)} occurs twice")
    missing = [name for name in required if name not in names]
    if missing:
        raise ValueError(f"column {min(missing)!r} is missing")


def _values(texts: Sequence[str], column: Column) -> Series:
    if column.kind == "text":
        values = np.empty(len(texts), dtype=object)
        values[:] = [plain(text) for text in texts]
        return values
    pattern = _INT if column.kind == "int" else _FLOAT
    for number, text in enumerate(texts, start=2):
        if not pattern.fullmatch(text):
            raise ValueError(f"row {number}, {column.name}: {quoted(text)} is no {_NOUN[column.kind]}")
    if column.kind == "int":
        return np.array([int(text.partition(".")[0]) for text in texts], dtype=np.int64)
    return np.array([float(text) if text else np.nan for text in texts], dtype=np.float64)


_NOUN = {"int": "whole number", "float": "number"}


def _checked_keys(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a table, unless it names cells and one is no name that a run gives: their names become paths."""
    for key in frame["cell"].unique() if "cell" in frame else ():
        if not re.fullmatch(CELL_KEY, key):
            what = f"{path.name} cannot be read: {quoted(key)} names no cell"
            raise StoreError(what, where=str(path.parent), hint=HINT)
    return frame


def guarded_csv(frame: pd.DataFrame, unscored: str = "") -> bytes:
    """Writes a table for people: no text in it starts what a spreadsheet would compute; ``unguarded`` takes that back.

    Control characters are escaped for good: a lone carriage return would end a row.

    Args:
        frame: The table.
        unscored: What stands for NaN.
    """
    written = frame.copy()
    for position, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            values = [
                formula_guarded(plain(value)) if isinstance(value, str) else value for value in frame.iloc[:, position]
            ]
            written.isetitem(position, np.array(values, dtype=object))
    written.columns = pd.Index([formula_guarded(str(name)) for name in frame.columns])
    return written.to_csv(index=False, na_rep=unscored, lineterminator="\n").encode("utf-8", "backslashreplace")


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a table as it was before ``guarded_csv`` wrote it."""
    found = frame.map(lambda value: formula_unguarded(value) if isinstance(value, str) else value)
    found.columns = pd.Index([formula_unguarded(str(name)) for name in frame.columns])
    return found


def read_parquet(path: Path, columns: Sequence[Column], required: Collection[str]) -> pd.DataFrame:
    """Reads a Parquet file into exactly ``columns``; see ``read_csv`` for what is raised."""
    data = read_bytes(path, MAX_PARQUET_BYTES, hint=HINT)
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            _check_sizes(file.metadata)
            names = list(file.schema_arrow.names)
            _check_names(names, required)
            table = file.read(columns=[column.name for column in columns if column.name in names])
        table.validate(full=True)
        series = {
            column.name: _array(table.column(column.name), column)
            if column.name in names
            else _absent(column, table.num_rows)
            for column in columns
        }
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"{path.name} cannot be read: {what}", where=str(path.parent), hint=HINT) from error
    return _checked_keys(path, pd.DataFrame(series, columns=[column.name for column in columns]))


def _check_sizes(metadata: pq.FileMetaData) -> None:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if metadata.num_rows > MAX_ROWS or sum(group.total_byte_size for group in groups) > MAX_UNPACKED_BYTES:
        raise ValueError(f"{metadata.num_rows} rows unpack to more than can be held")
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise ValueError("its parts do not add up to its rows")


def _array(values: pa.ChunkedArray, column: Column) -> Series:
    if not len(values):  # then pandas writes columns of no type
        return np.empty(0, dtype={"text": object, "int": np.int64, "float": np.float64}[column.kind])
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if column.kind == "text":
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ValueError(f"column {column.name!r} holds {kind}, not text")
        if values.null_count:
            raise ValueError(f"column {column.name!r} lacks {values.null_count} values")
        texts = np.empty(len(values), dtype=object)
        known: dict[str, str] = {}  # few texts, many rows
        texts[:] = [known.setdefault(text, plain(text)) for text in values.to_pylist()]
        return texts
    if column.kind == "int":
        if not pa.types.is_integer(kind):
            raise ValueError(f"column {column.name!r} holds {kind}, not whole numbers")
        if values.null_count:
            raise ValueError(f"column {column.name!r} lacks {values.null_count} values")
        return np.asarray(values.cast(pa.int64()).to_numpy(), dtype=np.int64)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ValueError(f"column {column.name!r} holds {kind}, not numbers")
    return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)


_PANDAS_KIND: dict[str, Literal["object", "int64", "float64"]] = {"text": "object", "int": "int64", "float": "float64"}


def typed_frame(rows: Iterable[Row], columns: tuple[Column, ...]) -> pd.DataFrame:
    """Builds a data frame with exactly ``columns``, in order and of their kinds; absent numbers are NaN.

    Texts are made plain here too: a lone carriage return would end a row of a CSV.
    """
    # Before pandas sees them: it cannot hold lone surrogates.
    safe = [{name: plain(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(safe, columns=[c.name for c in columns])
    for column in columns:
        series = frame[column.name]
        if column.kind == "text":
            frame[column.name] = series.astype(object).where(series.notna(), "").astype(str).astype(object)
        else:
            frame[column.name] = series.astype(_PANDAS_KIND[column.kind])
    return frame
