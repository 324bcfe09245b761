"""Sheets of pictures for a page: of every cell the same images, side by side in one WebP of a bounded size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakgauge.reports.analysis.run import LoadedRun
from leakgauge.reports.writers.gallery import PictureFiles

MOST_IMAGES = 24
BUDGET_BYTES = 1_300_000
"""What the sheets of a run may take in the page, in base64."""
QUALITY = 90
LARGEST_SIDE = 128
_FEWEST = 6


@dataclass(frozen=True)
class Sheets:
    """Pictures of the same images, whatever the cell.

    Attributes:
        images: Which evaluation images, as places in the run's order.
        uris: A data URI a cell, and under ``originals`` that of the originals: (1, len(images)) pictures side by side.
        height: Of a picture, in pixels.
        width: Of a picture, in pixels.
        reduced: Whether pictures are smaller here than the run stores them.
    """

    images: tuple[int, ...]
    uris: dict[str, str]
    height: int
    width: int
    reduced: bool

    @property
    def styles(self) -> tuple[tuple[str, str], ...]:
        """Name and data URI of every sheet, in order: ``sheet0``, ``sheet1``."""
        return tuple((f"sheet{number}", uri) for number, uri in enumerate(self.uris.values()))

    def place(self, cell: str, image: int) -> tuple[str, int] | None:
        """Returns the style of a picture's sheet and its place there; None where it is not on any."""
        if cell not in self.uris or image not in self.images:
            return None
        return f"sheet{list(self.uris).index(cell)}", self.images.index(image)


def webp_uri(image: NDArray[np.uint8], quality: int = QUALITY) -> str:
    """Returns an image (H, W, 3) as a WebP data URI, which is not exactly what was stored."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def preferred_images(count: int, first: Sequence[int], wanted: int) -> list[int]:
    """Returns up to ``wanted`` places in ``range(count)``: those of ``first``, then others spread over the whole.

    Any beginning of the list is spread so too: it follows van der Corput's sequence, which halves what is left.
    """
    found = list(dict.fromkeys(place for place in first if 0 <= place < count))
    step = 1
    while len(found) < min(wanted, count):
        binary = f"{step:b}"
        place = int(count * int(binary[::-1], 2) / 2 ** len(binary))
        found += [] if place in found else [place]
        step += 1
    return found[:wanted]


def _sheet(pictures: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Sets pictures (K, H, W, 3) side by side, each of ``size`` (height, width)."""
    height, width = size
    if pictures.shape[1:3] != size:
        small = [Image.fromarray(p).resize((width, height), Image.Resampling.LANCZOS) for p in pictures]
        pictures = np.stack([np.asarray(p) for p in small])
    return np.ascontiguousarray(np.concatenate(list(pictures), axis=1))


def picture_sheets(run: LoadedRun, cells: Sequence[str], first: Sequence[int]) -> Sheets | None:
    """Builds the sheets of a run, of as many images as ``BUDGET_BYTES`` allows, and of six whatever they take.

    Args:
        run: The run.
        cells: The cells to show.
        first: Places of images that are to be among them, the most wanted first.

    Returns:
        The sheets, without the cells that the run stores no picture of; None where it stores none at all.
    """
    files = PictureFiles.of(run)
    scale = min(1.0, LARGEST_SIDE / max(files.height, files.width, 1))
    size = (max(1, round(files.height * scale)), max(1, round(files.width * scale)))
    images = preferred_images(files.count, first, MOST_IMAGES)
    stored: dict[str, NDArray[np.uint8]] = {}
    for key in ("originals", *cells):
        whole = files.sheet(key)
        if whole is not None and images:
            stored[key] = whole[images]
    if not stored:
        return None
    while True:
        order = sorted(range(len(images)), key=images.__getitem__)
        uris = {key: webp_uri(_sheet(pictures[order], size)) for key, pictures in stored.items()}
        taken = sum(map(len, uris.values()))
        if taken <= BUDGET_BYTES or len(images) <= _FEWEST:
            return Sheets(tuple(sorted(images)), uris, *size, scale < 1.0)
        images = images[: max(_FEWEST, min(len(images) - 1, int(len(images) * BUDGET_BYTES / taken)))]
