"""Cuts scikit-image's bundled photographs into spatially disjoint splits of labelled crops.

Each photograph is divided into tiles separated by a guard band; every tile belongs to exactly one split, and a
crop never leaves its tile. Tiles of different splits interleave, so that all splits see the same scenes without
ever sharing a pixel. A crop's class is its scene and its lit side: the side towards which its brightness rises.
Naming the scene alone is too easy to show what merging costs; the lit side needs the layout as well.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakgauge.harness.values.images import SplitName
from leakgauge.harness.values.seeding import Streams

CROP_PX = 64
GUARD_PX = 8
SIDES = ("top", "left", "bottom", "right")
MIN_CONTRAST = 5.0
"""Smallest standard deviation of a crop's brightness, of 255: flat crops are alike in all splits."""
MIN_SLOPE = 6.0
"""Smallest difference between the mean brightness of the lit half and of the opposite half, of 255."""
MIN_SLOPE_RATIO = 1.75
"""The lit axis must slope this many times more than the other axis, so that the class is not a coin toss."""

Pixels = NDArray[np.uint8]


class Photograph(NamedTuple):
    """One bundled photograph: file name, integer reduction factor, and tile grid (rows, columns)."""

    file: str
    reduce: int
    rows: int
    columns: int


# Grids keep tiles at about 96 to 140 px a side, so that a 64-px crop has room to move inside its tile.
PHOTOGRAPHS = (
    Photograph("astronaut.png", 1, 4, 4),
    Photograph("brick.png", 1, 4, 4),
    Photograph("camera.png", 1, 4, 4),
    Photograph("chelsea.png", 1, 3, 4),
    Photograph("coffee.png", 1, 4, 5),
    Photograph("coins.png", 1, 3, 4),
    Photograph("grass.png", 1, 4, 4),
    Photograph("gravel.png", 1, 4, 4),
    Photograph("hubble_deep_field.jpg", 1, 7, 8),
    Photograph("ihc.png", 1, 4, 4),
    Photograph("moon.png", 1, 4, 4),
    Photograph("motorcycle_left.png", 1, 4, 6),
    Photograph("retina.jpg", 2, 6, 6),
    Photograph("rocket.jpg", 1, 4, 5),
)
SCENES = tuple(p.file.split(".")[0].split("_")[0] for p in PHOTOGRAPHS)
CLASSES = tuple(f"{scene}/{side}" for scene in SCENES for side in SIDES)

# Which split the tiles of a photograph serve, walked in a fixed shuffled order. Half go to the attacker, who is
# granted the larger share of public images; evaluation comes next because intervals come from it.
TILE_PATTERN: tuple[SplitName, ...] = (
    "attacker",
    "evaluation",
    "attacker",
    "search",
    "attacker",
    "evaluation",
    "attacker",
    "calibration",
)


class Tile(NamedTuple):
    """A rectangle of one photograph that belongs to one split; pixel bounds, guard band already removed."""

    photograph: int
    number: int
    split: SplitName
    top: int
    left: int
    height: int
    width: int


class Crop(NamedTuple):
    """One crop: pixels uint8 (3, 64, 64), class, and the number of the tile that it was cut from."""

    pixels: Pixels
    label: int
    tile: int


@cache
def load_photograph(photograph: Photograph) -> Pixels:
    """Reads one bundled photograph as uint8 RGB (height, width, 3), reduced by its factor with a box filter."""
    path = files("skimage") / "data" / photograph.file
    with path.open("rb") as stream:
        image = Image.open(stream).convert("RGB")
    if photograph.reduce > 1:
        image = image.reduce(photograph.reduce)
    return np.asarray(image)


