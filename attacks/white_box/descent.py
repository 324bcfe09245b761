"""Gradient descent on the matching loss, shared by attacks that optimise an image or a network that draws it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from leakgauge.attacks.training.loop import to_device
from leakgauge.attacks.white_box.matching import Matching
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.system.standing import tell_step
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

LATE_FALL = 0.02
WARM_UP = 10
REFRESH = 10
TRUTH_IMAGES = 16
TRUTH_MARGIN = 1.1
"""How many times the observation loss at the truth a search may end at."""


@dataclass(frozen=True)
class Descent:
    """How to descend.

    Args:
        iterations: Steps of Adam with AMSGrad.
        learning_rate: Held for the first half, then annealed to zero along a half cosine.
        clip: Largest gradient norm an image, where the parameters are images; None for no limit.
    """

    iterations: int
    learning_rate: float
    clip: float | None = None

    def rate(self, step: int) -> float:
        """Returns the learning rate at a step."""
        warm = min(1.0, (step + 1) / WARM_UP)
        late = max(0.0, 2.0 * step / self.iterations - 1.0)
        return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * late))


class Descended(NamedTuple):
    """The best iterate of every image (B, 3, H, W), its observation loss (B,), and the loss at every step (S, B)."""

    images: Tensor
    losses: Tensor
    history: Tensor


def descend(
    view: AttackerView,
    matching: Matching,
    parameters: Sequence[Tensor],
    draw: Callable[[], Tensor],
    penalty: Callable[[Tensor], Tensor],
    how: Descent,
    project: Callable[[], None] = lambda: None,
) -> Descended:
    """Descends from where the parameters stand. Images do not interact: losses are summed, and Adam is elementwise.

    Args:
        view: Gives the edge.
        matching: The observation loss.
        parameters: What is optimised.
        draw: Makes candidates (B, 3, H, W) in [0, 1] from the parameters.
        penalty: Maps candidates to their prior's cost (B,).
        how: Steps and rates.
        project: Called after every step to put parameters back where they may be.

    Returns:
        The iterate of every image with the lowest observation loss; no target has a part in that.
    """
    optimiser = torch.optim.Adam(parameters, lr=how.learning_rate, amsgrad=True)
    best: Tensor | None = None
    lowest = torch.empty(0)
    history = []
    for step in range(how.iterations):
        tell_step(step, how.iterations)
        optimiser.param_groups[0]["lr"] = how.rate(step)
        images = draw()
        units = matching.units(view.edge_tokens(images).tokens)
        if step and step % REFRESH == 0:
            matching.refresh(units.detach())
        losses = matching.loss(units)
        gradients = torch.autograd.grad((losses + penalty(images)).sum(), list(parameters))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if how.clip is None else clipped(gradient, how.clip)
        seen = losses.detach()
        if best is None:
            best, lowest = images.detach().clone(), seen.clone()
        better = seen < lowest
        best[better], lowest[better] = images.detach()[better], seen[better]
        history.append(seen)
        optimiser.step()
        project()
    assert best is not None
    return Descended(best, lowest, torch.stack(history).cpu())


def clipped(gradients: Tensor, limit: float) -> Tensor:
    """Shortens gradients (B, ...) to norm ``limit``, each image by itself."""
    norm = gradients.flatten(1).norm(dim=1).clamp_min(1e-12)
    short: Tensor = gradients * (limit / norm).clamp_max(1.0).view(-1, *[1] * (gradients.ndim - 1))
    return short


def chunks(observations: Observation, size: int, view: AttackerView) -> Iterator[Observation]:
    """Yields observations of at most ``size`` images on the device of the view."""
    for start in range(0, len(observations), size):
        yield to_device(observations.select(range(start, min(start + size, len(observations)))), view.device)


def repeated(observations: Observation, times: int) -> Observation:
    """Returns all images ``times`` times over, one restart after the other."""
    return observations.select(torch.arange(len(observations)).repeat(times))


def best_rows(losses: Tensor, restarts: int) -> Tensor:
    """Returns (B,) rows of the restart with the lowest loss, of losses (restarts * B,) one restart after the other."""
    images = len(losses) // restarts
    chosen = losses.view(restarts, images).argmin(dim=0)
    return chosen * images + torch.arange(images, device=losses.device)


def search_failure(history: Tensor | None, reached: Tensor, truth: Tensor, *, estimated: bool) -> str | None:
    """Says why a search proves no privacy, or returns None.

    Args:
        history: (S, B) observation loss at every step; None where it was not kept.
        reached: (B,) observation loss of the reconstructions.
        truth: (K,) observation loss of own images at what they really are; see ``truth_losses``.
        estimated: Whether it had to guess which tokens stand for which patches.
    """
    if estimated:
        return "which patches a token stands for was guessed: a search stuck in a wrong guess looks settled"
    return (None if history is None else late_fall(history)) or left_over(reached, truth)


def left_over(reached: Tensor, truth: Tensor) -> str | None:
    """Says that the observation is not explained as well as the truth would, or returns None.

    A plateau of the loss proves nothing by itself: a prior, too small a network or a narrow valley hold it up as well.
    What the loss is at the truth, the attacker knows of its own images.

    Args:
        reached: (B,) observation loss of the reconstructions.
        truth: (K,) observation loss of own images at what they really are.
    """
    found, possible = float(reached.double().mean()), float(truth.double().mean())
    if found <= TRUTH_MARGIN * possible:
        return None
    return (
        f"the observation loss ends at {found:.2g}, and is {possible:.2g} at the truth of own images: more is to be had"
    )


@torch.no_grad()
def truth_losses(
    view: AttackerView, matching_of: Callable[[Observation], Matching], images: ImageSet, size: int, rng: Streams
) -> Tensor:
    """Returns the observation loss (K,) of some of the attacker's own images at what they really are.

    Their pixels are moved by at most one grey level: a picture of 8 bits holds the truth no better, and without noise
    the loss of the very truth is next to nothing.

    Args:
        view: The attacker's handle.
        matching_of: Makes the observation loss of an observation.
        images: The attacker's images, of which ``TRUTH_IMAGES`` are taken.
        size: Images at a time.
        rng: Random streams.
    """
    few = images.evenly_spaced(TRUTH_IMAGES)
    seen, losses = view.observe(few), []
    draws = (2.0 * torch.rand(few.pixels.shape, generator=rng.torch()) - 1.0) / 255.0
    for start in range(0, len(few), size):
        rows = range(start, min(start + size, len(few)))
        matching = matching_of(to_device(seen.select(rows), view.device))
        pixels = (few.select(rows).images() + draws[list(rows)]).clamp(0, 1).to(view.device)
        losses.append(matching.loss(matching.units(view.edge_tokens(pixels).tokens)).cpu())
    return torch.cat(losses)


def late_fall(history: Tensor) -> str | None:
    """Says why a descent was cut short, or returns None: the last fifth must not have lowered the mean loss further.

    Args:
        history: (S, B) observation loss at every step.
    """
    steps = len(history)
    window = max(1, steps // 50)
    mean = history.mean(dim=1)
    fifth = steps - steps // 5
    before, after = float(mean[max(0, fifth - window) : fifth].mean()), float(mean[-window:].mean())
    fall = (before - after) / max(before, 1e-12)
    if not fall > LATE_FALL:
        return None
    return f"the last fifth of {steps} iterations still lowered the observation loss by {100 * fall:.0f} %"
