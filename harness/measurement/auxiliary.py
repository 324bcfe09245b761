"""The attacker's public images: of the task's own domain, or of another where the threat model says ``shifted``."""

from __future__ import annotations

from collections.abc import Iterable

from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet


def shifted_images(task: Task, model: str) -> ImageSet:
    """Returns the task's images of another domain, as large as its own and without labels.

    Args:
        task: The task.
        model: Name of the threat model that asks for them.

    Raises:
        ConfigError: The task offers none.
        PluginError: They are no images of the task's size.
    """
    where = f"threat model {model!r}: auxiliary.domain"
    found = task.shifted()
    if found is None:
        raise ConfigError(
            f"task {task.name!r} offers no images of a shifted domain", where=where, hint="take domain: in-domain"
        )
    side = task.input_px()
    if not isinstance(found, ImageSet) or not len(found) or found.pixels.shape[2:] != (side, side):
        what = "none" if isinstance(found, ImageSet) and not len(found) else "no images of the task's size"
        raise PluginError(f"`shifted` of task {task.name!r} gives {what}", where=where, hint=f"give {side} x {side} px")
    # Labels of another domain would be read as classes of this one.
    return ImageSet(found.pixels, found.ids, None, found.groups)


def auxiliary_images(task: Task, model: ThreatModel) -> ImageSet:
    """Returns the attacker's images as a threat model grants them: all of their domain, or ``n`` evenly spaced ones.

    They are a copy, which whoever asks may write into.
    """
    granted = model.auxiliary
    images = task.split("attacker") if granted.domain == "in-domain" else shifted_images(task, model.name)
    return images.clone() if granted.n is None or granted.n >= len(images) else images.evenly_spaced(granted.n)


def shifted_of(task: Task, models: Iterable[ThreatModel]) -> ImageSet | None:
    """Returns the images of the shifted domain where one of the threat models grants them, else None."""
    asking = [model.name for model in models if model.auxiliary.domain == "shifted"]
    return shifted_images(task, asking[0]) if asking else None
