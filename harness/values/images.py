"""ImageSet: images with the identifiers, labels and groups that keep splits disjoint and intervals honest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from leakgauge.harness.errors import DataError


def content_id(pixels: Tensor) -> str:
    """Returns the content hash of one uint8 image (3, H, W): 16 hex digits of SHA-256 over shape and bytes."""
    digest = hashlib.sha256(str(tuple(pixels.shape)).encode())
    digest.update(pixels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


SplitName = Literal["attacker", "calibration", "search", "evaluation"]
SPLITS: tuple[SplitName, ...] = ("attacker", "calibration", "search", "evaluation")


@dataclass(frozen=True)
class ImageSet:
    """Images of one split, in a fixed order.

    Args:
        pixels: (N, 3, H, W) uint8 RGB.
        ids: N identifiers; equal content has equal identifiers.
        labels: (N,) int64 task labels, or None where the images carry none.
        groups: (N,) int64 cluster of images that are not independent of one another (crops of one region, say);
            bootstrap intervals resample clusters. Defaults to one cluster an image.
    """

    pixels: Tensor
    ids: tuple[str, ...]
    labels: Tensor | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            raise DataError(f"images must be uint8 (N, 3, H, W), got {self.pixels.dtype} {tuple(self.pixels.shape)}")
        for name, column in (("ids", self.ids), ("labels", self.labels), ("groups", self.groups)):
            if column is not None and len(column) != len(self.pixels):
                raise DataError(f"{len(column)} {name} for {len(self.pixels)} images")

    @classmethod
    def from_pixels(cls, pixels: Tensor, labels: Tensor | None = None, groups: Tensor | None = None) -> ImageSet:
        """Builds a set from uint8 pixels (N, 3, H, W), with content hashes as identifiers."""
        return cls(pixels, tuple(content_id(image) for image in pixels), labels, groups)

    def __len__(self) -> int:
        return len(self.ids)

    def images(self) -> Tensor:
        """Returns the images as float32 (N, 3, H, W) in [0, 1]."""
        return self.pixels.float() / 255.0

    def select(self, index: Sequence[int] | Tensor) -> ImageSet:
        """Returns the images at ``index``, in that order."""
        rows = torch.as_tensor(index, dtype=torch.long)
        return ImageSet(
            self.pixels[rows],
            tuple(self.ids[i] for i in rows.tolist()),
            None if self.labels is None else self.labels[rows],
            None if self.groups is None else self.groups[rows],
        )

    def distinct(self) -> ImageSet:
        """Returns each content once, its first image, in the order of the identifiers."""
        first = {image_id: row for row, image_id in reversed([*enumerate(self.ids)])}
        return self.select([first[image_id] for image_id in sorted(first)])

    def evenly_spaced(self, count: int | None) -> ImageSet:
        """Returns ``count`` images evenly spaced over the set, in order; all where None or where there are no more."""
        if count is None or count >= len(self):
            return self
        return self.select(torch.from_numpy(np.unique(np.linspace(0, len(self) - 1, count).round().astype(np.int64))))

    def batches(self, size: int) -> Iterator[ImageSet]:
        """Yields consecutive batches of at most ``size`` images."""
        for start in range(0, len(self), size):
            yield self.select(range(start, min(start + size, len(self))))

    def clone(self) -> ImageSet:
        """Returns the set on memory of its own, which may be written into."""
        labels, groups = (None if column is None else column.clone() for column in (self.labels, self.groups))
        return ImageSet(self.pixels.clone(), self.ids, labels, groups)

    def apart(self) -> ImageSet:
        """Returns the set on memory that holds nothing else; pixels are copied only where they lie among others."""
        pixels = self.pixels if self.pixels.untyped_storage().nbytes() == self.pixels.nbytes else self.pixels.clone()
        labels, groups = (None if column is None else column.clone() for column in (self.labels, self.groups))
        return ImageSet(pixels, self.ids, labels, groups)

    def digest(self) -> str:
        """Returns a content hash of the whole set, order included."""
        labels = "" if self.labels is None else ",".join(map(str, self.labels.tolist()))
        return hashlib.sha256(("|".join(self.ids) + "#" + labels).encode()).hexdigest()[:16]

    def full_digest(self) -> str:
        """Returns a hash of identifiers, labels and pixels, for what outlives the process: a file may have changed."""
        digest = hashlib.sha256(self.digest().encode())
        digest.update(str(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
