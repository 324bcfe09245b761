"""Tables of a run that was killed, is going on, or failed: assembled from the parts that are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.harness.errors import StoreError
from leakgauge.harness.scoring.leakage import recounted
from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.harness.store.assembly import Assembler
from leakgauge.harness.store.cell_record import CellRecord
from leakgauge.harness.store.run_folder import Frames, RunFolder
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.system.files.atomic_file import write_atomic
from leakgauge.harness.values.columns import PER_IMAGE_FLOORS
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.stored_shapes import RunManifest

INDEX = "evaluation.json"


@dataclass(frozen=True)
class ImageIndex:
    """What the tables say of the evaluation images, without their pixels; see ``values.images.ImageSet``."""

    ids: tuple[str, ...]
    labels: Tensor | None
    groups: Tensor | None

    def __len__(self) -> int:
        return len(self.ids)


def write_index(store: RunFolder, images: ImageSet) -> None:
    """Keeps beside the parts what is needed to make tables of them."""
    columns = {"labels": images.labels, "groups": images.groups}
    plain = {name: None if column is None else column.tolist() for name, column in columns.items()}
    write_atomic(store.path / INDEX, json.dumps({"ids": list(images.ids), **plain}).encode())


def read_index(store: RunFolder) -> ImageIndex | None:
    """Reads what ``write_index`` wrote; None where there is none, as in runs of earlier versions.

    Raises:
        StoreError: It cannot be read.
    """
    path = store.path / INDEX
    if not path.is_file():
        return None
    try:
        data: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
        ids = tuple(str(image_id) for image_id in data["ids"])
        columns = [None if data[n] is None else torch.tensor(data[n], dtype=torch.long) for n in ("labels", "groups")]
        if any(column is not None and column.shape != (len(ids),) for column in columns):
            raise ValueError("its columns differ in length")  # noqa: TRY301 - one message for all that may be wrong
        return ImageIndex(ids, *columns)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError, RuntimeError) as error:
        raise StoreError(f"{INDEX} cannot be read: {error}", where=str(store.path), hint="run it again") from error


def frames(store: RunFolder, suite: Suite, manifest: RunManifest) -> Frames:
    """Returns the tables of a run: as stored where it is complete, else as assembled from its parts.

    Parts that another version of the code measured, that are damaged or that belong to no planned cell are left out.

    Leakage that an older version counted otherwise is counted anew; its verdicts stay.

    Raises:
        StoreError: Neither can be read.
    """
    if manifest.get("status") != "complete":
        with _no_stale(store):
            index = read_index(store)
            if index is not None:
                tables = Assembler(index, suite.baseline_point, suite.seeds[0]).tables(_readable(store, manifest))
                return store.frames_of(tables.cells, tables.images, tables.kinds)
    stored = store.tables()
    return stored if manifest["schema_version"] > PER_IMAGE_FLOORS else _counted_anew(stored, suite, manifest)


def _counted_anew(stored: Frames, suite: Suite, manifest: RunManifest) -> Frames:
    floors = [label for label, entry in (manifest.get("attacks") or {}).items() if entry.get("floor")]
    images, cells = recounted(stored.images, floors), stored.cells.copy()
    streams = bootstrap_streams(suite.seeds[0])
    by_cell = dict(list(images.groupby("cell", sort=False)[["leakage", "group"]]))
    for place, key in enumerate(cells["cell"]):
        if key in by_cell:
            found = mean_interval(by_cell[key]["leakage"].to_numpy(), by_cell[key]["group"].to_numpy(), streams)
            cells.loc[cells.index[place], ["leakage", "leakage_lo", "leakage_hi"]] = found[:3]
    return Frames(cells, images, stored.kinds)


def _readable(store: RunFolder, manifest: RunManifest) -> list[CellRecord]:
    """Returns the planned parts that are there, undamaged, and measured by the code that the manifest names."""
    known, parts = set(manifest.get("code") or {}), list[CellRecord]()
    for key in (key for key in manifest.get("cells") or () if store.stamp(str(key))):
        try:
            part = store.read_part(str(key))
        except StoreError:
            continue
        if part.head.code in known:
            parts.append(part)
    return parts


@contextmanager
def _no_stale(store: RunFolder) -> Iterator[None]:
    """Says in one line what keeps the parts of a run from being read."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise StoreError(
            f"the parts of the run cannot be read: {type(error).__name__}: {error}",
            where=str(store.path),
            hint="run it again",
        ) from error
