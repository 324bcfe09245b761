"""Keeps splits apart: finds images that are the same picture, though not the same bytes (``measurement.copies``).

Equal content has equal identifiers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from leakgauge.harness.errors import DataError
from leakgauge.harness.measurement.copies import CHUNK, LOOKED_FOR, Bank, CopyPair, Described, describe
from leakgauge.harness.values.images import ImageSet

__all__ = ["LOOKED_FOR", "Copies", "check_disjoint", "duplicate_groups", "find_copies"]


class Copies(NamedTuple):
    """Clusters of copies: (N,) int64 from 0 in order of first occurrence; and the pairs found, by how they differ.

    Pairs that earlier ones join already are not counted.
    """

    groups: Tensor
    found: Counter[str]


def _pairs(few: Described, bank: Bank, chunk: int) -> list[CopyPair]:
    found = list[CopyPair]()
    for start in range(0, len(few.flat), chunk):
        rows = torch.arange(start, min(start + chunk, len(few.flat)))
        found += [CopyPair(start + i, j, kind) for i, j, kind in bank.search(few.select(rows))]
    return sorted(found)


def duplicate_groups(images: ImageSet, chunk: int = CHUNK) -> Tensor:
    """Numbers the clusters of duplicates and near duplicates; see ``find_copies``."""
    return find_copies(images, chunk).groups


def find_copies(images: ImageSet, chunk: int = CHUNK) -> Copies:
    """Finds the clusters of duplicates and near duplicates, chains included.

    Args:
        images: The set.
        chunk: Images a matrix product.

    Returns:
        The clusters; images of one belong in one split.
    """
    count, kinds = len(images), Counter[str]()
    if not count:
        return Copies(torch.empty(0, dtype=torch.long), kinds)
    described = describe(images)
    bank = Bank(described)
    first: dict[str, int] = {}
    group = torch.tensor([first.setdefault(image_id, i) for i, image_id in enumerate(images.ids)], dtype=torch.long)
    for start in range(0, count, chunk):
        rows = torch.arange(start, min(start + chunk, count))
        # Pairs already joined are skipped, and so is one half of the square.
        skip = (group[rows, None] == group) | (torch.arange(count) < start)
        for i, j, kind in bank.search(described.select(rows), skip):
            low, high = sorted((int(group[rows[i]]), int(group[j])))
            if low != high:
                kinds[kind] += 1
                group[group == high] = low
    numbers: dict[int, int] = {}
    renumbered = [numbers.setdefault(number, len(numbers)) for number in group.tolist()]
    return Copies(torch.tensor(renumbered, dtype=torch.long), kinds)


def check_disjoint(sets: Mapping[str, ImageSet]) -> None:
    """Checks that no two splits share an image, be it the same one or a near duplicate.

    Args:
        sets: Splits by name.

    Raises:
        DataError: Two splits share an image; names the splits and the first pair.
    """
    described = {name: describe(images) for name, images in sets.items() if len(images)}
    banks = {name: Bank(images) for name, images in described.items()}
    for name_a, name_b in combinations(described, 2):
        a, b = sets[name_a], sets[name_b]
        position = {image_id: i for i, image_id in enumerate(a.ids)}
        pairs = [CopyPair(position[image_id], j, "") for j, image_id in enumerate(b.ids) if image_id in position]
        what = "the same image"
        if not pairs:
            # The larger set is prepared once, the smaller one searched through it.
            if len(a) < len(b):
                pairs = _pairs(described[name_a], banks[name_b], CHUNK)
            else:
                pairs = sorted(CopyPair(j, i, kind) for i, j, kind in _pairs(described[name_b], banks[name_a], CHUNK))
            what = f"near duplicates ({pairs[0].kind})" if pairs else ""
        if pairs:
            i, j, _ = pairs[0]
            raise DataError(
                f"image {i} ({a.ids[i]}) and image {j} ({b.ids[j]}) are {what}, the first of {len(pairs)} such pairs",
                where=f"splits {name_a!r} and {name_b!r}",
                hint="keep both in one split, or leave one out",
            )
