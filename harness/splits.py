"""Keeps splits apart: finds images that are the same picture, though not the same bytes.

Equal content has equal identifiers. Near duplicates are found by the structure of their brightness at 64 x 64 px, which
survives recompression, a change of brightness or contrast, and a shift of up to 1/32 of the side. Mirrored, rotated
and rescaled copies are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import DataError
from harness.images import ImageSet

SIDE = 64
MAX_SHIFT = 2
WINDOW = SIDE - 2 * MAX_SHIFT
SHIFTS = tuple((down, right) for down in range(2 * MAX_SHIFT + 1) for right in range(2 * MAX_SHIFT + 1))
"""Where windows of the second image start; those of the first start at MAX_SHIFT, so that shifts go both ways."""

COARSE_SIMILARITY = 0.85
"""Correlation of 10 x 10 structure that makes a candidate. Copies keep 0.93."""
FINE_SIMILARITY = 0.77
"""Correlation of 60 x 60 structure that makes a near duplicate. Different parts of one brick wall reach 0.72."""
SMOOTH_RESIDUAL = 4.0
"""Near duplicates are also those whose difference after gain and offset, of 255, is below this times their similarity:
recompression takes the fine structure of smooth images away. Across the bright rim of one retina it is 5 times or more,
unless nearly all of the image is black."""
FLAT_CONTRAST, FLAT_DIFFERENCE = 2.0, 3.0
"""Below 2/255 standard deviation an image has no structure; two such are alike where mean colours differ by < 3/255."""
NOISE = 2.0
"""Local contrast, of 255, that is taken for noise and not amplified."""

LOOKED_FOR = (
    "the same content",
    "recompressed, of another brightness or contrast, or shifted by up to 1/32 of the side",
)

CHUNK = 256
"""Images compared with all others at a time."""


class _Described(NamedTuple):
    """What comparisons need of N images: brightness (N, 1, 64, 64), mean colour (N, 3), and which have no structure."""

    brightness: Tensor
    colour: Tensor
    flat: Tensor

    def select(self, rows: Tensor) -> _Described:
        return _Described(self.brightness[rows], self.colour[rows], self.flat[rows])


def _describe(images: ImageSet) -> _Described:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    brightness, colour = list[Tensor](), list[Tensor]()
    for part in images.batches(512):
        pixels = part.pixels.float()
        brightness.append(functional.adaptive_avg_pool2d((pixels * weights).sum(1, keepdim=True), SIDE))
        colour.append(pixels.mean((2, 3)))
    light = torch.cat(brightness)
    return _Described(light, torch.cat(colour), light.flatten(1).std(1) < FLAT_CONTRAST)


def _window(brightness: Tensor, shift: tuple[int, int], cells: int) -> Tensor:
    """Cuts the window that starts at ``shift`` and reduces it to (N, 1, cells, cells)."""
    down, right = shift
    window = brightness[:, :, down : down + WINDOW, right : right + WINDOW]
    return functional.avg_pool2d(window, WINDOW // cells)


def _local_mean(values: Tensor, cells: int) -> Tensor:
    return functional.avg_pool2d(values, cells, stride=1, padding=cells // 2, count_include_pad=False)


def _unit(values: Tensor) -> Tensor:
    """Returns rows of zero mean and unit length."""
    flat = values.flatten(1)
    return functional.normalize(flat - flat.mean(1, keepdim=True), eps=1e-6)


def _coarse(brightness: Tensor, shift: tuple[int, int]) -> Tensor:
    """Returns (N, 100): brightness less its surroundings."""
    values = _window(brightness, shift, 10)
    return _unit(values - _local_mean(values, 3))


def _fine(brightness: Tensor, shift: tuple[int, int]) -> Tensor:
    """Returns (N, 3600): brightness less its surroundings, over their contrast.

    Without the division one strong edge, a horizon or the rim of a disc, makes unrelated images look the same.
    """
    values = _window(brightness, shift, 60)
    mean = _local_mean(values, 9)
    contrast = (_local_mean(values * values, 9) - mean * mean).clamp_min(0).sqrt()
    return _unit((values - mean) / (contrast + NOISE))


def _plain(brightness: Tensor, shift: tuple[int, int]) -> Tensor:
    return _unit(_window(brightness, shift, 30))


def _paired(feature: Callable[[Tensor, tuple[int, int]], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Returns (shifts, P) correlations of the pairs (a[p], b[p])."""
    centre = feature(a, (MAX_SHIFT, MAX_SHIFT))
    return torch.stack([(centre * feature(b, shift)).sum(1) for shift in SHIFTS])


def _alike(a: Tensor, b: Tensor) -> Tensor:
    """Decides for pairs of brightness (P, 1, 64, 64) at the best shift whether they are near duplicates, (P,) bool."""
    similarity, best = _paired(_fine, a, b).max(0)
    plain = _paired(_plain, a, b).gather(0, best[None])[0]
    spread = torch.minimum(a.flatten(1).std(1), b.flatten(1).std(1))
    residual = spread * (1 - plain * plain).clamp_min(0).sqrt()
    smooth = (plain > 0) & (residual < SMOOTH_RESIDUAL * similarity)
    return (similarity > FINE_SIMILARITY) | smooth


