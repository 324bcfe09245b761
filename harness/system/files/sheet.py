"""Sheets: many images of one size on one PNG, row by row, with a checksum over whose they are and every pixel."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from leakgauge.harness.errors import StoreError
from leakgauge.harness.system.files.bounded_file import MIB, read_bytes

MAX_SHEET_BYTES = 2048 * MIB
_CHECKSUM = "checksum"
_LAST_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"


def _checksum(key: str, canvas: NDArray[np.uint8]) -> str:
    about = f"{key} {canvas.shape} ".encode()
    return hashlib.blake2b(about + np.ascontiguousarray(canvas).tobytes(), digest_size=16).hexdigest()


def sheet(images: NDArray[np.uint8], key: str) -> bytes:
    """Lays uint8 images (N, H, W, 3) on one PNG, row by row; ``key`` names whose they are."""
    count, height, width, _ = images.shape
    columns = max(1, int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    canvas = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    stream = io.BytesIO()
    about = PngInfo()
    about.add_text(_CHECKSUM, _checksum(key, canvas))
    Image.fromarray(canvas).save(stream, format="PNG", pnginfo=about)
    return stream.getvalue()


def read_sheet(path: Path, size: tuple[int, int], count: int, key: str) -> NDArray[np.uint8]:
    """Reads a PNG of a known size as (height, width, 3); one of another size is not decoded.

    Raises:
        StoreError: It is no such PNG, it has changed since it was written, or it is that of another key. PNGs of
            earlier versions carry no checksum.
    """
    data = read_bytes(path, MAX_SHEET_BYTES, hint="run it again")
    try:
        _check_chunks(data)
        # Not Image.open, which refuses large sheets: how large this one may be is known.
        with PngImageFile(io.BytesIO(data)) as image:
            found = image.size
            if found == size:
                # Before the pixels: a decoder may well miss a bit that has changed in them.
                stated = image.info.get(_CHECKSUM)
                canvas = np.asarray(image.convert("RGB"))
    except Exception as error:  # PIL raises many kinds for damaged files
        what = f"cannot read the images: {error or type(error).__name__}"
        raise StoreError(what, where=str(path), hint="run it again") from error
    if found == size:
        if stated is not None and stated != _checksum(key, canvas):
            raise StoreError(
                "cannot read the images: their checksum fails",
                where=str(path),
                hint="run it again to measure them again",
            )
        return canvas
    raise StoreError(f"a sheet of {found} pixels does not hold {count} images", where=str(path), hint="run it again")


def _check_chunks(data: bytes) -> None:
    """Raises where a bit of the file has changed, though perhaps no pixel: decoders differ in what they overlook."""
    with PngImageFile(io.BytesIO(data)) as image:
        image.verify()  # every chunk's own checksum, but that of the last
    if not data.endswith(_LAST_CHUNK):
        raise ValueError("its end is damaged")
