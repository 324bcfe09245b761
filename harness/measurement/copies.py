"""Finds images that are the same picture, though not the same bytes: recompressed, cropped, framed, mirrored, turned.

First a matrix product for each way in which a window of one image may show a window of another, on 8 x 8 cells, leaves
few candidates. Each of them is then aligned, and the fine structure of its brightness decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from leakgauge.harness.values.images import ImageSet

SIDE = 64
MAX_SHIFT = 2
WINDOW = SIDE - 2 * MAX_SHIFT
SHIFTS = tuple((down, right) for down in range(2 * MAX_SHIFT + 1) for right in range(2 * MAX_SHIFT + 1))
"""Where windows of the second image start; those of the first start at MAX_SHIFT, so that shifts go both ways."""

COARSE_SIMILARITY = 0.84
"""Correlation of 8 x 8 structure that makes a candidate. Copies keep 0.9, with a wide frame or partly outside 0.84."""
UNMOVED_SIMILARITY = 0.78
"""The same for two images as they are, which are compared at 25 shifts and not aligned. Shifts cost it up to 0.2."""
ALIGNED_SIMILARITY = 0.8
"""Correlation of 12 x 12, then of 30 x 30 structure while aligning, below which it ends. Copies keep 0.9."""
FINE_SIMILARITY = 0.77
"""Correlation of 60 x 60 structure that makes a near copy. Different parts of one brick wall reach 0.72."""
MOVED_SIMILARITY = 0.88
"""The same for images that were cut, mirrored or turned to fit, which gives chance more room: the brick wall reaches
0.80, two crops of one photograph 0.86. Copies that are cropped by a twentieth on each side keep 0.92 to 0.97."""
SMOOTH_RESIDUAL = 4.0
"""Near copies are also those whose difference after gain and offset, of 255, is below this times their similarity:
recompression takes the fine structure of smooth images away. Across the bright rim of one retina it is 5 times or more,
unless nearly all of the image is black. It decides for images as they are only: mirrored, turned and cropped, smooth
images look all the same."""
FLAT_CONTRAST, FLAT_DIFFERENCE = 2.0, 3.0
"""Below 2/255 standard deviation an image has no structure; two such are alike where mean colours differ by < 3/255."""
NOISE = 2.0
"""Local contrast, of 255, that is taken for noise and not amplified."""
CELLS, CELL = 8, 4
_Step = tuple[int, tuple[float, ...], tuple[float, ...]]
_SHIFTED: tuple[_Step, ...] = ((12, (1.0,), (-0.03, 0.0, 0.03)),)
_SEARCH: tuple[_Step, ...] = (
    (12, (0.95, 1.0, 1.05), (-0.03, 0.0, 0.03)),
    (30, (0.98, 1.0, 1.02), (-0.01, 0.0, 0.01)),
)
"""Cells on which alignment compares, and the factors and shares of the side by which it moves a window."""

CHUNK, CANDIDATES = 256, 1024
"""Images compared with all others, and candidates decided on, at a time."""

Place = tuple[float, float, float]
"""A square window: top, left and side, as shares of the image's side."""
WHOLE: Place = (0.0, 0.0, 1.0)
MIDDLE: Place = (0.06, 0.06, 0.88)
_OFF_MIDDLE: tuple[Place, ...] = tuple(
    (top, left, 0.88) for top, left in product((0.0, 0.06, 0.12), repeat=2) if (top, left) != (0.06, 0.06)
)
PARTS: tuple[Place, ...] = (
    *((round((1 - side) / 2, 2), round((1 - side) / 2, 2), side) for side in (0.94, 0.88, 0.8, 0.72, 0.64)),
    *_OFF_MIDDLE,
)
"""Windows that may be all that a cropped copy shows, or all that is not frame. They need not fit better than 5 %."""
WAYS: tuple[tuple[Place, Place], ...] = (
    (WHOLE, WHOLE),
    *((WHOLE, part) for part in PARTS),
    *((part, WHOLE) for part in PARTS),
    *((MIDDLE, part) for part in _OFF_MIDDLE),
)
VIEWS = tuple((mirrored, turns) for turns in range(4) for mirrored in (False, True))
"""As it is and mirrored, each in four turns. Turned images are compared as wholes only."""
LOOKED_FOR = (
    "the same content",
    "recompressed, resized, grey, brighter or darker, of more or less contrast",
    "cropped or shifted by up to 1/8 of the side, framed by up to 1/5 on each side",
    "mirrored, and each of these mirrored",
    "turned by 90, 180 or 270 degrees, mirrored or not",
)


