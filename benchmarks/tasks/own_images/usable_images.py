"""Makes usable images of decoded ones: each content once, none with two labels, those that depend on others grouped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leakgauge.harness.contracts.reading import CopySearch
from leakgauge.harness.measurement.near_duplicates import LOOKED_FOR, find_copies
from leakgauge.harness.values.images import ImageSet

EXACT, CONTRADICTING = "exact copies", "copies with contradicting labels"


class Usable(NamedTuple):
    """Images sorted by content, how many were left out by cause, and the copies looked for and found."""

    images: ImageSet
    skipped: Counter[str]
    copies: CopySearch


def usable(decoded: ImageSet, own_groups: Sequence[str] | None = None, grouped_by: str = "") -> Usable:
    """Leaves copies out and groups what is not independent.

    Args:
        decoded: All images that could be decoded.
        own_groups: For each image the group that the user puts it in; an empty text stands for one of its own.
        grouped_by: What named these groups, in words.
    """
    kept, skipped = _without_copies(decoded)
    images = decoded.select(kept)
    groups, kinds = find_copies(images)
    near = int((torch.bincount(groups)[groups] > 1).sum()) if len(groups) else 0
    if own_groups is not None:
        named: dict[str, set[str]] = {}
        for image_id, name in zip(decoded.ids, own_groups, strict=True):
            named.setdefault(image_id, set()).update({name} - {""})
        groups = _joined(groups, [named[image_id] for image_id in images.ids])
    found = {"exact copies": skipped[EXACT], "contradicting copies": skipped[CONTRADICTING], "near copies": near}
    found |= {f"pairs that are {kind}": count for kind, count in sorted(kinds.items())}
    return Usable(
        ImageSet(images.pixels, images.ids, images.labels, groups), skipped, CopySearch(LOOKED_FOR, found, grouped_by)
    )


def _without_copies(images: ImageSet) -> tuple[list[int], Counter[str]]:
    """Keeps one image of each content, none where its copies carry different labels; sorts them by content."""
    labels = [0] * len(images) if images.labels is None else images.labels.tolist()
    seen: dict[str, set[int]] = {}
    first: dict[str, int] = {}
    for i, image_id in enumerate(images.ids):
        seen.setdefault(image_id, set()).add(labels[i])
        first.setdefault(image_id, i)
    kept = [i for image_id, i in first.items() if len(seen[image_id]) == 1]
    contradicting = sum(len(seen[image_id]) > 1 for image_id in images.ids)
    skipped = Counter({EXACT: len(images) - len(kept) - contradicting, CONTRADICTING: contradicting})
    return sorted(kept, key=images.ids.__getitem__), skipped


def _joined(groups: Tensor, own: Sequence[Collection[str]]) -> Tensor:
    """Joins clusters that share a group of the user's; returns (N,) int64 from 0 in order of first occurrence."""
    above: dict[int | str, int | str] = {}

    def top(node: int | str) -> int | str:
        while node in above:
            node = above[node]
        return node

    for number, names in zip(groups.tolist(), own, strict=True):
        for name in sorted(names):
            a, b = top(number), top(name)
            if a != b:
                above[b] = a
    numbers: dict[int | str, int] = {}
    return torch.tensor([numbers.setdefault(top(g), len(numbers)) for g in groups.tolist()], dtype=torch.long)
