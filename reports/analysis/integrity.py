"""Whether the tables of a run belong together: every image of every cell, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from leakgauge.harness.values.columns import IDENTITY
from leakgauge.reports.notation import plural

_NAMES = tuple(column.name for column in IDENTITY if column.name != "snr_db")


def table_faults(manifest: Mapping[str, Any], cells: pd.DataFrame, images: pd.DataFrame) -> tuple[str, ...]:
    """Says what is missing from the tables of a run, or contradicts itself in them; empty where nothing is.

    A table that was cut short or edited still has means, and they may look better than the truth.

    Args:
        manifest: run.json.
        cells: Rows of cells.csv, planned cells that are missing included.
        images: Rows of images.parquet.
    """
    return tuple(_faults(manifest, cells, images))


def _faults(manifest: Mapping[str, Any], cells: pd.DataFrame, images: pd.DataFrame) -> Iterator[str]:
    done = cells[cells["status"] == "done"].set_index("cell")
    counts = images["cell"].value_counts().reindex(done.index, fill_value=0)
    wrong = done.index[(counts != done["n"]).to_numpy()]
    if len(wrong):
        found = f"{counts[wrong[0]]} of {done.loc[wrong[0], 'n']} images"
        yield f"images.parquet does not hold all images of {plural(len(wrong), 'cell')} ({found} of cell {wrong[0]})"
    planned = (manifest.get("task") or {}).get("evaluation_images")
    short = int((done["n"] != planned).sum()) if isinstance(planned, int) else 0
    if short:
        yield f"{plural(short, 'cell')} were not scored on all {planned} images"
    unknown = set(images["cell"]) - set(done.index)
    if unknown:
        yield f"images.parquet holds images of {plural(len(unknown), 'cell')} that cells.csv does not hold as done"
    sets = images.groupby("cell")["image"].agg(frozenset)
    if sets.nunique() > 1:
        yield "the cells were not scored on the same images"
    named = images[["cell", *_NAMES]].drop_duplicates().set_index("cell")
    both = named.index.intersection(done.index)
    names, known = (frame.loc[both].sort_index().astype(str) for frame in (named, done[list(_NAMES)]))
    if len(names) != len(known) or (names.to_numpy() != known.to_numpy()).any():
        yield "cells.csv and images.parquet name cells otherwise"
