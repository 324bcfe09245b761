"""The training loop that learned attacks share: held-out images, schedule, learning curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.contracts import AttackerView
from harness.images import ImageSet
from harness.learning import LearningCurve
from harness.observation import Observation
from harness.seeding import Streams

HELDOUT_IMAGES = 256
CURVE_POINTS = 12


class Holdout(NamedTuple):
    """Row numbers of the attacker's images: those it trains on, and those its learning curve is measured on."""

    train: Tensor
    heldout: Tensor


def hold_out(images: ImageSet, rng: Streams) -> Holdout:
    """Sets about a twentieth of the attacker's images aside, whole clusters at a time where they have clusters."""
    groups = torch.arange(len(images)) if images.groups is None else images.groups
    names = torch.unique(groups)
    share = max(1, round(len(names) / 20))
    chosen = names[torch.randperm(len(names), generator=rng.child("holdout").torch())[:share]]
    aside = torch.isin(groups, chosen)
    heldout = aside.nonzero().squeeze(1)
    if len(heldout) > HELDOUT_IMAGES:
        order = torch.randperm(len(heldout), generator=rng.child("heldout sample").torch())
        heldout = heldout[order[:HELDOUT_IMAGES]].sort().values
    return Holdout((~aside).nonzero().squeeze(1), heldout)


@dataclass(frozen=True)
class Schedule:
    """How to train.

    Args:
        steps: Optimiser steps.
        batch_size: Images a step.
        peak_lr: Learning rate after warm-up, annealed to zero along a squared half cosine.
        warmup_steps: Steps of linear warm-up.
        weight_decay: AdamW's, on matrices only.
    """

    steps: int
    batch_size: int
    peak_lr: float
    warmup_steps: int = 50
    weight_decay: float = 0.01

    def rate(self, step: int) -> float:
        """Returns the learning rate at a step."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        # Squared: more of a short training is spent at small rates, which costs nothing here and settles sooner.
        return self.peak_lr * warm * (0.5 * (1.0 + math.cos(math.pi * step / self.steps))) ** 2


def bf16_pays(device: torch.device) -> bool:
    """Tells whether bfloat16 matrix products are faster here: GPUs, and CPUs with AMX tiles."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported())


def mean_psnr_db(images: Tensor, targets: Tensor) -> float:
    """Returns the mean per-image PSNR in dB of images (B, 3, H, W) in [0, 1]."""
    error = (images - targets).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return float((-10.0 * error.log10()).mean())


Loss = Callable[[Tensor, Tensor], Tensor]


def train(
    network: nn.Module,
    view: AttackerView,
    auxiliary: ImageSet,
    schedule: Schedule,
    loss: Loss,
    rng: Streams,
) -> LearningCurve:
    """Trains ``network``: Observation -> images (B, 3, H, W) on the attacker's own transmissions.

    A noisy channel is drawn anew every epoch, so that the attacker learns the channel and not one draw of it.
    """
    split = hold_out(auxiliary, rng)
    targets = auxiliary.select(split.heldout).images().to(view.device)
    network.to(view.device).train()
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=schedule.peak_lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    curve = LearningCurve(schedule.steps)
    order_rng = rng.child("order").torch()
    every = max(1, schedule.steps // CURVE_POINTS)
    running, counted, epoch, position = 0.0, 0, -1, len(split.train)
    observed = view.observe(auxiliary, 0)
    order = split.train
    autocast = bf16_pays(view.device)
    for step in range(schedule.steps):
        if position + schedule.batch_size > len(order):
            epoch, position = epoch + 1, 0
            observed = view.observe(auxiliary, epoch)
            order = split.train[torch.randperm(len(split.train), generator=order_rng)]
        rows = order[position : position + schedule.batch_size]
        position += schedule.batch_size
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        with torch.autocast(view.device.type, torch.bfloat16, enabled=autocast):
            images = network(to_device(observed.select(rows), view.device))
        value = loss(images.float(), auxiliary.pixels[rows].to(view.device).float() / 255.0)
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        running, counted = running + value.item(), counted + 1
        if (step + 1) % every == 0 or step + 1 == schedule.steps:
            rebuilt = predict(network, observed.select(split.heldout), view.device)
            curve.add(step + 1, running / counted, mean_psnr_db(rebuilt, targets.cpu()))
            running, counted = 0.0, 0
            network.train()
    network.eval()
    return curve


def to_device(observations: Observation, device: torch.device) -> Observation:
    """Moves what networks read: tokens, lengths, sizes and merge map."""
    sizes, merge_map = observations.sizes, observations.merge_map
    return Observation(
        tokens=observations.tokens.to(device),
        lengths=observations.lengths.to(device),
        prefix=observations.prefix,
        grid=observations.grid,
        sizes=None if sizes is None else sizes.to(device),
        merge_map=None if merge_map is None else merge_map.to(device),
        noise_std=None if observations.noise_std is None else observations.noise_std.to(device),
        ordered=observations.ordered,
    )


@torch.no_grad()
def predict(network: nn.Module, observations: Observation, device: torch.device, batch_size: int = 64) -> Tensor:
    """Runs a trained network in fp32: (B, 3, H, W) in [0, 1], on the CPU."""
    network.eval()
    parts = []
    for start in range(0, len(observations), batch_size):
        rows = range(start, min(start + batch_size, len(observations)))
        parts.append(network(to_device(observations.select(rows), device)).float().clamp(0, 1).cpu())
    return torch.cat(parts)
