"""Guarded calls around plug-ins: shapes, ranges and finiteness are checked here, so that plug-in authors need not."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.contracts import Attack, AttackerView, Task
from harness.errors import LeakgaugeError, PluginError
from harness.images import ImageSet
from harness.learning import LearningCurve
from harness.observation import Observation
from harness.seeding import Streams


def fit(attack: Attack, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
    """Fits an attack; failures other than ours become a PluginError that names it."""
    try:
        curve = attack.fit(view, auxiliary, rng)
    except LeakgaugeError:
        raise
    except Exception as error:
        raise PluginError(f"fit failed: {type(error).__name__}: {error}", where=f"attack {attack.name!r}") from error
    if curve is not None and not isinstance(curve, LearningCurve):
        raise PluginError("fit must return a LearningCurve or None", where=f"attack {attack.name!r}")
    return curve


def reconstruct(attack: Attack, observations: Observation, image_shape: tuple[int, int, int], rng: Streams) -> Tensor:
    """Reconstructs images and rounds them to 8 bits.

    Rounding comes before any scoring, so that the stored PNGs score exactly as the run did.

    Returns:
        (B, 3, H, W) uint8.
    """
    where = f"attack {attack.name!r}"
    try:
        images = attack.reconstruct(observations, rng)
    except LeakgaugeError:
        raise
    except Exception as error:
        raise PluginError(f"reconstruct failed: {type(error).__name__}: {error}", where=where) from error
    if not isinstance(images, Tensor) or images.shape != (len(observations), *image_shape):
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise PluginError(f"reconstructions are {found}, expected {(len(observations), *image_shape)}", where=where)
    images = images.detach().cpu().float()
    if not bool(torch.isfinite(images).all()):
        raise PluginError("reconstructions hold NaN or infinite values", where=where, mend="lower the learning rate")
    if float(images.min()) < -1e-4 or float(images.max()) > 1 + 1e-4:
        raise PluginError("reconstructions leave [0, 1]", where=where, mend="clamp them in the attack")
    return (images.clamp(0, 1) * 255.0).round().to(torch.uint8)


def quality(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """Scores outputs; quality must be (B,) in [0, 1]."""
    values = task.quality(output, target).float()
    if values.shape != (len(output),) or not bool(((values >= 0) & (values <= 1)).all()):
        raise PluginError("quality must be (B,) in [0, 1]", where=f"task {task.name!r}")
    return values
