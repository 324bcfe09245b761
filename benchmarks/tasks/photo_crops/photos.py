"""Task ``photos``: 56-way classification of crops from scikit-image's photographs by a small trained ViT."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from leakgauge.benchmarks.tasks.drawn_scenes.splits import drawn_scenes
from leakgauge.benchmarks.tasks.photo_crops.attributes import SceneMedians
from leakgauge.benchmarks.tasks.photo_crops.crops import CROP_PX, cut_crops
from leakgauge.benchmarks.victims.photos_vit import load_photos_vit
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import ImageSet, SplitName
from leakgauge.harness.values.seeding import Streams

SHIFTED_IMAGES = 1200
CROPS_PER_CLASS: dict[SplitName, int] = {"attacker": 110, "calibration": 5, "search": 10, "evaluation": 10}


@cache
def crop_set(split: SplitName) -> ImageSet:
    """Returns the crops of a split: 6160 for the attacker (augmented within its own tiles), 560 for evaluation."""
    streams = Streams(0, ("photos", "crops", split))
    crops = cut_crops(split, CROPS_PER_CLASS[split], streams, augment=split == "attacker")
    return ImageSet.from_pixels(
        torch.from_numpy(np.stack([crop.pixels for crop in crops])),
        torch.tensor([crop.label for crop in crops]),
        torch.tensor([crop.tile for crop in crops]),
    )


@cache
def scene_medians() -> SceneMedians:
    """Returns what the attributes of a crop are relative to: the medians over the attacker's crops."""
    return SceneMedians(crop_set("attacker"))


class Photos(Task):
    """Crops of 64 x 64 px in 56 classes: 14 scenes by the side that is lit. Quality is top-1 accuracy.

    The victim was trained on crops of the attacker's tiles, which are public in every threat model; calibration,
    search and evaluation come from other tiles, with a guard band between.
    """

    name = "photos"
    version = 1
    quality_name = "top-1 accuracy"

    def victim(self) -> Victim:
        """Returns the shipped 192 x 6 ViT with 8-px patches."""
        return load_photos_vit()

    def input_px(self) -> int:
        """Side of the crops."""
        return CROP_PX

    def split(self, name: SplitName) -> ImageSet:
        """Returns the crops of a split, grouped by the tile that they come from."""
        return crop_set(name)

    def shifted(self) -> ImageSet:
        """Returns drawn scenes on flat and shaded backgrounds: no photograph, and none of the task's classes."""
        return drawn_scenes(SHIFTED_IMAGES)

    def target(self, images: ImageSet) -> Tensor:
        """Returns class numbers (B,)."""
        if images.labels is None:
            raise ValueError("photos always carries labels")
        return images.labels

    def attributes(self, images: ImageSet) -> dict[str, Tensor]:
        """Returns ``brightness`` and ``detail``, (B,) int64: 1 for crops above the median of their scene, else 0."""
        return scene_medians().attributes(images)

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns 1 where the top class is right, else 0."""
        return (output.argmax(dim=1).cpu() == target).float()
