"""Questions about scenes, with answers of one word, balanced so that a question gives little of its answer away.

There are five kinds. Of what could be asked about a scene, that question is asked which had this answer least often so
far for its share; over many scenes every question comes to have each of its answers about equally often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from leakgauge.benchmarks.tasks.drawn_scenes.scenes import COLOURS, SHAPES, SIZES, Scene, Thing

KINDS = ("count", "colour", "shape", "relation", "existence")
NUMBERS = ("one", "two", "three", "four")
CHOICES = {"count": len(NUMBERS), "colour": len(COLOURS), "shape": len(SHAPES), "relation": 2, "existence": 2}
"""How many answers a question of each kind can have."""
ANSWERS = (*NUMBERS, *COLOURS, *SHAPES, "yes", "no")
"""The closed vocabulary of answers."""
DIRECTIONS = ("left of", "right of", "above", "below")
RELATION_PX = 8.0
"""Least distance of two centres along the axis that a relation asks about."""
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles"}


class SceneQuestion(NamedTuple):
    """One question: its text, its answer of one word, and its kind."""

    text: str
    answer: str
    kind: str


def _fits(thing: Thing, wanted: tuple[str | None, str | None, str | None]) -> bool:
    size, colour, shape = wanted
    return size in (None, thing.size) and colour in (None, thing.colour) and shape in (None, thing.shape)


def _named(wanted: tuple[str | None, str | None, str | None]) -> str:
    """Returns words in English order, with ``thing`` where no shape is named."""
    size, colour, shape = wanted
    return " ".join(word for word in (size, colour, shape or "thing") if word)


def _count(scene: Scene) -> Iterator[SceneQuestion]:
    """Asks for the number of things of one shape, colour or size that occurs."""
    for field, words in enumerate((SIZES, COLOURS, SHAPES)):
        for word in words:
            number = sum(thing.words[field] == word for thing in scene.things)
            if number:
                text = PLURALS.get(word, f"{word} things")
                yield SceneQuestion(f"how many {text} are there?", NUMBERS[number - 1], "count")


def _only(scene: Scene, wanted: tuple[str | None, str | None, str | None]) -> bool:
    return sum(_fits(thing, wanted) for thing in scene.things) == 1


def _colour(scene: Scene) -> Iterator[SceneQuestion]:
    """Asks for the colour of the only thing of its shape, its size, or both."""
    for thing in scene.things:
        size, colour, shape = thing.words
        for wanted in ((None, None, shape), (size, None, None), (size, None, shape)):
            if _only(scene, wanted):
                yield SceneQuestion(f"what colour is the {_named(wanted)}?", colour, "colour")


def _shape(scene: Scene) -> Iterator[SceneQuestion]:
    """Asks for the shape of the only thing of its colour, its size, or both."""
    for thing in scene.things:
        size, colour, shape = thing.words
        for wanted in ((None, colour, None), (size, None, None), (size, colour, None)):
            if _only(scene, wanted):
                yield SceneQuestion(f"what shape is the {_named(wanted)}?", shape, "shape")


def _holds(one: Thing, direction: str, other: Thing) -> bool | None:
    """Says whether a relation holds, or None where it is too close to call."""
    along = other.x - one.x if direction in ("left of", "right of") else other.y - one.y
    if abs(along) < RELATION_PX:
        return None
    return (along > 0) == (direction in ("left of", "above"))


def _relation(scene: Scene) -> Iterator[SceneQuestion]:
    """Asks whether one thing lies to one side of another; both are named by colour and shape, and size if need be."""
    names: list[str] = []
    for thing in scene.things:
        short = (None, thing.colour, thing.shape)
        names.append(_named(short if _only(scene, short) else thing.words))
    for i, one in enumerate(scene.things):
        for j, other in enumerate(scene.things):
            for direction in DIRECTIONS:
                holds = _holds(one, direction, other) if i != j else None
                if holds is not None:
                    text = f"is the {names[i]} {direction} the {names[j]}?"
                    yield SceneQuestion(text, "yes" if holds else "no", "relation")


def _existence(scene: Scene) -> Iterator[SceneQuestion]:
    """Asks whether there is a thing of one colour or size and one shape, one word of which does occur."""
    for field, words in ((1, COLOURS), (0, SIZES)):
        for word in words:
            for shape in SHAPES:
                wanted = (None, word, shape) if field == 1 else (word, None, shape)
                there = any(_fits(thing, wanted) for thing in scene.things)
                near = any(thing.words[field] == word or thing.shape == shape for thing in scene.things)
                if near:
                    yield SceneQuestion(f"is there a {_named(wanted)}?", "yes" if there else "no", "existence")


ASKED: dict[str, Callable[[Scene], Iterator[SceneQuestion]]] = {
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "relation": _relation,
    "existence": _existence,
}


def askable(scene: Scene, kind: str) -> list[SceneQuestion]:
    """Returns every question of one kind that can be asked about a scene."""
    return list(ASKED[kind](scene))


class Asker:
    """Asks about one scene after another, and keeps count of what was asked."""

    def __init__(self) -> None:
        self._texts: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()

    def _excess(self, question: SceneQuestion) -> int:
        """Returns how much more often than its fair share a question had this answer, times its number of answers."""
        pair = self._pairs[question.text, question.answer]
        return pair * CHOICES[question.kind] - self._texts[question.text]

    def ask(self, scene: Scene, kind: str, rng: np.random.Generator) -> SceneQuestion:
        """Returns one question of a kind; ties fall at random.

        Raises:
            ValueError: No question of this kind can be asked about the scene.
        """
        found = askable(scene, kind)
        if not found:
            raise ValueError(f"no question about {kind} can be asked about this scene")
        return self.choose(found, rng)

    def choose(self, found: list[SceneQuestion], rng: np.random.Generator) -> SceneQuestion:
        """Returns one of the questions ``found``, which are of one kind and of one scene; ties fall at random."""
        order = [found[int(i)] for i in rng.permutation(len(found))]
        chosen = min(order, key=self._excess)
        self._texts[chosen.text] += 1
        self._pairs[chosen.text, chosen.answer] += 1
        return chosen