class Described(NamedTuple):
    """What comparisons need of N images: brightness (N, 1, 64, 64), mean colour (N, 3), and which have no structure."""

    brightness: Tensor
    colour: Tensor
    flat: Tensor

    def select(self, rows: Tensor) -> Described:
        """Returns the images at ``rows``."""
        return Described(self.brightness[rows], self.colour[rows], self.flat[rows])


class CopyPair(NamedTuple):
    """Two positions that hold the same picture, and how the second differs: ``mirrored``, say."""

    first: int
    second: int
    kind: str


def describe(images: ImageSet) -> Described:
    """Returns the descriptions of one image or more."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    brightness, colour = list[Tensor](), list[Tensor]()
    for part in images.batches(512):
        pixels = part.pixels.float()
        brightness.append(functional.adaptive_avg_pool2d((pixels * weights).sum(1, keepdim=True), SIDE))
        colour.append(pixels.mean((2, 3)))
    light = torch.cat(brightness)
    return Described(light, torch.cat(colour), light.flatten(1).std(1) < FLAT_CONTRAST)


def _viewed(brightness: Tensor, view: tuple[bool, int]) -> Tensor:
    mirrored, turns = view
    return torch.rot90(brightness.flip(3) if mirrored else brightness, turns, (2, 3))


def _cut(brightness: Tensor, places: Tensor, cells: int) -> Tensor:
    """Cuts a window of its own, places (N, 3), from each image, and samples it on (N, 1, cells, cells)."""
    steps = (torch.arange(cells) + 0.5) / cells
    down, right = (2 * (places[:, k, None] + steps * places[:, 2, None]) - 1 for k in (0, 1))
    grid = torch.stack((right[:, None, :].expand(-1, cells, -1), down[:, :, None].expand(-1, -1, cells)), dim=-1)
    return functional.grid_sample(brightness, grid, padding_mode="border", align_corners=False)


def _local_mean(values: Tensor, cells: int) -> Tensor:
    across = functional.avg_pool2d(values, (1, cells), stride=1, padding=(0, cells // 2), count_include_pad=False)
    return functional.avg_pool2d(across, (cells, 1), stride=1, padding=(cells // 2, 0), count_include_pad=False)


def _unit(values: Tensor) -> Tensor:
    """Returns rows of zero mean and unit length."""
    flat = values.flatten(1)
    return functional.normalize(flat - flat.mean(1, keepdim=True), eps=1e-6)


def _structure(values: Tensor, cells: int) -> Tensor:
    """Returns (N, cells * cells): brightness less its surroundings, pooled to cells."""
    pooled = functional.avg_pool2d(values, values.shape[-1] // cells)
    return _unit(pooled - _local_mean(pooled, 5))


def _coarse(brightness: Tensor, place: Place) -> Tensor:
    """Returns (N, 64) structure of a window."""
    places = torch.tensor(place).expand(len(brightness), 3)
    return _structure(_cut(brightness, places, CELLS * CELL), CELLS)


def _window(brightness: Tensor, shift: tuple[int, int], cells: int) -> Tensor:
    """Cuts the window that starts at ``shift`` pixels and reduces it to (N, 1, cells, cells)."""
    down, right = shift
    window = brightness[:, :, down : down + WINDOW, right : right + WINDOW]
    return functional.avg_pool2d(window, WINDOW // cells)


def _contrast(brightness: Tensor) -> Tensor:
    """Returns (N, 1, 64, 64): brightness less its surroundings, over their contrast.

    Without the division one strong edge, a horizon or the rim of a disc, makes unrelated images look the same.
    """
    mean = _local_mean(brightness, 9)
    contrast = (_local_mean(brightness * brightness, 9) - mean * mean).clamp_min(0).sqrt()
    return (brightness - mean) / (contrast + NOISE)


def _fine(contrast: Tensor, shift: tuple[int, int]) -> Tensor:
    """Returns (N, 3600): the window of ``_contrast`` that starts at ``shift`` pixels."""
    return _unit(_window(contrast, shift, 60))


def _plain(brightness: Tensor, shift: tuple[int, int]) -> Tensor:
    return _unit(_window(brightness, shift, 30))


def _paired(feature: Callable[[Tensor, tuple[int, int]], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Returns (shifts, P) correlations of the pairs (a[p], b[p])."""
    centre = feature(a, (MAX_SHIFT, MAX_SHIFT))
    return torch.stack([(centre * feature(b, shift)).sum(1) for shift in SHIFTS])


