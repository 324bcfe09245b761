"""Sheets: many images of one size on one PNG, row by row."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from harness.bounded_file import MIB, read_bytes
from harness.errors import StoreError

MAX_SHEET_BYTES = 2048 * MIB


def sheet(images: NDArray[np.uint8]) -> bytes:
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


def read_sheet(path: Path, size: tuple[int, int], count: int) -> NDArray[np.uint8]:
    """Reads a PNG of a known size as (height, width, 3); one of another size is not decoded.

    Raises:
        StoreError: It is no such PNG.
    """
    data = read_bytes(path, MAX_SHEET_BYTES, mend="run it again")
    try:
        # Not Image.open, which refuses large sheets: how large this one may be is known.
        with PngImageFile(io.BytesIO(data)) as image:
            found = image.size
            if found == size:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # PIL raises many kinds for damaged files
        what = f"cannot read the images: {error or type(error).__name__}"
        raise StoreError(what, where=str(path), mend="run it again") from error
    raise StoreError(f"a sheet of {found} pixels does not hold {count} images", where=str(path), mend="run it again")
