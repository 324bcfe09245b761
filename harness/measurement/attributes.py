"""What attribute probes are asked: a private attribute of the task's images, or their task label."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.harness.contracts.probing import LABEL, AttributeProbe
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.scoring.guards import shape_of
from leakgauge.harness.system.containment import contained
from leakgauge.harness.values.images import ImageSet


def attributes_of(task: Task, images: ImageSet) -> dict[str, Tensor]:
    """Returns a task's private attributes of images; each must be (B,) int64 from 0."""
    where = f"task {task.name!r}"
    with contained("attributes", where):
        found = task.attributes(images)
    for name, values in found.items():
        if not isinstance(values, Tensor) or values.dtype != torch.int64 or values.shape != (len(images),):
            raise PluginError(f"attribute {name!r} is {shape_of(values)}, expected int64 ({len(images)},)", where=where)
        if len(values) and int(values.min()) < 0:
            raise PluginError(f"attribute {name!r} has classes below 0", where=where, hint="count them from 0")
    return found


def answers(task: Task, images: ImageSet, probe: AttributeProbe, where: str) -> Tensor:
    """Returns the attribute that a probe asks for.

    Args:
        task: The task.
        images: B images of it.
        probe: The probe.
        where: The place in the suite that names the probe.

    Returns:
        (B,) int64 classes from 0.

    Raises:
        ConfigError: The task has no such attribute; names those that it has.
        PluginError: The probe asks for nothing.
    """
    asked = getattr(probe, "attribute", None)
    if not isinstance(asked, str):
        raise PluginError(f"attack {probe.name!r} asks for no attribute", where=where, hint="let it set `attribute`")
    known = attributes_of(task, images)
    if images.labels is not None:
        known = {**known, LABEL: images.labels}
    if asked not in known:
        raise ConfigError(
            f"task {task.name!r} has no attribute {asked!r}",
            where=where,
            hint=f"known: {', '.join(sorted(known))}" if known else "it has none; leave the attack out",
        )
    return known[asked].long()
