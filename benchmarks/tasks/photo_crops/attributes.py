"""Private attributes of photo crops: how bright and how busy a crop is for its scene.

Both are relative to the crops of the same scene, so that the class of a crop does not give them away, and no quarter
turn changes them. They are computed in integers, and are therefore the same on every machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.benchmarks.tasks.photo_crops.crops import SIDES
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.images import ImageSet

BATCH = 64


def brightness(pixels: Tensor) -> Tensor:
    """Returns (B,) int64 sums over all pixels and channels of uint8 crops (B, 3, H, W)."""
    # Converted first, in parts: summing bytes into int64 at once takes fifty times as long.
    return torch.cat([part.flatten(1).int().sum(dim=1) for part in torch.split(pixels, BATCH)])


def detail(pixels: Tensor) -> Tensor:
    """Returns (B,) int64 sums of the absolute Laplacian of the luminance of uint8 crops (B, 3, H, W).

    The luminance is that of ITU-R BT.601 times 1000; the Laplacian is that of the four neighbours, inside the border.
    """
    weights = torch.tensor([299, 587, 114], dtype=torch.int32).view(1, 3, 1, 1)
    sums = []
    for part in torch.split(pixels, BATCH):
        luminance = (part.int() * weights).sum(dim=1, dtype=torch.int32)
        centre = luminance[:, 1:-1, 1:-1]
        across = luminance[:, 1:-1, :-2] + luminance[:, 1:-1, 2:]
        down = luminance[:, :-2, 1:-1] + luminance[:, 2:, 1:-1]
        sums.append((4 * centre - across - down).abs().sum(dim=(1, 2), dtype=torch.int64))
    return torch.cat(sums)


MEASURES = {"brightness": brightness, "detail": detail}


def scene_of(images: ImageSet) -> Tensor:
    """Returns the scene number (B,) of crops, from their class.

    Raises:
        DataError: The crops carry no class.
    """
    if images.labels is None:
        raise DataError("the crops carry no class", where="task 'photos'", hint="take them from `split`")
    return images.labels // len(SIDES)


class SceneMedians:
    """The median of each attribute's measure in each scene.

    Args:
        public: Crops to take the medians over: the attacker's.
    """

    def __init__(self, public: ImageSet) -> None:
        scenes = scene_of(public)
        count = int(scenes.max()) + 1
        self._medians: dict[str, Tensor] = {}
        for name, measure in MEASURES.items():
            values = measure(public.pixels)
            self._medians[name] = torch.stack([values[scenes == scene].median() for scene in range(count)])

    def attributes(self, images: ImageSet) -> dict[str, Tensor]:
        """Returns for each attribute (B,) int64: 1 above the median of the crop's scene, else 0."""
        scenes = scene_of(images)
        return {
            name: (measure(images.pixels) > self._medians[name][scenes]).long() for name, measure in MEASURES.items()
        }
