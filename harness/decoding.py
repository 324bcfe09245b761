"""Decodes image files safely: upright, RGB, the centre square reduced to the size that a victim takes."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_FILE_BYTES = 64 * 2**20
MAX_SOURCE_PIXELS = 64_000_000
"""Limit on one image before it is reduced: a small file may decode to gigabytes."""


def upright_rgb(data: bytes) -> Image.Image:
    """Decodes one image, turned upright as its EXIF orientation says.

    Raises:
        ValueError: It is too large, or of a kind that has no RGB form. PIL raises much else where data is broken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of odd metadata; its size warning is the check below
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_SOURCE_PIXELS:
                raise ValueError(f"{width} x {height} px is above the limit of {MAX_SOURCE_PIXELS:,} px")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # PIL would clip 16 bits to 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if upright.mode in {"I", "F"}:
                raise ValueError(f"pixel mode {upright.mode} has no fixed range")
            return upright.convert("RGB")


def centre_square(image: Image.Image, px: int) -> Tensor:
    """Returns the centre square of an RGB image as (3, px, px) uint8, by an antialiased bicubic filter."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.resize((px, px), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def decode(data: bytes, px: int) -> Tensor:
    """Decodes one image and reduces its centre square: (3, px, px) uint8. Raises as ``upright_rgb`` does."""
    return centre_square(upright_rgb(data), px)
