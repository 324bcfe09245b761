"""Answers questions about scenes by reading their text: written apart from the code that asks them."""

import re

from leakgauge.benchmarks.tasks.drawn_scenes.scenes import COLOURS, SIZES, Scene

NUMBER_WORDS = ["zero", "one", "two", "three", "four"]


def matching(scene: Scene, description: str) -> list:
    """Returns the things that a description such as "large red circles" fits."""
    found = list(scene.things)
    for word in description.split():
        if word in {"thing", "things"}:
            continue
        if word in SIZES:
            found = [thing for thing in found if thing.size == word]
        elif word in COLOURS:
            found = [thing for thing in found if thing.colour == word]
        else:
            found = [thing for thing in found if thing.shape == word.removesuffix("s")]
    return found


def the(scene: Scene, description: str):
    """Returns the only thing that a description fits."""
    (only,) = matching(scene, description)
    return only


def answer_from_text(scene: Scene, text: str) -> str:
    """Returns the answer to a question about a scene."""
    if found := re.fullmatch(r"how many (.+) are there\?", text):
        return NUMBER_WORDS[len(matching(scene, found[1]))]
    if found := re.fullmatch(r"what (colour|shape) is the (.+)\?", text):
        return getattr(the(scene, found[2]), found[1])
    if found := re.fullmatch(r"is there a (.+)\?", text):
        return "yes" if matching(scene, found[1]) else "no"
    found = re.fullmatch(r"is the (.+) (left of|right of|above|below) the (.+)\?", text)
    one, other = the(scene, found[1]), the(scene, found[3])
    across, down = one.x - other.x, one.y - other.y
    apart, holds = {
        "left of": (abs(across), across < 0),
        "right of": (abs(across), across > 0),
        "above": (abs(down), down < 0),
        "below": (abs(down), down > 0),
    }[found[2]]
    assert apart >= 8.0, "too close to call"
    return "yes" if holds else "no"
