"""A diffusion prior over the attacker's auxiliary images: training, and the denoised estimate at any time."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from leakgauge.attacks.networks.denoiser import Denoiser
from leakgauge.attacks.training.loop import Schedule, hold_out, mean_psnr_db
from leakgauge.harness.store.number_type import autocast
from leakgauge.harness.system.standing import tell_step
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.seeding import Streams

CURVE_POINTS = 12
HELDOUT_TIMES = (0.2, 0.4, 0.6)
EMA = 0.999
MOST_WEIGHT = 5.0


def signal(time: Tensor) -> Tensor:
    """Returns the share of the image that is left at times in [0, 1] (cosine schedule, Nichol and Dhariwal 2021)."""
    return torch.cos(0.5 * math.pi * time)


def noise(time: Tensor) -> Tensor:
    """Returns the standard deviation of the noise at times in [0, 1]; variances of signal and noise add up to 1."""
    return torch.sin(0.5 * math.pi * time)


class DiffusionPrior:
    """A denoiser with averaged weights, for images scaled to [-1, 1].

    Predicts the image itself, weighted by min(SNR, 5) (Hang et al., ICCV 2023, section 3.4). Predicting noise or
    velocity would need more channels than a small network has: noise fills all dimensions, images do not.

    Args:
        network: The trained denoiser.
    """

    def __init__(self, network: Denoiser) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def denoise(self, noisy: Tensor, time: float) -> Tensor:
        """Returns the expected image (B, 3, H, W) in [-1, 1] behind noisy ones (B, 3, H, W) at a time in [0, 1]."""
        when = torch.full((len(noisy),), time, device=noisy.device)
        clean: Tensor = self.network(noisy, when)
        return clean.clamp(-1, 1)

    @classmethod
    def train(
        cls, images: ImageSet, width: int, schedule: Schedule, rng: Streams, device: torch.device
    ) -> tuple[DiffusionPrior, LearningCurve]:
        """Trains on images; the curve is the PSNR of held-out images denoised from three noise levels.

        Args:
            images: Auxiliary images.
            width: Channels of the denoiser.
            schedule: Steps, batch size and rates.
            rng: Random streams.
            device: Where to train.
        """
        split = hold_out(images, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            network = Denoiser((3, *images.pixels.shape[2:]), width).to(device)
        averaged = cls(copy.deepcopy(network))
        optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.peak_lr, weight_decay=schedule.weight_decay)
        draws, curve = rng.child("draws").torch(), LearningCurve(schedule.steps)
        every, running, counted = max(1, schedule.steps // CURVE_POINTS), 0.0, 0
        for step in range(schedule.steps):
            tell_step(step, schedule.steps)
            rows = split.train[torch.randint(len(split.train), (schedule.batch_size,), generator=draws)]
            clean = (images.pixels[rows].float() / 127.5 - 1.0).to(device)
            added = torch.randn(clean.shape, generator=draws).to(device)
            when = torch.rand(len(rows), generator=draws).to(device)
            left, std = signal(when)[:, None, None, None], noise(when)[:, None, None, None]
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step)
            with autocast(device):
                estimate = network(left * clean + std * added, when)
            weight = (left / std).square().clamp_max(MOST_WEIGHT) / MOST_WEIGHT
            value = (weight * (estimate.float() - clean).square()).mean()
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            averaged.follow(network, min(EMA, (step + 1) / (step + 10)))
            running, counted = running + value.item(), counted + 1
            if (step + 1) % every == 0 or step + 1 == schedule.steps:
                heldout = averaged.heldout_psnr_db(images.select(split.heldout), rng, device)
                curve.add(step + 1, running / counted, heldout)
                running, counted = 0.0, 0
        return averaged, curve

    @torch.no_grad()
    def follow(self, network: Denoiser, inertia: float) -> None:
        """Moves the averaged weights towards those of the network being trained."""
        for own, other in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(other, 1.0 - inertia)

    def heldout_psnr_db(self, images: ImageSet, rng: Streams, device: torch.device) -> float:
        """Returns the mean PSNR in dB of images denoised from ``HELDOUT_TIMES``, with the same noise at every call."""
        clean = images.images().to(device)
        scores = []
        for time in HELDOUT_TIMES:
            added = torch.randn(clean.shape, generator=rng.child("heldout", time).torch()).to(device)
            when = torch.tensor(time, device=device)
            noisy = signal(when) * (2 * clean - 1) + noise(when) * added
            parts = [self.denoise(part, time) for part in torch.split(noisy, 64)]
            scores.append(mean_psnr_db(0.5 + 0.5 * torch.cat(parts), clean))
        return sum(scores) / len(scores)
