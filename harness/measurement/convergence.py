"""Whether an attacker is shown to be as strong as its method allows: declared by the plug-in, measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.contracts.probing import Attacker
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import (
    DOUBLING_DB,
    LearningCurve,
    convergence_failure,
    could_gain_db,
    remaining_gain_db,
)
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

HELDOUT_IMAGES = 128
REFIT_IMAGES = 2000
"""About the most images, evenly spaced, that a closed form is fitted with again."""
ACCURACY = 0.05
"""Most that a probe's second half of the images may gain, as a share of right answers."""

Score = Callable[[Attacker, AttackerView, ImageSet, Tensor], Tensor]
"""Fits a fresh attacker on images, and scores it (K,) on the held-out rows of those that the view knows."""


@dataclass
class Gradients:
    """How many optimiser steps and backward passes a stretch of code took."""

    steps: int = 0
    backward: int = 0


@contextmanager
def watched() -> Iterator[Gradients]:
    """Counts optimiser steps and uses of saved tensors by backward passes within."""
    found = Gradients()

    def stepped(*_: object) -> None:
        found.steps += 1

    def unpacked(tensor: Tensor) -> Tensor:
        found.backward += 1
        return tensor

    handle = register_optimizer_step_pre_hook(stepped)
    try:
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpacked):
            yield found
    finally:
        handle.remove()


class Unconverged(NamedTuple):
    """Why an attacker is not shown to be converged, and what it may still gain, in dB: None where that is unknown."""

    why: str
    could_gain_db: float | None = None


def unconverged(
    attacker: Attacker, curve: LearningCurve | None, gradients: Gradients, refit: Callable[[], Unconverged | None]
) -> Unconverged | None:
    """Says why an attacker is not shown to be converged, or returns None where it is.

    Args:
        attacker: The attacker, fitted and asked.
        curve: What its ``fit`` returned.
        gradients: What was counted while it was fitted.
        refit: Measures a closed form with half of the images; called for nothing else.
    """
    if getattr(attacker, "floor", False):
        return None
    failure: str | None = None
    if curve is not None:
        failure = convergence_failure(curve, attacker.least_steps)
        if failure is not None:
            return Unconverged(failure, could_gain_db(curve, attacker.least_steps))
    elif attacker.training == "learned":
        failure = "it is learned, but its fit returned no learning curve"
    elif attacker.training == "closed_form":
        failure = _not_closed(gradients)
        lacking = refit() if failure is None else None
        if lacking is not None:
            return lacking
    if failure is None and attacker.training == "search" and "caveat" not in vars(attacker):
        failure = "it searches, but never said whether its search was cut short (it sets no `caveat`)"
    failure = failure or attacker.caveat
    return Unconverged(failure) if failure else None


def _not_closed(gradients: Gradients) -> str | None:
    if not gradients.steps and not gradients.backward:
        return None
    what = f"took {gradients.steps} optimiser steps" if gradients.steps else "followed gradients"
    return f"it is declared a closed form, but its fit {what}; learned attacks must return a learning curve"


def data_limited(
    score: Score,
    make: Callable[[], Attacker],
    view: AttackerView,
    auxiliary: ImageSet,
    rng: Streams,
    *,
    allowed: float = DOUBLING_DB,
    unit: str = "dB",
) -> Unconverged | None:
    """Says that a closed form would do better with more images, or returns None: it is fitted with half of them too.

    Both fits leave the same images out, whole clusters at a time, and are compared on these.

    Args:
        score: Fits and scores an attacker.
        make: Builds it anew.
        view: The attacker's handle.
        auxiliary: Its images.
        rng: Random streams.
        allowed: Most that the second half of the images may gain.
        unit: Of the scores.
    """
    held = _held_out(auxiliary, rng)
    rest = (~torch.isin(torch.arange(len(auxiliary)), held)).nonzero().squeeze(1)
    # What the second half brings falls with their number: where it is little for some, it is less for all.
    rest = rest[:: max(1, len(rest) // REFIT_IMAGES)]
    if len(held) < 2 or len(rest) < 4:
        return Unconverged(f"{len(auxiliary)} images are too few to tell whether it lacks any")
    known = PartOfView(view, auxiliary)
    try:
        whole, half = (score(make(), known, auxiliary.select(rows), held) for rows in (rest, rest[::2]))
    except LeakgaugeError as error:
        return Unconverged(f"it could not be fitted with half of its images: {error.what}")
    gain = float((whole.double() - half.double()).mean())
    if gain <= allowed:
        return None
    number = f"{gain:+.2f} dB" if unit == "dB" else f"{gain:+.1%}"
    why = f"limited by its data: twice the images, {len(rest)} for {len(rest[::2])}, gain {number}"
    # A share of right answers is no dB; and NaN is no gain.
    return Unconverged(why, remaining_gain_db(gain) if unit == "dB" and math.isfinite(gain) else None)


def _held_out(images: ImageSet, rng: Streams) -> Tensor:
    """Returns rows of about a twentieth of the images, at least 8 where there are 32, whole clusters at a time."""
    groups = torch.arange(len(images)) if images.groups is None else images.groups
    names = torch.unique(groups)
    share = min(len(names) // 4, max(8, round(len(names) / 20)))
    chosen = names[torch.randperm(len(names), generator=rng.child("held out").torch())[:share]]
    rows = torch.isin(groups, chosen).nonzero().squeeze(1)
    if len(rows) > HELDOUT_IMAGES:
        rows = rows[torch.linspace(0, len(rows) - 1, HELDOUT_IMAGES).round().long()]
    return rows


class PartOfView:
    """A view that answers for any part of the attacker's images out of what it knows of all of them.

    Args:
        view: The view.
        images: All of the attacker's images.
    """

    def __init__(self, view: AttackerView, images: ImageSet) -> None:
        self._view, self._images = view, images
        self._rows = {image_id: row for row, image_id in enumerate(images.ids)}
        self.image_shape, self.grid, self.device, self.noisy = view.image_shape, view.grid, view.device, view.noisy

    def _part(self, images: ImageSet) -> Tensor | None:
        """Returns the rows of images among those known; None where some are not."""
        rows = [self._rows.get(image_id, -1) for image_id in images.ids]
        if min(rows, default=-1) < 0 or not torch.equal(self._images.pixels[rows], images.pixels):
            return None
        return torch.tensor(rows)

    def _shown(self, look: Callable[[ImageSet, int], Observation], images: ImageSet, draw: int) -> Observation:
        rows = self._part(images)
        return look(images, draw) if rows is None else look(self._images, draw).select(rows)

    def observe(self, images: ImageSet, draw: int = 0) -> Observation:
        """As ``AttackerView.observe``."""
        return self._shown(self._view.observe, images, draw)

    def trace(self, images: ImageSet, draw: int = 0) -> Observation:
        """As ``AttackerView.trace``."""
        return self._shown(self._view.trace, images, draw)

    def unreduced(self, images: ImageSet, draw: int = 0) -> Observation:
        """As ``AttackerView.unreduced``."""
        return self._shown(self._view.unreduced, images, draw)

    def branch(self) -> AttackerView:
        """As ``AttackerView.branch``."""
        return PartOfView(self._view.branch(), self._images)

    def predict(self, images: Tensor) -> Tensor:
        """As ``AttackerView.predict``."""
        return self._view.predict(images)

    def white_box(self) -> Victim:
        """As ``AttackerView.white_box``."""
        return self._view.white_box()

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """As ``AttackerView.edge_tokens``."""
        return self._view.edge_tokens(images)
