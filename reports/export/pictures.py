"""Pictures of an operating point: a few originals, and what the strongest attack rebuilt of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leakgauge.harness.errors import StoreError
from leakgauge.reports.analysis.run import LoadedRun, Setting
from leakgauge.reports.analysis.strongest import candidates, strongest_rows
from leakgauge.reports.writers.gallery import evenly

WANTED = 6
_GREY = 128


def picture_rows(run: LoadedRun, setting: Setting, point: str) -> NDArray[np.uint8] | None:
    """Returns two rows of pictures, uint8 (2, N, H, W, 3): originals, then reconstructions; grey where there is none.

    Of the suite's first seed, evenly spaced. None where the run stores no originals, or nothing was rebuilt.
    """
    originals = _sheet(run, "originals")
    if originals is None or not candidates(run, point, setting):
        return None
    best = strongest_rows(run, point, setting)
    best = best[(best["seed"] == run.suite.seeds[0]) & (best["cell"] != "")]
    cells = {str(row.image): str(row.cell) for row in best.itertuples()}
    order = _order(run)
    chosen = evenly(min(len(order), len(originals)), WANTED)
    sheets = {cell: _sheet(run, cell) for cell in {cells[order[i]] for i in chosen if order[i] in cells}}
    rebuilt = []
    for place in chosen:
        sheet = sheets.get(cells.get(order[place], ""))
        rebuilt.append(np.full_like(originals[place], _GREY) if sheet is None else sheet[place])
    if not cells or not rebuilt:
        return None
    return np.stack([originals[chosen], np.stack(rebuilt)])


def _order(run: LoadedRun) -> list[str]:
    """Returns the evaluation images in the order of the sheets."""
    for cell in run.cells.loc[run.cells["status"] == "done", "cell"]:
        return [str(image) for image in run.images.loc[run.images["cell"] == cell, "image"]]
    return []


def _sheet(run: LoadedRun, key: str) -> NDArray[np.uint8] | None:
    _, height, width = run.task.get("image_shape") or (3, 0, 0)
    try:
        return run.folder.read_images(key, int(run.task.get("evaluation_images") or 0), int(height), int(width))
    except StoreError:
        return None
