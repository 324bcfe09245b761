"""Guided diffusion: images are drawn from a prior over auxiliary images, and pulled towards the observed tokens."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from leakgauge.attacks.networks.diffusion_prior import DiffusionPrior
from leakgauge.attacks.training.loop import Schedule
from leakgauge.attacks.white_box.descent import best_rows, chunks, clipped, repeated, search_failure, truth_losses
from leakgauge.attacks.white_box.edge_profile import EdgeProfile
from leakgauge.attacks.white_box.matching import Distance, Matching
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.suite.options import Count, NotNegative, Positive, Share, Weight
from leakgauge.harness.system.standing import tell_step
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

PROFILE_IMAGES = 512
RATE = 0.06
"""Learning rate of the guiding steps at ``guidance: 1``, in pixel values from -1 to 1; it falls with the last noise."""


class Diffusion(Attack):
    """Guided DDIM sampling (Song et al., ICLR 2021) from a small pixel-space diffusion prior.

    After DRAG (ICML 2025), which guides a pretrained latent model by the gradient of the token distance. Here the prior
    is trained on the auxiliary images, and guidance moves the denoised estimate of every step by a few steps of Adam
    on the observation loss, which needs no gradient through the denoiser. Among several samples the one with the
    lowest observation loss answers.

    ``guidance: 0`` is the prior-only control: one draw from the prior, which has seen no observation, answers all of
    them. What it scores is what a plausible picture scores by itself; list it under a label of its own.

    Samples draw the same noise for all images, so that an image's result does not depend on its batch mates.

    Args:
        training_steps: Optimiser steps of the prior.
        training_batch: Images a step.
        width: Channels of the denoiser, a multiple of 8.
        peak_lr: Peak learning rate of the prior.
        sampling_steps: Steps of DDIM.
        guidance: Factor on the guiding steps; 0 turns them off.
        guiding_steps: Steps of Adam on the observation loss for each step of DDIM.
        settling_steps: Steps of Adam after the last step of DDIM, at a falling rate and without the prior: where tokens
            tell the image and the prior is weak, the tokens have the last word.
        samples: Draws an image.
        eta: Share of fresh noise in DDIM, 0 (none) to 1.
        distance: ``l2`` or ``cosine``, between standardised tokens.
        place_weight: Weight of a token's likely places in estimating what it stands for.
        batch_size: Images at a time.
    """

    name = "diffusion"
    training = "search"
    layout = "finds positions"
    knowledge = Knowledge(victim="white-box")

    def __init__(
        self,
        training_steps: Count = 2000,
        training_batch: Count = 16,
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 32,
        peak_lr: Positive = 2e-3,
        sampling_steps: Count = 20,
        guidance: Weight = 1.0,
        guiding_steps: Count = 20,
        settling_steps: NotNegative = 100,
        samples: Count = 2,
        eta: Share = 1.0,
        distance: Distance = "l2",
        place_weight: Weight = 1.0,
        batch_size: Count = 16,
    ) -> None:
        self._schedule = Schedule(training_steps, training_batch, peak_lr, warmup_steps=100)
        self._width, self._steps, self._eta = width, sampling_steps, eta
        self._guidance, self._guiding_steps, self._settling_steps = guidance, guiding_steps, settling_steps
        self._samples = samples if guidance else 1
        self._distance, self._place_weight, self._batch_size = distance, place_weight, batch_size

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Trains the prior and takes the measure of the edge."""
        self._view = view
        if self._guidance:
            few = torch.linspace(0, len(auxiliary) - 1, min(PROFILE_IMAGES, len(auxiliary))).round().long()
            self._profile = EdgeProfile.learn(view, auxiliary.select(few))
            self._truth = truth_losses(view, self._matching, auxiliary, self._batch_size, rng.child("truth"))
        self._prior, curve = DiffusionPrior.train(auxiliary, self._width, self._schedule, rng, view.device)
        return curve

    def _matching(self, observations: Observation) -> Matching:
        return Matching(self._profile, observations, distance=self._distance, place_weight=self._place_weight)

    def _noise(self, images: int, rng: Streams, *names: object) -> Tensor:
        """Returns standard normal noise (samples * B, 3, H, W): one draw a sample, the same for all images."""
        draws = [
            torch.randn(1, *self._view.image_shape, generator=rng.child("sample", sample, *names).torch())
            for sample in range(self._samples)
        ]
        return torch.cat([draw.expand(images, -1, -1, -1) for draw in draws]).to(self._view.device)

    def _sample(self, images: int, matching: Matching | None, rng: Streams) -> Tensor:
        """Draws images (samples * B, 3, H, W) in [-1, 1], towards ``matching`` where there is one."""
        noisy = self._noise(images, rng, "start")
        guide = None if matching is None else _Guide(self._view, matching, noisy)
        # The last time is not quite 0, the first not quite 1, where nothing could be told.
        times = [0.98 * (1.0 - i / self._steps) for i in range(self._steps)] + [0.0]
        estimate = noisy
        for step, (time, after) in enumerate(pairwise(times)):
            tell_step(step, self._steps)
            estimate = self._prior.denoise(noisy, time)
            spread = math.sin(0.5 * math.pi * time)
            if guide is not None:
                rate = self._guidance * RATE * min(1.0, 4.0 * spread + 0.1)
                estimate = guide.pull(estimate, rate, self._guiding_steps)
            left, std = math.cos(0.5 * math.pi * after), math.sin(0.5 * math.pi * after)
            direction = (noisy - math.cos(0.5 * math.pi * time) * estimate) / spread
            fresh = self._noise(images, rng, "step", step)
            noisy = left * estimate + std * (math.sqrt(1 - self._eta**2) * direction + self._eta * fresh)
        return estimate if guide is None else self._settle(guide, estimate)

    def _settle(self, guide: _Guide, images: Tensor) -> Tensor:
        """Follows the observation alone, at a rate that falls to zero."""
        turns = self._settling_steps // self._guiding_steps
        for turn in range(turns):
            images = guide.pull(images, self._guidance * RATE * (1.0 - turn / turns), self._guiding_steps)
        return images

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Samples every image several times and keeps the draw that explains its observation best."""
        if not self._guidance:
            self.caveat = "guidance: 0 draws from the prior alone, and looks at no observation"
            answer = 0.5 + 0.5 * self._sample(1, None, rng).cpu()
            return answer.expand(len(observations), -1, -1, -1)
        rebuilt, reached, estimated = [], [], False
        for part in chunks(observations, self._batch_size, self._view):
            matching = self._matching(repeated(part, self._samples))
            estimated |= matching.estimated
            drawn = 0.5 + 0.5 * self._sample(len(part), matching, rng)
            with torch.no_grad():
                losses = matching.loss(matching.units(self._view.edge_tokens(drawn).tokens))
            rows = best_rows(losses, self._samples)
            rebuilt.append(drawn[rows].cpu())
            reached.append(losses[rows].cpu())
        self.caveat = search_failure(None, torch.cat(reached), self._truth, estimated=estimated)
        return torch.cat(rebuilt)


class _Guide:
    """Pulls estimates towards an observation by Adam, whose memory lasts over all steps of a draw.

    Args:
        view: Gives the edge.
        matching: The observation loss.
        like: A tensor (B, 3, H, W) of the estimates' kind.
    """

    def __init__(self, view: AttackerView, matching: Matching, like: Tensor) -> None:
        self._view, self._matching = view, matching
        self._images = torch.zeros_like(like).requires_grad_(True)
        self._optimiser = torch.optim.Adam([self._images], betas=(0.8, 0.99))

    def pull(self, estimate: Tensor, rate: float, steps: int) -> Tensor:
        """Returns the estimate (B, 3, H, W) in [-1, 1] after some steps at a learning rate."""
        images = self._images
        with torch.no_grad():
            images.copy_(estimate)
        self._optimiser.param_groups[0]["lr"] = rate
        for step in range(steps):
            units = self._matching.units(self._view.edge_tokens(0.5 + 0.5 * images).tokens)
            if step == 0:
                self._matching.refresh(units.detach())
            (gradient,) = torch.autograd.grad(self._matching.loss(units).sum(), [images])
            images.grad = clipped(gradient, 1.0)
            self._optimiser.step()
            with torch.no_grad():
                images.clamp_(-1.0, 1.0)
        return images.detach().clone()
