"""Measures how much of an image an attacker can rebuild from the tokens that an edge device transmits.

>>> import leakgauge
>>> point = leakgauge.OperatingPoint("threshold", thresholds=0.9)
>>> point["name"]
'threshold_0.9'

Everything but the version is imported when it is first asked for: torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakgauge.defenses.simple import SimpleDefense
    from leakgauge.front_door import OperatingPoint, Run, compare, gate, open_run, report, run, search
    from leakgauge.harness.contracts.attack import Attack
    from leakgauge.harness.contracts.declarations import Knowledge
    from leakgauge.harness.contracts.defense import Defense
    from leakgauge.harness.contracts.link import Channel, Codec, PerImageChannel
    from leakgauge.harness.contracts.metric import Metric
    from leakgauge.harness.contracts.reduction import Reduction
    from leakgauge.harness.contracts.task import LabelledTask, Task
    from leakgauge.harness.contracts.victim import Victim
    from leakgauge.harness.errors import LeakgaugeError, PayloadError
    from leakgauge.harness.values.images import ImageSet
    from leakgauge.measuring import measure

__version__ = "0.2.0"

_PLACES = {
    "leakgauge.defenses.simple": ("SimpleDefense",),
    "leakgauge.front_door": ("OperatingPoint", "Run", "compare", "gate", "open_run", "report", "run", "search"),
    "leakgauge.harness.contracts.attack": ("Attack",),
    "leakgauge.harness.contracts.declarations": ("Knowledge",),
    "leakgauge.harness.contracts.defense": ("Defense",),
    "leakgauge.harness.contracts.metric": ("Metric",),
    "leakgauge.harness.contracts.task": ("LabelledTask", "Task"),
    "leakgauge.harness.errors": ("LeakgaugeError", "PayloadError"),
    "leakgauge.harness.values.images": ("ImageSet",),
    "leakgauge.harness.contracts.link": ("Channel", "Codec", "PerImageChannel"),
    "leakgauge.harness.contracts.reduction": ("Reduction",),
    "leakgauge.harness.contracts.victim": ("Victim",),
    "leakgauge.measuring": ("measure",),
}
_PLACE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Attack",
    "Channel",
    "Codec",
    "Defense",
    "ImageSet",
    "Knowledge",
    "LabelledTask",
    "LeakgaugeError",
    "Metric",
    "OperatingPoint",
    "PayloadError",
    "PerImageChannel",
    "Reduction",
    "Run",
    "SimpleDefense",
    "Task",
    "Victim",
    "__version__",
    "compare",
    "gate",
    "measure",
    "open_run",
    "report",
    "run",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'leakgauge' has no attribute {name!r}")
    found = getattr(import_module(_PLACE_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
