"""Splits of scenes with their questions: no photograph serves two of them, and no image occurs twice."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from leakgauge.benchmarks.tasks.drawn_scenes.questions import KINDS, Asker, SceneQuestion, askable
from leakgauge.benchmarks.tasks.drawn_scenes.rendering import render
from leakgauge.benchmarks.tasks.drawn_scenes.scenes import BACKGROUNDS, TONES, Scene, draw_background, draw_things
from leakgauge.benchmarks.tasks.photo_crops.crops import SCENES
from leakgauge.harness.values.images import ImageSet, SplitName, content_id
from leakgauge.harness.values.seeding import Streams

DRAWN = tuple(kind for kind in BACKGROUNDS if kind != "photograph")
"""Backgrounds without a photograph."""
IMAGES: dict[SplitName, int] = {"attacker": 6000, "calibration": 144, "search": 564, "evaluation": 564}
"""Images a split; multiples of six, the number of backgrounds times tones."""
SPLIT_PHOTOGRAPHS: dict[SplitName, tuple[str, ...]] = {
    "attacker": ("brick", "camera", "coffee", "grass", "motorcycle", "rocket", "ihc"),
    "calibration": ("coins",),
    "search": ("chelsea", "moon"),
    "evaluation": ("astronaut", "gravel", "hubble", "retina"),
}
"""The photographs behind the scenes of each split, by name."""


class SceneSplit(NamedTuple):
    """A split: N images, and for every one of them its description and its questions.

    ``images`` holds (N, 3, 64, 64) uint8 pixels without labels; ``scenes`` and ``questions`` are in the same order.
    """

    images: ImageSet
    scenes: tuple[Scene, ...]
    questions: tuple[tuple[SceneQuestion, ...], ...]

    def attributes(self) -> dict[str, Tensor]:
        """Returns the private attributes, (N,) int64 each: ``background`` in BACKGROUNDS, ``tone`` in TONES."""
        kinds = [BACKGROUNDS.index(scene.background.kind) for scene in self.scenes]
        tones = [TONES.index(scene.background.tone) for scene in self.scenes]
        return {"background": torch.tensor(kinds), "tone": torch.tensor(tones)}


def photographs_of(split: SplitName) -> tuple[int, ...]:
    """Returns the numbers of the photographs of a split, into PHOTOGRAPHS."""
    return tuple(SCENES.index(name) for name in SPLIT_PHOTOGRAPHS[split])


def draw_scene(number: int, split: SplitName, rng: np.random.Generator) -> Scene:
    """Draws scene ``number`` of a stream; backgrounds and tones take turns, whatever the things are."""
    things = draw_things(rng)
    turn = number % (len(BACKGROUNDS) * len(TONES))
    kind, tone = BACKGROUNDS[turn % len(BACKGROUNDS)], TONES[turn // len(BACKGROUNDS)]
    return Scene(things, draw_background(kind, tone, photographs_of(split), rng))


def ask_each_kind(scene: Scene, asker: Asker, rng: np.random.Generator) -> tuple[SceneQuestion, ...] | None:
    """Returns one question of every kind, or None where the scene does not allow one of them."""
    found = [askable(scene, kind) for kind in KINDS]
    return tuple(asker.choose(each, rng) for each in found) if all(found) else None


@cache
def scene_split(split: SplitName) -> SceneSplit:
    """Returns the images of a split with five questions each, one of every kind; the same every time."""
    rng = Streams(0, ("scenes", "split", split)).numpy()
    asker, seen = Asker(), set[str]()
    scenes: list[Scene] = []
    questions: list[tuple[SceneQuestion, ...]] = []
    pixels: list[Tensor] = []
    while len(scenes) < IMAGES[split]:
        scene = draw_scene(len(scenes), split, rng)
        asked = ask_each_kind(scene, asker, rng)
        if asked is None:
            continue
        image = torch.from_numpy(render(scene))
        name = content_id(image)
        if name in seen:
            continue
        seen.add(name)
        scenes.append(scene)
        questions.append(asked)
        pixels.append(image)
    return SceneSplit(ImageSet.from_pixels(torch.stack(pixels)), tuple(scenes), tuple(questions))


@cache
def drawn_scenes(count: int) -> ImageSet:
    """Returns scenes without a photograph: on flat and shaded backgrounds, in no split and without questions."""
    rng = Streams(0, ("scenes", "drawn")).numpy()
    pixels: dict[str, Tensor] = {}
    while len(pixels) < count:
        scene = Scene(draw_things(rng), draw_background(DRAWN[len(pixels) % 2], TONES[len(pixels) // 2 % 2], (), rng))
        image = torch.from_numpy(render(scene))
        pixels.setdefault(content_id(image), image)
    return ImageSet.from_pixels(torch.stack([*pixels.values()]))
