"""Guarded calls around plug-ins: shapes, ranges and finiteness are checked here, so that plug-in authors need not."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.probing import Attacker, AttributeProbe, IdentityProbe
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import PluginError
from leakgauge.harness.system.containment import contained
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams


def _curve(found: object, where: str) -> LearningCurve | None:
    if found is not None and not isinstance(found, LearningCurve):
        raise PluginError("fit must return a LearningCurve or None", where=where)
    return found


def shape_of(found: object) -> object:
    """Returns what an error says of what a plug-in gave: its shape, or what it is instead of a tensor."""
    return tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__


def _granted(attacker: Attacker, auxiliary: ImageSet) -> ImageSet:
    """Returns the auxiliary images, or none of them where the attacker declares that it needs none."""
    return auxiliary if attacker.knowledge.auxiliary else auxiliary.select([])


def fit(attack: Attack | IdentityProbe, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
    """Fits an attack; failures other than ours become a PluginError that names it."""
    where = f"attack {attack.name!r}"
    with contained("fit", where):
        curve = attack.fit(view, _granted(attack, auxiliary), rng)
    return _curve(curve, where)


def fit_probe(
    probe: AttributeProbe, view: AttackerView, auxiliary: ImageSet, answers: Tensor, classes: int, rng: Streams
) -> LearningCurve | None:
    """Fits an attribute probe to the attacker's own answers (B,); failures as for ``fit``."""
    where = f"attack {probe.name!r}"
    own = _granted(probe, auxiliary)
    with contained("fit", where):
        curve = probe.fit(view, own, answers[: len(own)], classes, rng)
    return _curve(curve, where)


def reconstruct(attack: Attack, observations: Observation, image_shape: tuple[int, int, int], rng: Streams) -> Tensor:
    """Reconstructs images and rounds them to 8 bits.

    Rounding comes before any scoring, so that the stored PNGs score exactly as the run did.

    Returns:
        (B, 3, H, W) uint8.
    """
    where = f"attack {attack.name!r}"
    with contained("reconstruct", where):
        images = attack.reconstruct(observations, rng)
    if not isinstance(images, Tensor) or images.shape != (len(observations), *image_shape):
        raise PluginError(
            f"reconstructions are {shape_of(images)}, expected {(len(observations), *image_shape)}", where=where
        )
    images = images.detach().cpu().float()
    if not bool(torch.isfinite(images).all()):
        raise PluginError(
            "reconstructions hold NaN or infinite values",
            where=where,
            hint="mend the attack: a training that diverged rebuilds less than there is to be had",
        )
    if float(images.min()) < -1e-4 or float(images.max()) > 1 + 1e-4:
        # Clamping what is still normalised would score as privacy, so that no such advice is given.
        raise PluginError(
            f"reconstructions range from {float(images.min()):.3g} to {float(images.max()):.3g}, expected 0 to 1",
            where=where,
            hint="undo the normalisation: return pixel values; clamp only what overshoots by rounding",
        )
    return (images.clamp(0, 1) * 255.0).round().to(torch.uint8)


def quality(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """Scores outputs; quality must be (B,) in [0, 1]."""
    where = f"task {task.name!r}"
    with contained("quality", where):
        values = task.quality(output.clone(), target.clone()).float()
    if values.shape != (len(output),) or not bool(((values >= 0) & (values <= 1)).all()):
        raise PluginError("quality must be (B,) in [0, 1]", where=where)
    return values


def predict(probe: AttributeProbe, observations: Observation, classes: int, rng: Streams) -> Tensor:
    """Asks an attribute probe; returns finite scores (B, classes) float64 on the CPU."""
    where = f"attack {probe.name!r}"
    with contained("predict", where):
        scores = probe.predict(observations, rng)
    return _scores(scores, (len(observations), classes), where)


def rank(
    probe: IdentityProbe, observations: Observation, view: AttackerView, gallery: ImageSet, rng: Streams
) -> Tensor:
    """Asks an identity probe; returns finite scores (B, G) float64 on the CPU."""
    where = f"attack {probe.name!r}"
    with contained("rank", where):
        scores = probe.rank(observations, view, gallery, rng)
    return _scores(scores, (len(observations), len(gallery)), where)


def _scores(found: object, expected: tuple[int, int], where: str) -> Tensor:
    if not isinstance(found, Tensor) or found.shape != expected:
        raise PluginError(f"scores are {shape_of(found)}, expected {expected}", where=where)
    scores = found.detach().cpu().double()
    if not bool(torch.isfinite(scores).all()):
        raise PluginError("scores hold NaN or infinite values", where=where, hint="give logarithms, not likelihoods")
    return scores