def _matches(a: _Described, b: _Described, bank: Tensor, skip: Tensor | None = None) -> Tensor:
    """Finds the near duplicates between few images and many.

    Args:
        a: The few, A.
        b: The many, B.
        bank: (shifts, B, 100) coarse structure of ``b`` at every shift.
        skip: (A, B) bool, pairs that need no answer.

    Returns:
        (P, 2) positions in ``a`` and ``b``.
    """
    coarse = torch.full((len(a.flat), len(b.flat)), -1.0)
    centre = _coarse(a.brightness, (MAX_SHIFT, MAX_SHIFT))
    for shifted in bank:
        torch.maximum(coarse, centre @ shifted.T, out=coarse)
    flat = a.flat[:, None] & b.flat
    same_colour = torch.cdist(a.colour, b.colour, p=float("inf")) < FLAT_DIFFERENCE
    candidate = torch.where(flat, same_colour, (coarse > COARSE_SIMILARITY) & ~(a.flat[:, None] | b.flat))
    pairs = torch.nonzero(candidate if skip is None else candidate & ~skip)
    found = [pairs[:0]]
    for start in range(0, len(pairs), CHUNK):
        part = pairs[start : start + CHUNK]
        i, j = part.T
        found.append(part[flat[i, j] | _alike(a.brightness[i], b.brightness[j])])
    return torch.cat(found)


def _bank(images: _Described) -> Tensor:
    return torch.stack([_coarse(images.brightness, shift) for shift in SHIFTS])


def _pairs(few: _Described, many: _Described, chunk: int) -> list[tuple[int, int]]:
    bank, pairs = _bank(many), list[tuple[int, int]]()
    for start in range(0, len(few.flat), chunk):
        rows = torch.arange(start, min(start + chunk, len(few.flat)))
        found = _matches(few.select(rows), many, bank)
        pairs += [(int(rows[i]), int(j)) for i, j in found.tolist()]
    return sorted(pairs)


def near_duplicates(a: ImageSet, b: ImageSet, chunk: int = CHUNK) -> list[tuple[int, int]]:
    """Finds the pairs of near duplicates between two sets.

    Coarse structure, a matrix product a shift, leaves few candidates; fine structure decides on each of them.

    Args:
        a: One set.
        b: The other; where it is the same set, every image pairs with itself too.
        chunk: Images of ``a`` a matrix product.

    Returns:
        Pairs (position in ``a``, position in ``b``), sorted.
    """
    return _pairs(_describe(a), _describe(b), chunk) if len(a) and len(b) else []


def duplicate_groups(images: ImageSet, chunk: int = CHUNK) -> Tensor:
    """Numbers the clusters of duplicates and near duplicates, chains included.

    Args:
        images: The set.
        chunk: Images a matrix product.

    Returns:
        (N,) int64 from 0 in order of first occurrence; images with equal numbers belong in one split.
    """
    count = len(images)
    if not count:
        return torch.empty(0, dtype=torch.long)
    described = _describe(images)
    bank = _bank(described)
    first: dict[str, int] = {}
    group = torch.tensor([first.setdefault(image_id, i) for i, image_id in enumerate(images.ids)], dtype=torch.long)
    for start in range(0, count, chunk):
        rows = torch.arange(start, min(start + chunk, count))
        # Pairs already joined are skipped, and so is one half of the square.
        skip = (group[rows, None] == group) | (torch.arange(count) < start)
        for i, j in _matches(described.select(rows), described, bank, skip).tolist():
            low, high = sorted((int(group[rows[i]]), int(group[j])))
            group[group == high] = low
    numbers: dict[int, int] = {}
    return torch.tensor([numbers.setdefault(number, len(numbers)) for number in group.tolist()], dtype=torch.long)


def check_disjoint(sets: Mapping[str, ImageSet]) -> None:
    """Checks that no two splits share an image, be it the same one or a near duplicate.

    Args:
        sets: Splits by name.

    Raises:
        DataError: Two splits share an image; names the splits and the first pair.
    """
    described = {name: _describe(images) for name, images in sets.items() if len(images)}
    for name_a, name_b in combinations(described, 2):
        a, b = sets[name_a], sets[name_b]
        position = {image_id: i for i, image_id in enumerate(a.ids)}
        pairs = [(position[image_id], j) for j, image_id in enumerate(b.ids) if image_id in position]
        what = "the same image"
        if not pairs:
            pairs, what = _pairs(described[name_a], described[name_b], CHUNK), "near duplicates"
        if pairs:
            i, j = pairs[0]
            raise DataError(
                f"image {i} ({a.ids[i]}) and image {j} ({b.ids[j]}) are {what}, the first of {len(pairs)} such pairs",
                where=f"splits {name_a!r} and {name_b!r}",
                mend="keep both in one split, or leave one out",
            )
