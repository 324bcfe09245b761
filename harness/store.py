"""The run folder: atomic writes, resume, and reading of results.

Every cell is written as one part, complete or not at all; the tables are assembled from the parts. A killed run
therefore loses at most the cells that were being computed.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from harness.errors import StoreError
from harness.learning import LearningCurve
from harness.results import CELL_COLUMNS, IMAGE_COLUMNS, KIND_COLUMNS, READABLE_VERSIONS, SCHEMA_VERSION, Column

KINDS = "quality_by_kind.csv"
_PANDAS_KIND: dict[str, Any] = {"text": "object", "int": "int64", "float": "float64"}


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that readers see the old content or the new, never a part.

    Raises:
        StoreError: The folder cannot be written or the disk is full; what was there stays.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StoreError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            mend="free some space or choose another folder with --out; `run` again resumes",
        ) from error


def typed_frame(rows: Iterable[dict[str, Any]], columns: tuple[Column, ...]) -> pd.DataFrame:
    """Builds a data frame with exactly ``columns``, in order and of their kinds; absent numbers are NaN."""
    frame = pd.DataFrame(list(rows), columns=[c.name for c in columns])
    for column in columns:
        series = frame[column.name]
        if column.kind == "text":
            frame[column.name] = series.astype(object).where(series.notna(), "").astype(str).astype(object)
        else:
            frame[column.name] = series.astype(_PANDAS_KIND[column.kind])
    return frame


def _sheet(images: NDArray[np.uint8]) -> bytes:
    """Lays uint8 images (N, H, W, 3) on one PNG, row by row."""
    count, height, width, _ = images.shape
    columns = max(1, int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    canvas = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    stream = io.BytesIO()
    Image.fromarray(canvas).save(stream, format="PNG")
    return stream.getvalue()


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

    def manifest(self) -> dict[str, Any]:
        """Reads run.json, refusing versions that this code does not know."""
        path = self.path / "run.json"
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version = data["schema_version"]
        except FileNotFoundError as error:
            raise StoreError(
                "no run here: run.json is missing", where=str(self.path), mend="name a run folder"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"run.json cannot be read: {error}", where=str(path), mend="restore or delete it"
            ) from error
        if version not in READABLE_VERSIONS:
            known = " and ".join(map(str, READABLE_VERSIONS))
            raise StoreError(
                f"run schema version {version!r} is unknown; this leakgauge reads versions {known}",
                where=str(path),
                mend="use the leakgauge that wrote it, or run the suite again",
            )
        return data

    def write_manifest(self, data: dict[str, Any]) -> None:
        """Writes run.json."""
        text = json.dumps({"schema_version": SCHEMA_VERSION, **data}, indent=2, sort_keys=True, default=str)
        write_atomic(self.path / "run.json", (text + "\n").encode())

    # -- parts -------------------------------------------------------------------------------------------------------

    def _part(self, key: str) -> Path:
        return self.path / "parts" / f"{key}.json"

    def done(self) -> set[str]:
        """Returns the keys of all complete parts."""
        return {path.stem for path in (self.path / "parts").glob("*.json")}

    def write_part(self, key: str, part: dict[str, Any]) -> None:
        """Stores what was measured for one cell; the last write of a cell, by which it counts as done."""
        write_atomic(self._part(key), json.dumps(part).encode())

    def read_part(self, key: str) -> dict[str, Any]:
        """Reads what ``write_part`` stored for one cell."""
        try:
            part: dict[str, Any] = json.loads(self._part(key).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"part cannot be read: {error}", where=str(self._part(key)), mend="delete it and run again"
            ) from error
        return part

    def drop_part(self, key: str) -> None:
        """Forgets a cell, so that the next run computes it again."""
        self._part(key).unlink(missing_ok=True)

    def write_tables(
        self, cells: list[dict[str, Any]], images: list[dict[str, Any]], kinds: Sequence[dict[str, Any]] = ()
    ) -> None:
        """Writes cells.csv and images.parquet, and quality_by_kind.csv where questions were asked."""
        tables = [("cells.csv", cells, CELL_COLUMNS), *([(KINDS, kinds, KIND_COLUMNS)] if kinds else [])]
        for name, rows, columns in tables:
            text = typed_frame(rows, columns).to_csv(index=False, lineterminator="\n")
            write_atomic(self.path / name, text.encode())
        stream = io.BytesIO()
        typed_frame(images, IMAGE_COLUMNS).to_parquet(stream, index=False)
        write_atomic(self.path / "images.parquet", stream.getvalue())

    # -- reading results ---------------------------------------------------------------------------------------------

    def cells(self) -> pd.DataFrame:
        """Reads cells.csv; see ``harness.results.CELL_COLUMNS`` for units.

        Unscored numbers are NaN. So are numbers that an older schema version lacks; its texts are empty.
        """
        kinds = {c.name: _PANDAS_KIND[c.kind] for c in CELL_COLUMNS}
        try:
            frame = pd.read_csv(
                self.path / "cells.csv",
                dtype=kinds,
                keep_default_na=False,
                na_values={c.name: [""] for c in CELL_COLUMNS if c.kind != "text"},
            )
        except (OSError, ValueError) as error:
            raise StoreError(f"cells.csv cannot be read: {error}", where=str(self.path), mend="run it again") from error
        for name in (c.name for c in CELL_COLUMNS if c.kind == "text" and c.name not in frame):
            frame[name] = pd.Series("", index=frame.index, dtype=object)
        return frame.reindex(columns=[c.name for c in CELL_COLUMNS])

    def kinds(self) -> pd.DataFrame:
        """Reads quality_by_kind.csv; see ``harness.results.KIND_COLUMNS``. No rows where no question was asked."""
        path = self.path / KINDS
        if not path.is_file():
            return typed_frame([], KIND_COLUMNS)
        try:
            frame = pd.read_csv(path, keep_default_na=False, na_values={c.name: [""] for c in KIND_COLUMNS})
            return frame[[c.name for c in KIND_COLUMNS]]
        except (KeyError, OSError, ValueError) as error:
            raise StoreError(f"{KINDS} cannot be read: {error}", where=str(self.path), mend="run it again") from error

    def images(self) -> pd.DataFrame:
        """Reads images.parquet; see ``harness.results.IMAGE_COLUMNS``. Columns of later schema versions are NaN."""
        try:
            frame = pd.read_parquet(self.path / "images.parquet")
            return frame.reindex(columns=[c.name for c in IMAGE_COLUMNS])
        except (OSError, ValueError) as error:
            raise StoreError(
                f"images.parquet cannot be read: {error}", where=str(self.path), mend="run it again"
            ) from error

    # -- pictures and curves -----------------------------------------------------------------------------------------

    def write_images(self, key: str, images: NDArray[np.uint8]) -> None:
        """Stores uint8 images (N, H, W, 3) losslessly as one PNG sheet."""
        write_atomic(self.path / "reconstructions" / f"{key}.png", _sheet(images))

    def read_images(self, key: str, count: int, height: int, width: int) -> NDArray[np.uint8]:
        """Reads ``count`` images back as uint8 (N, H, W, 3); ``originals`` is the key of the originals."""
        path = self.path / "reconstructions" / f"{key}.png"
        try:
            canvas = np.asarray(Image.open(path).convert("RGB"))
        except OSError as error:
            raise StoreError(f"cannot read the images: {error}", where=str(path), mend="run it again") from error
        columns = max(1, int(np.ceil(np.sqrt(count))))
        if canvas.shape[:2] != (-(-count // columns) * height, columns * width):
            raise StoreError(f"a sheet of {canvas.shape[:2]} does not hold {count} images", where=str(path))
        grid = canvas.reshape(-1, height, columns, width, 3).swapaxes(1, 2)
        return np.ascontiguousarray(grid.reshape(-1, height, width, 3)[:count])

    def write_curve(self, key: str, curve: LearningCurve) -> None:
        """Stores a learning curve."""
        write_atomic(self.path / "attacks" / f"{key}.json", json.dumps(curve.as_dict()).encode())

    def read_curve(self, key: str) -> LearningCurve | None:
        """Reads a learning curve; None where the attack does not train."""
        path = self.path / "attacks" / f"{key}.json"
        return LearningCurve.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def log(self, line: str) -> None:
        """Appends a line to the log."""
        try:
            with (self.path / "log").open("a", encoding="utf-8") as stream:
                stream.write(line.rstrip("\n") + "\n")
        except OSError as error:
            raise StoreError(f"cannot write: {error.strerror or error}", where=str(self.path / "log")) from error