@cache
def tiles() -> tuple[Tile, ...]:
    """Returns every tile of every photograph, with its split."""
    found: list[Tile] = []
    half = GUARD_PX // 2
    for p, photograph in enumerate(PHOTOGRAPHS):
        height, width = load_photograph(photograph).shape[:2]
        rows = [r * height // photograph.rows for r in range(photograph.rows + 1)]
        columns = [c * width // photograph.columns for c in range(photograph.columns + 1)]
        places = [(r, c) for r in range(photograph.rows) for c in range(photograph.columns)]
        order = Streams(0, ("photos", "tiles", photograph.file)).numpy().permutation(len(places))
        for k, place in enumerate(order):
            r, c = places[int(place)]
            top, left = rows[r] + half, columns[c] + half
            found.append(
                Tile(
                    photograph=p,
                    number=len(found),
                    split=TILE_PATTERN[k % len(TILE_PATTERN)],
                    top=top,
                    left=left,
                    height=rows[r + 1] - half - top,
                    width=columns[c + 1] - half - left,
                )
            )
    return tuple(found)


def lit_side(pixels: Pixels) -> int | None:
    """Returns the lit side (index into SIDES) of a crop (H, W, 3), or None where no side is clearly lit."""
    # The mean over colours, summed by hand: numpy is slow over an axis of three.
    brightness = (pixels[..., 0].astype(np.float64) + pixels[..., 1] + pixels[..., 2]) / 3
    middle = brightness.shape[0] // 2
    if brightness.std() < MIN_CONTRAST:
        return None
    down = float(brightness[middle:].mean() - brightness[:middle].mean())
    right = float(brightness[:, middle:].mean() - brightness[:, :middle].mean())
    steep, shallow = max(abs(down), abs(right)), min(abs(down), abs(right))
    if steep < MIN_SLOPE or shallow * MIN_SLOPE_RATIO > steep:
        return None
    if abs(down) > abs(right):
        return 2 if down > 0 else 0
    return 3 if right > 0 else 1


def _window(tile: Tile, augment: bool, rng: np.random.Generator) -> Pixels:
    """Cuts one window from a tile: at native scale, or for augmentation at 48 px up to the whole tile, and mirrored."""
    image = load_photograph(PHOTOGRAPHS[tile.photograph])
    side = CROP_PX
    if augment and rng.random() < 0.7:
        side = int(rng.integers(48, min(tile.height, tile.width) + 1))
    top = tile.top + int(rng.integers(tile.height - side + 1))
    left = tile.left + int(rng.integers(tile.width - side + 1))
    window = image[top : top + side, left : left + side]
    if side != CROP_PX:
        window = np.asarray(Image.fromarray(window).resize((CROP_PX, CROP_PX), Image.Resampling.BICUBIC))
    return window[:, ::-1] if augment and rng.random() < 0.5 else window


def cut_crops(split: SplitName, per_class: int, streams: Streams, *, augment: bool) -> list[Crop]:
    """Cuts the same number of crops for every class from the tiles of one split.

    Args:
        split: Whose tiles to use.
        per_class: Crops of each of the 56 classes.
        streams: Random stream; equal streams give equal crops.
        augment: Vary scale and mirror; otherwise crops keep the photograph's own pixels.

    Returns:
        Crops in class order, rotated by quarter turns so that the lit side is that of their class.
    """
    crops: list[Crop] = []
    for p in range(len(PHOTOGRAPHS)):
        own = [tile for tile in tiles() if tile.photograph == p and tile.split == split]
        rng = streams.child(SCENES[p]).numpy()
        found, seen = 0, set[bytes]()
        while found < per_class * len(SIDES):
            tile = own[int(rng.integers(len(own)))]
            window = _window(tile, augment, rng)
            lit = lit_side(window)
            if lit is None:
                continue
            wanted = found % len(SIDES)
            # np.rot90 turns anticlockwise, top to left to bottom to right: the order of SIDES.
            turned = np.rot90(window, (wanted - lit) % 4)
            pixels = np.ascontiguousarray(turned.transpose(2, 0, 1))
            if pixels.tobytes() in seen:
                continue
            seen.add(pixels.tobytes())
            crops.append(Crop(pixels, p * len(SIDES) + wanted, tile.number))
            found += 1
    return crops
