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
    from leakgauge.front_door import OperatingPoint, Run, compare, gate, open_run, report, run, search
    from leakgauge.harness.contracts import Attack, Defense, Knowledge, Metric, Task
    from leakgauge.harness.errors import LeakgaugeError
    from leakgauge.harness.images import ImageSet
    from leakgauge.harness.link import Channel, Codec
    from leakgauge.harness.reduction import Reduction
    from leakgauge.harness.victim import Victim
    from leakgauge.measuring import measure

__version__ = "0.2.0"

_PLACES = {
    "leakgauge.front_door": ("OperatingPoint", "Run", "compare", "gate", "open_run", "report", "run", "search"),
    "leakgauge.harness.contracts": ("Attack", "Defense", "Knowledge", "Metric", "Task"),
    "leakgauge.harness.errors": ("LeakgaugeError",),
    "leakgauge.harness.images": ("ImageSet",),
    "leakgauge.harness.link": ("Channel", "Codec"),
    "leakgauge.harness.reduction": ("Reduction",),
    "leakgauge.harness.victim": ("Victim",),
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
    "LeakgaugeError",
    "Metric",
    "OperatingPoint",
    "Reduction",
    "Run",
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
