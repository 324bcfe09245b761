"""Real photographs for the benchmark: the user's folder, or crops of those that scikit-image carries."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from leakgauge.benchmarks.tasks.photo_crops.crops import PHOTOGRAPHS
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams


def photographs(count: int, px: int, folder: Path | None) -> ImageSet:
    """Returns ``count`` images of ``px`` a side.

    Args:
        count: Images wanted.
        px: Side in pixels.
        folder: Folder of JPEG or PNG files, of which the first ones by name are cropped at the centre; None takes
            random crops of scikit-image's photographs, from a fixed seed.

    Raises:
        DataError: The folder has too few images.
    """
    crops = _bundled(count) if folder is None else _centre_crops(count, folder)
    pixels = [np.asarray(crop.resize((px, px), Image.Resampling.BICUBIC)) for crop in crops]
    return ImageSet.from_pixels(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous())


def _bundled(count: int) -> list[Image.Image]:
    rng = Streams(0).child("speed", "crops").numpy()
    crops = []
    for i in range(count):
        photograph = PHOTOGRAPHS[i % len(PHOTOGRAPHS)]
        with Image.open(str(files("skimage.data").joinpath(photograph.file))) as opened:
            image = opened.convert("RGB")
        side = int(rng.integers(128, min(image.size) + 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        crops.append(image.crop((left, top, left + side, top + side)))
    return crops


def _centre_crops(count: int, folder: Path) -> list[Image.Image]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})[:count]
    if len(paths) < count:
        raise DataError(f"{len(paths)} images, {count} needed", where=str(folder), hint="give a larger folder")
    crops = []
    for path in paths:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        crops.append(image.crop((left, top, left + side, top + side)))
    return crops
