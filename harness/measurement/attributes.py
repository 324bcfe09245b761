"""What attribute probes are asked: a private attribute of the task's images, or their task label."""

from __future__ import annotations

from torch import Tensor

from leakgauge.harness.contracts.probing import LABEL, AttributeProbe
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.scoring import guards
from leakgauge.harness.values.images import ImageSet


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
    known = guards.attributes(task, images)
    if images.labels is not None:
        known = {**known, LABEL: images.labels}
    if asked not in known:
        raise ConfigError(
            f"task {task.name!r} has no attribute {asked!r}",
            where=where,
            hint=f"known: {', '.join(sorted(known))}" if known else "it has none; leave the attack out",
        )
    return known[asked].long()
