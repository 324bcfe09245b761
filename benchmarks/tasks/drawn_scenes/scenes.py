"""Scenes for visual question answering: a few coloured shapes on a background, described before they are drawn.

A scene is a description. ``scene_rendering`` makes pixels of it, ``scene_questions`` asks about it. The background's
kind and tone are private attributes: drawn independently of the shapes, and asked about by no question.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

SCENE_PX = 64
SHAPES = ("circle", "square", "triangle")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES = ("small", "large")
BACKGROUNDS = ("flat", "gradient", "photograph")
TONES = ("warm", "cool")

RADII = {"small": (5.0, 5.8), "large": (8.6, 9.8)}
"""Range of the radius of the circle around a shape, in pixels, by size."""
GAP_PX = 1.5
"""Least distance between the circles around two shapes: nothing is ever hidden."""
COUNTS = (2, 3, 4)
COUNT_SHARES = (0.15, 0.25, 0.6)
ALIKE_SHARE = 0.55
"""Share of scenes in which several things share a shape, a colour or a size, so that there is something to count."""
MARGIN_PX = 1.0
ATTEMPTS = 200


class Thing(NamedTuple):
    """One shape: its words, and its centre (x to the right, y down), radius in pixels and rotation in radians."""

    size: str
    colour: str
    shape: str
    x: float
    y: float
    radius: float
    angle: float
    shade: float
    """Brightness of the colour, about 1."""

    @property
    def words(self) -> tuple[str, str, str]:
        """Size, colour and shape; no two things of a scene have the same."""
        return self.size, self.colour, self.shape


class Background(NamedTuple):
    """What lies behind the things.

    ``level`` is the mean luminance and ``spread`` half its range, both of 1; ``direction`` in radians is where a
    gradient rises. ``photograph`` numbers a photograph, or is -1, and ``top`` and ``left`` place the crop, as shares
    of the room that there is. ``strength`` says how far the tone departs from gray.
    """

    kind: str
    tone: str
    level: float
    spread: float
    direction: float
    strength: float
    photograph: int
    top: float
    left: float


class Scene(NamedTuple):
    """Things that do not touch one another, on a background."""

    things: tuple[Thing, ...]
    background: Background


def _alike_words(count: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Draws distinct words for things, several of which share one word."""
    choices = (SIZES, COLOURS, SHAPES)
    # Sizes repeat by themselves; colours hardly ever do.
    field = int(rng.choice(3, p=(0.2, 0.5, 0.3)))
    word = choices[field][int(rng.integers(len(choices[field])))]
    sharing = count if rng.random() < 0.5 else int(rng.integers(2, count + 1))
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        words = [str(rng.choice(options)) for options in choices]
        if len(found) < sharing:
            words[field] = word
        candidate = (words[0], words[1], words[2])
        if candidate not in found:
            found.append(candidate)
    return found


def _free_words(count: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Draws distinct words for things, each at random."""
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        candidate = (str(rng.choice(SIZES)), str(rng.choice(COLOURS)), str(rng.choice(SHAPES)))
        if candidate not in found:
            found.append(candidate)
    return found


def _place(radii: list[float], rng: np.random.Generator) -> list[tuple[float, float]] | None:
    """Draws centres at which circles of these radii keep apart and inside the image; None where that fails."""
    centres: list[tuple[float, float]] = []
    for radius in radii:
        low, high = radius + MARGIN_PX, SCENE_PX - radius - MARGIN_PX
        for _ in range(ATTEMPTS):
            x, y = rng.uniform(low, high, 2)
            if all(math.hypot(x - a, y - b) >= radius + r + GAP_PX for (a, b), r in zip(centres, radii, strict=False)):
                centres.append((float(x), float(y)))
                break
        else:
            return None
    return centres


def draw_things(rng: np.random.Generator) -> tuple[Thing, ...]:
    """Draws two to four things with distinct words that do not touch one another."""
    count = int(rng.choice(COUNTS, p=COUNT_SHARES))
    words = (_alike_words if rng.random() < ALIKE_SHARE else _free_words)(count, rng)
    while True:
        radii = [float(rng.uniform(*RADII[size])) for size, _, _ in words]
        centres = _place(radii, rng)
        if centres is not None:
            break
    return tuple(
        Thing(*named, x, y, radius, float(rng.uniform(-0.3, 0.3)), float(rng.uniform(0.92, 1.08)))
        for named, (x, y), radius in zip(words, centres, radii, strict=True)
    )


def draw_background(kind: str, tone: str, photographs: tuple[int, ...], rng: np.random.Generator) -> Background:
    """Draws a background of one kind and tone; ``photographs`` are those it may show."""
    photograph = int(rng.choice(photographs)) if kind == "photograph" else -1
    return Background(
        kind=kind,
        tone=tone,
        level=float(rng.uniform(0.4, 0.62)),
        spread=0.0 if kind == "flat" else float(rng.uniform(0.14, 0.24)),
        direction=float(rng.uniform(-math.pi, math.pi)),
        strength=float(rng.uniform(0.6, 1.0)),
        photograph=photograph,
        top=float(rng.random()),
        left=float(rng.random()),
    )