def _alike(a: Tensor, b: Tensor, *, smooth: bool) -> Tensor:
    """Decides for pairs of brightness (P, 1, 64, 64) at the best shift whether they show the same, (P,) bool.

    Args:
        a: The ones.
        b: The others.
        smooth: Whether they are compared as they are, so that smoothness may decide; otherwise they were moved to fit.
    """
    if not len(a):
        return torch.zeros(0, dtype=torch.bool)
    similarity, best = _paired(_fine, _contrast(a), _contrast(b)).max(0)
    if not smooth:
        return similarity > MOVED_SIMILARITY
    plain = _paired(_plain, a, b).gather(0, best[None])[0]
    spread = torch.minimum(a.flatten(1).std(1), b.flatten(1).std(1))
    residual = spread * (1 - plain * plain).clamp_min(0).sqrt()
    return (similarity > FINE_SIMILARITY) | ((plain > 0) & (residual < SMOOTH_RESIDUAL * similarity))


def _aligned(a: Tensor, b: Tensor, in_a: Tensor, in_b: Tensor, search: Sequence[_Step]) -> tuple[Tensor, Tensor]:
    """Moves windows of the second images until they show what those of the first do.

    Args:
        a: (P, 1, 64, 64) brightness.
        b: Likewise.
        in_a: (P, 3) windows of ``a``.
        in_b: (P, 3) about where they are in ``b``.
        search: What is tried, step by step.

    Returns:
        (P, 3) where they are, and (P,) the correlation there.
    """
    score = torch.full((len(a),), -1.0)
    rows = torch.arange(len(a))
    for cells, scales, steps in search:
        if not len(rows):
            break
        wanted = _structure(_cut(a[rows], in_a[rows], 2 * cells), cells)
        start, best = in_b[rows], torch.full((len(rows),), -2.0)
        for scale, down, right in product(scales, steps, steps):
            side = start[:, 2] * scale
            corner = (start[:, 2] - side) / 2
            moved = torch.stack((start[:, 0] + corner + down, start[:, 1] + corner + right, side), dim=1)
            found = (wanted * _structure(_cut(b[rows], moved, 2 * cells), cells)).sum(1)
            better = found > best
            best = torch.where(better, found, best)
            in_b[rows] = torch.where(better[:, None], moved, in_b[rows])
        score[rows] = best
        rows = rows[best > ALIGNED_SIMILARITY]
    return in_b, score


