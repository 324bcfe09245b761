"""Says before a run how long each attack trains, and whether enough images are left for a gate to tell anything."""

from __future__ import annotations

from leakgauge.harness.suite.options import signature_of
from leakgauge.harness.suite.registry import load
from leakgauge.harness.suite.schema import Suite

MINIMUM_IMAGES = 30
"""Evaluation images below which the gate cannot tell, unless its limits say otherwise."""
_BUDGETS = ("steps", "epochs", "iterations", "images", "restarts")
"""Options that say how much an attack computes."""


def budget_of(suite: Suite) -> list[tuple[str, str]]:
    """Returns (label, budget) of each attack: its steps or epochs, stated or by default.

    Raises:
        ConfigError: There is no such attack.
    """
    found = []
    for named in suite.attacks:
        known = signature_of(load("attacks", named.plugin.name, where=f"attacks: {named.label}")).options
        values = {key: named.plugin.options.get(key, known[key].default) for key in _BUDGETS if key in known}
        said = ", ".join(f"{key} {value}" for key, value in values.items() if isinstance(value, int))
        found.append((named.label, said or "no steps to set"))
    return found


def too_few(images: int) -> str:
    """Returns what to say where fewer evaluation images are left than the gate wants; empty where there are enough."""
    if images >= MINIMUM_IMAGES:
        return ""
    return (
        f"{images} evaluation images are fewer than the {MINIMUM_IMAGES} of which a gate can tell: "
        "give more images, or raise evaluation_images"
    )
