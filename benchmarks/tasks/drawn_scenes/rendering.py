"""Draws scenes: antialiased shapes with a dark rim on a tinted background."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from leakgauge.benchmarks.tasks.drawn_scenes.scenes import SCENE_PX, Background, Scene, Thing
from leakgauge.benchmarks.tasks.photo_crops.crops import PHOTOGRAPHS, load_photograph

Field = NDArray[np.float32]

PAINTS = {
    "red": (0.86, 0.10, 0.10),
    "green": (0.10, 0.58, 0.14),
    "blue": (0.12, 0.20, 0.86),
    "yellow": (0.97, 0.88, 0.10),
    "purple": (0.60, 0.16, 0.72),
    "cyan": (0.12, 0.84, 0.88),
}
TINTS = {"warm": (1.12, 1.0, 0.84), "cool": (0.86, 1.0, 1.12)}
"""Factors of red, green and blue; far less colourful than any paint."""
RIM = 0.35
"""Brightness of the rim of a shape relative to its inside; it keeps shapes apart from any background."""
RIM_PX = 1.2
_ROWS, _COLUMNS = np.mgrid[0:SCENE_PX, 0:SCENE_PX].astype(np.float32) + np.float32(0.5)


@cache
def _luminance(photograph: int) -> Field:
    """Returns the luminance of a photograph (height, width) in [0, 1]."""
    pixels = load_photograph(PHOTOGRAPHS[photograph]).astype(np.float32)
    weighted: Field = (pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)) / np.float32(255.0)
    return weighted


def background_level(background: Background) -> Field:
    """Returns the luminance of a background, (64, 64) in [0, 1]."""
    if background.kind == "photograph":
        whole = _luminance(background.photograph)
        top = int(background.top * (whole.shape[0] - SCENE_PX))
        left = int(background.left * (whole.shape[1] - SCENE_PX))
        crop = whole[top : top + SCENE_PX, left : left + SCENE_PX]
        # Dark and pale crops are stretched alike, but noise is not made a texture.
        relief = (crop - crop.mean()) / max(2.0 * float(crop.std()), 0.02)
        field = background.level + background.spread * relief.clip(-1.6, 1.6)
    else:
        along = np.cos(background.direction) * _COLUMNS + np.sin(background.direction) * _ROWS
        half = SCENE_PX / 2 * (abs(np.cos(background.direction)) + abs(np.sin(background.direction)))
        centre = SCENE_PX / 2 * (np.cos(background.direction) + np.sin(background.direction))
        field = background.level + background.spread * (along - centre) / half
    clipped: Field = field.clip(0.0, 1.0).astype(np.float32)
    return clipped


def depth(thing: Thing) -> Field:
    """Returns how deep inside a thing each pixel's centre lies, (64, 64) in pixels; negative outside."""
    x, y = _COLUMNS - thing.x, _ROWS - thing.y
    if thing.shape == "circle":
        inside: Field = thing.radius - np.hypot(x, y)
        return inside
    # The corners of squares and triangles lie on the circle around the thing.
    sides, reach = (4, np.cos(np.pi / 4)) if thing.shape == "square" else (3, np.cos(np.pi / 3))
    start = thing.angle + (0.0 if thing.shape == "square" else np.pi / 2)
    normals = start + np.arange(sides) * 2 * np.pi / sides
    inside = np.min([reach * thing.radius - (np.cos(n) * x + np.sin(n) * y) for n in normals], axis=0)
    return inside


def render(scene: Scene) -> NDArray[np.uint8]:
    """Returns the pixels of a scene, (3, 64, 64) uint8."""
    tint = np.array(TINTS[scene.background.tone], dtype=np.float32) - 1.0
    colours = 1.0 + np.float32(scene.background.strength) * tint
    image = colours[:, None, None] * background_level(scene.background)
    for thing in scene.things:
        inside = depth(thing)
        paint = np.array(PAINTS[thing.colour], dtype=np.float32) * np.float32(thing.shade)
        core = (inside - RIM_PX + 0.5).clip(0.0, 1.0)
        cover = (inside + 0.5).clip(0.0, 1.0)
        painted = paint[:, None, None] * (RIM + (1.0 - RIM) * core)
        image = image * (1.0 - cover) + painted * cover
    pixels: NDArray[np.uint8] = (image.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return pixels