class Bank:
    """Many images, prepared for being searched for copies of a few.

    Args:
        images: The many.
    """

    def __init__(self, images: Described) -> None:
        self.images = images
        self._coarse = {place: _coarse(images.brightness, place) for place in dict.fromkeys(way[1] for way in WAYS)}

    def search(self, few: Described, skip: Tensor | None = None) -> list[CopyPair]:
        """Finds the near copies of few images.

        Args:
            few: The few, A.
            skip: (A, B) bool, pairs that need no answer.

        Returns:
            Pairs of a position among the few and one in the bank, sorted.
        """
        many = self.images
        own = [{place: _coarse(_viewed(few.brightness, view), place) for place in _ours(view)} for view in VIEWS]
        # The first way of the first view, as they are, has a threshold of its own.
        coarse = own[0][WHOLE] @ self._coarse[WHOLE].T + (COARSE_SIMILARITY - UNMOVED_SIMILARITY)
        for view, described in zip(VIEWS, own, strict=True):
            for ours, theirs in _ways(view):
                torch.maximum(coarse, described[ours] @ self._coarse[theirs].T, out=coarse)
        flat = few.flat[:, None] & many.flat
        same_colour = torch.cdist(few.colour, many.colour, p=float("inf")) < FLAT_DIFFERENCE
        structured = ~(few.flat[:, None] | many.flat)
        keep = torch.ones_like(flat) if skip is None else ~skip
        pairs = [
            CopyPair(i, j, "flat, of the same colour") for i, j in torch.nonzero(flat & same_colour & keep).tolist()
        ]
        candidates = torch.nonzero((coarse > COARSE_SIMILARITY) & structured & keep)
        for start in range(0, len(candidates), CANDIDATES):
            pairs += self._decided(few, candidates[start : start + CANDIDATES], own)
        return sorted(pairs)

    def _decided(self, few: Described, candidates: Tensor, own: Sequence[dict[Place, Tensor]]) -> list[CopyPair]:
        """Returns those of the candidates (P, 2) that are near copies: as they are, or in the way that fits best."""
        i, j = candidates.T
        tried = [(view, way) for view in range(len(VIEWS)) for way in _ways(VIEWS[view])]
        scores = torch.stack([(own[v][ours][i] * self._coarse[theirs][j]).sum(1) for v, (ours, theirs) in tried])
        kinds = [""] * len(i)
        plain = torch.nonzero(scores[0] > UNMOVED_SIMILARITY)[:, 0]
        a, b = few.brightness[i], self.images.brightness[j]
        whole = torch.tensor(WHOLE).repeat(len(plain), 1)
        _, score = _aligned(a[plain], b[plain], whole, whole.clone(), _SHIFTED)
        plain = plain[score > ALIGNED_SIMILARITY]
        for row in plain[_alike(a[plain], b[plain], smooth=True)].tolist():
            kinds[row] = "recompressed or of another brightness"
        best = scores.argmax(0)
        rows = torch.tensor([row for row, kind in enumerate(kinds) if not kind and best[row]], dtype=torch.long)
        view = torch.tensor([v for v, _ in tried])[best[rows]]
        in_a, in_b = (torch.tensor([way[k] for _, way in tried])[best[rows]] for k in (0, 1))
        a, b = a[rows], b[rows]
        for number in set(view.tolist()):
            a[view == number] = _viewed(a[view == number], VIEWS[number])
        in_b, score = _aligned(a, b, in_a, in_b, _SEARCH)
        likely = torch.nonzero(score > ALIGNED_SIMILARITY)[:, 0]
        same = _alike(_cut(a[likely], in_a[likely], SIDE), _cut(b[likely], in_b[likely], SIDE), smooth=False)
        for k in likely[same].tolist():
            kinds[int(rows[k])] = _kind(VIEWS[int(view[k])], float(in_a[k, 2]), float(in_b[k, 2]))
        return [CopyPair(int(i[row]), int(j[row]), kind) for row, kind in enumerate(kinds) if kind]


def _ways(view: tuple[bool, int]) -> tuple[tuple[Place, Place], ...]:
    return WAYS if view[1] == 0 else WAYS[:1]


def _ours(view: tuple[bool, int]) -> list[Place]:
    return list(dict.fromkeys(ours for ours, _ in _ways(view)))


def _kind(view: tuple[bool, int], side_a: float, side_b: float) -> str:
    """Names how two images differ."""
    said = [word for word, so in (("mirrored", view[0]), ("turned", view[1] > 0)) if so]
    if abs(side_a / side_b - 1) > 0.03 or min(side_a, side_b) < 0.95:
        said.append("cropped, shifted or framed")
    return ", ".join(said) or "recompressed or of another brightness"
