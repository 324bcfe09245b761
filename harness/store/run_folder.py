"""The run folder: atomic writes, resume, and reading of results.

Every cell is written as one part, complete or not at all; the tables are assembled from the parts. A killed run
therefore loses at most the cells that were being computed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leakgauge.harness.errors import StoreError
from leakgauge.harness.scoring.measures import Score, own_scores
from leakgauge.harness.store.cell_record import CellRecord, record_of
from leakgauge.harness.store.table_file import Row, read_csv, read_parquet
from leakgauge.harness.store.table_file import typed_frame as typed_frame  # noqa: PLC0414 - whoever writes tables takes it from here
from leakgauge.harness.system.files.atomic_file import write_atomic as write_atomic  # noqa: PLC0414 - plug-ins take it from here
from leakgauge.harness.system.files.bounded_file import MIB, plain_data, read_json
from leakgauge.harness.system.files.sheet import read_sheet, sheet
from leakgauge.harness.system.files.sweeping import sweep
from leakgauge.harness.system.json_data import Json
from leakgauge.harness.system.plain_text import plain, quoted
from leakgauge.harness.values.columns import (
    CELL_COLUMNS,
    CELL_KEY,
    IMAGE_COLUMNS,
    KIND_COLUMNS,
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    Column,
    required_columns,
)
from leakgauge.harness.values.learning_curve import CurveData, LearningCurve
from leakgauge.harness.values.stored_shapes import Curve, Manifest, RunManifest, Shape, StoredPart, check_shape


class Frames(NamedTuple):
    """The tables of a run: cells.csv, images.parquet, quality_by_kind.csv."""

    cells: pd.DataFrame
    images: pd.DataFrame
    kinds: pd.DataFrame


KINDS = "quality_by_kind.csv"
ORIGINALS = "originals"
"""The key of the sheet that holds the original images."""
MAX_MANIFEST_BYTES, MAX_PART_BYTES = 64 * MIB, 512 * MIB


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class RunFolder:
    """One run on disk.

    Args:
        path: The folder; created by ``create``, read by everything else.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    # -- the manifest ------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Opens an existing run for reading.

        Raises:
            StoreError: There is no run, or its schema version is unknown.
        """
        run = cls(path)
        run.manifest()
        return run

    def exists(self) -> bool:
        """Tells whether the folder holds a run."""
        return (self.path / "run.json").is_file()

    def manifest(self) -> RunManifest:
        """Reads run.json, refusing versions that this code does not know."""
        path = self.path / "run.json"
        if not path.exists():
            raise StoreError("no run here: run.json is missing", where=str(self.path), hint="name a run folder")
        data, _ = self._json(path, Manifest, "run.json cannot be read", "restore or delete it", MAX_MANIFEST_BYTES)
        version = data["schema_version"]
        if version not in READABLE_VERSIONS:
            known = " and ".join(map(str, READABLE_VERSIONS))
            raise StoreError(
                f"run schema version {version!r} is unknown; this leakgauge reads versions {known}",
                where=str(path),
                hint="use the leakgauge that wrote it, or run the suite again",
            )
        return cast("RunManifest", data)

    @staticmethod
    def _json(path: Path, shape: type[Shape], what: str, hint: str, most: int) -> tuple[dict[str, Json], Shape]:
        """Reads JSON, and what readers rely on of it; raises StoreError where it is of another shape."""
        try:
            data: dict[str, Json] = read_json(path, most, hint=hint, unscored=True)
            return data, check_shape(data, shape)
        except (StoreError, ValueError) as error:
            why = error.what if isinstance(error, StoreError) else error
            raise StoreError(f"{what}: {why}", where=str(path), hint=hint) from error

    def write_manifest(self, data: RunManifest) -> None:
        """Writes run.json."""
        text = json.dumps({"schema_version": SCHEMA_VERSION, **data}, indent=2, sort_keys=True, default=str)
        write_atomic(self.path / "run.json", (text + "\n").encode())

    # -- the name of a cell, which becomes a path ---------------------------------------------------------------------

    def _file(self, folder: str, key: str, suffix: str) -> Path:
        """Returns the file of a cell, or of the originals.

        Raises:
            StoreError: The name is none that a run gives to a cell: whoever wrote a table must not choose paths.
        """
        if key != ORIGINALS and not re.fullmatch(CELL_KEY, key):
            raise StoreError(
                f"{quoted(key)} names no cell", where=str(self.path), hint="16 hex digits do; run it again"
            )
        return self.path / folder / f"{key}{suffix}"

    def _part(self, key: str) -> Path:
        return self._file("parts", key, ".json")

    def done(self) -> set[str]:
        """Returns the keys of all parts, those of failed cells included."""
        found = (path.stem for path in (self.path / "parts").glob("*.json"))
        return {key for key in found if re.fullmatch(CELL_KEY, key)}

    def stamp(self, key: str) -> tuple[int, ...]:
        """Returns what tells one writing of a part from another; empty where there is no part."""
        return _stamp(self._part(key))

    def images_stamp(self, key: str) -> tuple[int, ...]:
        """Returns what tells one writing of the pictures of a cell from another; empty where there are none."""
        return _stamp(self._file("reconstructions", key, ".png"))

    def note_shortage(self, key: str, why: str) -> None:
        """Notes that a cell could not be measured for lack of memory; forgotten once it is."""
        write_atomic(self.path / "parts" / f"{key}.short", why.encode(errors="replace"))

    def shortages(self, keys: Iterable[str]) -> list[str]:
        """Returns what was noted of these cells."""
        paths = [self.path / "parts" / f"{key}.short" for key in keys]
        return [path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()]

    def sweep(self) -> None:
        """Deletes what processes that were killed left half written; only for who holds the folder."""
        sweep(self.path, *(self.path / folder for folder in ("parts", "reconstructions", "attacks")))

    def write_part(self, record: CellRecord) -> None:
        """Stores what was measured for one cell; the last write of a cell, by which it counts as done."""
        part = plain_data(record.to_json())  # as it is read again
        # With the part itself: who reads it knows that nothing in it has changed since.
        data = {**part, "checksum": _checksum(json.dumps(part))}
        write_atomic(self._part(record.identity.cell), json.dumps(data).encode())

    def write_cell(
        self, record: CellRecord, curve: LearningCurve | None = None, images: NDArray[np.uint8] | None = None
    ) -> None:
        """Stores all that came of one cell: pictures and curve before the part, by which it counts as done.

        Args:
            record: What was measured.
            curve: How the attacker learnt, where it did.
            images: (B, H, W, 3) reconstructions, where there are some.
        """
        key = record.identity.cell
        if images is not None:
            self.write_images(key, images)
        if curve is not None:
            self.write_curve(key, curve)
        self.write_part(record)

    def read_part(self, key: str) -> CellRecord:
        """Reads what ``write_part`` stored for one cell.

        Raises:
            StoreError: There is no such part, or it is damaged or that of another cell.
        """
        path, what, hint = self._part(key), "part cannot be read", "run again to measure the cell again"
        data, part = self._json(path, StoredPart, what, hint, MAX_PART_BYTES)
        # Parts of earlier versions have no checksum.
        stated = data.pop("checksum", None)
        if stated is not None and stated != _checksum(json.dumps(data)):
            raise StoreError(f"{what}: its checksum fails", where=str(path), hint=hint)
        if part.identity.cell != key:
            raise StoreError(f"{what}: it is of another cell", where=str(path), hint=hint)
        try:
            return record_of(part)
        except ValueError as error:
            raise StoreError(f"{what}: {error}", where=str(path), hint=hint) from error

    def drop_part(self, key: str) -> None:
        """Forgets a cell, so that the next run computes it again."""
        for path in (self._part(key), self.path / "parts" / f"{key}.short"):
            path.unlink(missing_ok=True)

    def own_scores(self) -> tuple[Score, ...]:
        """Returns the scores of the run's own metrics, which no other run need have."""
        return own_scores(self.manifest()) if self.exists() else ()

    def cell_columns(self) -> tuple[Column, ...]:
        """Returns the columns of cells.csv: those of every run, and those of the run's own metrics."""
        return (*CELL_COLUMNS, *(column for score in self.own_scores() for column in score.cell_columns))

    def image_columns(self) -> tuple[Column, ...]:
        """Returns the columns of images.parquet, likewise."""
        return (*IMAGE_COLUMNS, *(score.column for score in self.own_scores()))

    def write_tables(self, cells: Sequence[Row], images: Sequence[Row], kinds: Sequence[Row] = ()) -> None:
        """Writes cells.csv and images.parquet, and quality_by_kind.csv where questions were asked."""
        made = self.frames_of(cells, images, kinds)
        for name, frame in (("cells.csv", made.cells), *([(KINDS, made.kinds)] if kinds else [])):
            write_atomic(self.path / name, frame.to_csv(index=False, lineterminator="\n").encode())
        stream = io.BytesIO()
        made.images.to_parquet(stream, index=False)
        write_atomic(self.path / "images.parquet", stream.getvalue())

    def frames_of(self, cells: Iterable[Row], images: Iterable[Row], kinds: Iterable[Row]) -> Frames:
        """Returns rows as tables with exactly the columns of this run."""
        return Frames(
            typed_frame(cells, self.cell_columns()),
            typed_frame(images, self.image_columns()),
            typed_frame(kinds, KIND_COLUMNS),
        )

    # -- reading results ---------------------------------------------------------------------------------------------

    def tables(self) -> Frames:
        """Reads all tables of the run."""
        return Frames(self.cells(), self.images(), self.kinds())

    def cells(self) -> pd.DataFrame:
        """Reads cells.csv; see ``leakgauge.harness.values.columns.CELL_COLUMNS`` for units.

        Unscored numbers are NaN. So are numbers that an older schema version lacks; its texts are empty.
        """
        columns = self.cell_columns()
        return read_csv(self.path / "cells.csv", columns, self._required(columns))

    def kinds(self) -> pd.DataFrame:
        """Reads quality_by_kind.csv (``values.columns.KIND_COLUMNS``); no rows where nothing was asked."""
        path = self.path / KINDS
        if not path.exists():
            return typed_frame([], KIND_COLUMNS)
        return read_csv(path, KIND_COLUMNS, [column.name for column in KIND_COLUMNS])

    def images(self) -> pd.DataFrame:
        """Reads images.parquet (``values.columns.IMAGE_COLUMNS``); columns of later schemas are NaN."""
        columns = self.image_columns()
        return read_parquet(self.path / "images.parquet", columns, self._required(columns))

    def _required(self, columns: tuple[Column, ...]) -> frozenset[str]:
        """Returns the columns that a table of this run's schema version must hold."""
        version = self.manifest()["schema_version"] if self.exists() else SCHEMA_VERSION
        own = {column.name for score in self.own_scores() for column in score.cell_columns}
        return required_columns(columns, version) | {column.name for column in columns if column.name in own}

    # -- pictures and curves -----------------------------------------------------------------------------------------

    def write_images(self, key: str, images: NDArray[np.uint8]) -> None:
        """Stores uint8 images (N, H, W, 3) losslessly as one PNG sheet."""
        write_atomic(self._file("reconstructions", key, ".png"), sheet(images, key))

    def read_images(self, key: str, count: int, height: int, width: int) -> NDArray[np.uint8]:
        """Reads ``count`` images back as uint8 (N, H, W, 3); ``originals`` is the key of the originals."""
        path = self._file("reconstructions", key, ".png")
        columns = max(1, int(np.ceil(np.sqrt(count))))
        size = (columns * width, -(-count // columns) * height)
        canvas = read_sheet(path, size, count, key)
        grid = canvas.reshape(-1, height, columns, width, 3).swapaxes(1, 2)
        return np.ascontiguousarray(grid.reshape(-1, height, width, 3)[:count])

    def write_curve(self, key: str, curve: LearningCurve) -> None:
        """Stores a learning curve."""
        write_atomic(self._file("attacks", key, ".json"), json.dumps(curve.as_dict()).encode())

    def read_curve(self, key: str) -> LearningCurve | None:
        """Reads a learning curve; None where the attack does not train."""
        path = self._file("attacks", key, ".json")
        if not path.exists():
            return None
        hint = "run it again"
        data, _ = self._json(path, Curve, "the curve cannot be read", hint, MAX_PART_BYTES)
        try:
            return LearningCurve.from_dict(cast(CurveData, data))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError("the curve cannot be read: not what is kept of one", where=str(path), hint=hint) from error

    def log(self, line: str) -> None:
        """Appends a line to the log."""
        try:
            with (self.path / "log").open("a", encoding="utf-8") as stream:
                stream.write(plain(line.rstrip("\n"), keep="\t") + "\n")
        except OSError as error:
            raise StoreError(f"cannot write: {error.strerror or error}", where=str(self.path / "log")) from error
