"""The training loop that learned attacks share: held-out images, schedule, learning curve, step-doubling check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from leakgauge.attacks.training.branch import Branch
from leakgauge.attacks.training.schedule import Schedule as Schedule  # noqa: PLC0414 - named here for all who train
from leakgauge.attacks.training.trainee import Trainee
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.store.number_type import autocast
from leakgauge.harness.system.standing import tell_step
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import CurvePoint, LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

HELDOUT_IMAGES = 256
CURVE_POINTS = 12


class Holdout(NamedTuple):
    """Row numbers of the attacker's images: those it trains on, and those its learning curve is measured on."""

    train: Tensor
    heldout: Tensor


def clusters_aside(images: ImageSet, one_in: int, rng: Streams) -> Tensor:
    """Returns (B,) whether an image is among those of about one in so many clusters, drawn at random, at least one."""
    groups = torch.arange(len(images)) if images.groups is None else images.groups
    names = torch.unique(groups)
    share = max(1, round(len(names) / one_in))
    return torch.isin(groups, names[torch.randperm(len(names), generator=rng.torch())[:share]])


def hold_out(images: ImageSet, rng: Streams) -> Holdout:
    """Sets about a twentieth of the attacker's images aside, whole clusters at a time where they have clusters."""
    aside = clusters_aside(images, 20, rng.child("holdout"))
    heldout = aside.nonzero().squeeze(1)
    if len(heldout) > HELDOUT_IMAGES:
        order = torch.randperm(len(heldout), generator=rng.child("heldout sample").torch())
        heldout = heldout[order[:HELDOUT_IMAGES]].sort().values
    return Holdout((~aside).nonzero().squeeze(1), heldout)


def mean_psnr_db(images: Tensor, targets: Tensor) -> float:
    """Returns the mean per-image PSNR in dB of images (B, 3, H, W) in [0, 1]."""
    error = (images - targets).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return float((-10.0 * error.log10()).mean())


class Batch(NamedTuple):
    """What one step is taken on: its number, the channel draw, row numbers of the attacker's images, observations."""

    step: int
    draw: int
    rows: Tensor
    observed: Observation


Source = Callable[[int], Observation]
"""Returns one draw of the observations of all the attacker's images."""


def batches(source: Source, rows: Tensor, schedule: Schedule, rng: Streams) -> Iterator[Batch]:
    """Yields a batch for every step, in an order drawn anew every epoch.

    A noisy channel is drawn anew every epoch too, so that an attacker learns the channel and not one draw of it.

    Args:
        source: The observations to train on.
        rows: Row numbers of the images to train on.
        schedule: Steps and batch size.
        rng: The attack's random streams.
    """
    order_rng, epoch, position, order = rng.child("order").torch(), -1, len(rows), rows
    for step in range(schedule.steps):
        tell_step(step, schedule.steps)
        if position + schedule.batch_size > len(order):
            epoch, position = epoch + 1, 0
            observed = source(epoch)
            order = rows[torch.randperm(len(rows), generator=order_rng)]
        chosen = order[position : position + schedule.batch_size]
        position += schedule.batch_size
        yield Batch(step, epoch, chosen, observed.select(chosen))


Loss = Callable[[Tensor, Tensor], Tensor]
"""Compares images (B, 3, H, W), not clamped, with targets in [0, 1]: ()."""
Forward = Callable[[nn.Module, Observation], tuple[Tensor, Tensor | None]]
"""Returns a network's images (B, 3, H, W), not clamped, and what to add to their loss, or None."""
Rebuild = Callable[[nn.Module, Observation], Tensor]
"""Returns the reconstructions (B, 3, H, W) in [0, 1], on the CPU, that a network in training stands for."""


LossOn = Callable[[Batch, nn.Module], Tensor]
"""Returns the loss () of a network on a batch."""


def paint(network: nn.Module, observed: Observation) -> tuple[Tensor, Tensor | None]:
    """Runs a network that returns images; nothing is added to their loss."""
    return network(observed), None


def learn(
    main: Trainee,
    branches: Sequence[Branch],
    source: Source,
    rows: Tensor,
    schedule: Schedule,
    rng: Streams,
    loss_on: LossOn,
) -> Iterator[tuple[Batch, float, list[int]]]:
    """Takes every step of a training, the one loop of all that learn: the main network, and branches beside it.

    Args:
        main: What is trained.
        branches: Trainings of fewer steps, which leave the main one where they would begin to decay.
        source: The observations to train on.
        rows: Row numbers of the images to train on.
        schedule: How to train.
        rng: Random streams.
        loss_on: The loss () of a network on a batch.

    Yields:
        After each step its batch, the main network's loss, and the numbers of the branches that ended with it.
    """
    for batch in batches(source, rows, schedule, rng):
        loss_of = partial(loss_on, batch)
        for branch in branches:
            branch.leave(main, batch.step)
        lost = main.step(schedule.rate(batch.step), loss_of)
        yield batch, lost, [number for number, branch in enumerate(branches) if branch.follow(batch.step, loss_of)]


def train(
    network: nn.Module,
    view: AttackerView,
    auxiliary: ImageSet,
    schedule: Schedule,
    loss: Loss,
    rng: Streams,
    *,
    forward: Forward = paint,
    training_data: Source | None = None,
    rebuild: Rebuild | None = None,
    rebuild_earlier: Sequence[Rebuild | None] = (),
    double_check: bool = True,
    split: Holdout | None = None,
) -> LearningCurve:
    """Trains ``network``: Observation -> images (B, 3, H, W) on the attacker's own transmissions.

    The step-doubling check costs three eighths more: where a training of half the steps, or of a quarter, would begin
    to decay, a copy of network and optimiser branches off, decays on the same batches as that training would, and is
    measured. The main training goes on untouched.

    Args:
        network: What to train.
        view: The attacker's handle.
        auxiliary: Its images.
        schedule: How to train.
        loss: Compares images with originals.
        rng: The attack's random streams.
        forward: Runs the network, for attacks that supervise more than the images.
        training_data: What to train on; what is observed, if None. The curve is always measured on what is observed.
        rebuild: What the curve is measured on; the network's own images, if None.
        rebuild_earlier: The same for the trainings of half and of a quarter of the steps, where other parts were
            trained for as much less; as ``rebuild``, if empty.
        double_check: Whether to train the branches.
        split: What to train on, and what to measure on; ``hold_out``, if None.
    """
    split, device = split or hold_out(auxiliary, rng), view.device
    targets = auxiliary.select(split.heldout).images()

    def heldout_psnr_db(trained: nn.Module, draw: int, images_of: Rebuild | None = rebuild) -> float:
        seen = view.observe(auxiliary, draw).select(split.heldout)
        return mean_psnr_db(predict(trained, seen, device) if images_of is None else images_of(trained, seen), targets)

    def loss_on(batch: Batch, learner: nn.Module) -> Tensor:
        with autocast(device):
            images, extra = forward(learner, to_device(batch.observed, device))
        value = loss(images.float(), auxiliary.pixels[batch.rows].to(device).float() / 255.0)
        return value if extra is None else value + extra

    main = Trainee(network.to(device), schedule.weight_decay, schedule.muon)
    branches = [Branch(earlier) for earlier in schedule.earlier()] if double_check else []
    curve, ends = LearningCurve(schedule.steps), list[CurvePoint]()
    every = max(1, schedule.steps // CURVE_POINTS)
    losses = list[float]()
    source = training_data or partial(view.observe, auxiliary)
    for batch, lost, ended in learn(main, branches, source, split.train, schedule, rng, loss_on):
        done = batch.step + 1
        losses.append(lost)
        for number in ended:
            images_of = rebuild_earlier[number] if rebuild_earlier else rebuild
            reached = heldout_psnr_db(branches[number].network, batch.draw, images_of)
            ends.append(CurvePoint(done, branches[number].mean_loss, reached))
        if done % every == 0 or done == schedule.steps:
            curve.add(done, sum(losses) / len(losses), heldout_psnr_db(network, batch.draw))
            losses.clear()
    network.eval()
    if ends:
        ends.sort(key=lambda end: -end.step)
        curve.compare(*ends)
    return curve


Objective = Callable[[nn.Module, Observation, torch.Generator], Tensor]
"""Returns the loss () on a batch of observations; random numbers come from the generator, new every step."""


def train_part(
    network: nn.Module,
    source: Source,
    rows: Tensor,
    schedule: Schedule,
    objective: Objective,
    rng: Streams,
    device: torch.device,
    *,
    double_check: bool = False,
) -> list[nn.Module]:
    """Trains a part of an attack that paints nothing, and so has no learning curve.

    Args:
        network: What to train.
        source: The observations to train on.
        rows: Row numbers of the images to train on.
        schedule: How to train.
        objective: What to lower.
        rng: Random streams of this part.
        device: Where to train.
        double_check: Whether to train copies with half and a quarter of the steps too, as ``train`` does.

    Returns:
        The networks after half and a quarter of the steps, their learning rates decayed to zero too; none where not
        asked for.
    """
    main = Trainee(network.to(device), schedule.weight_decay, schedule.muon)
    branches = [Branch(earlier) for earlier in schedule.earlier()] if double_check else []

    def loss_on(batch: Batch, learner: nn.Module) -> Tensor:
        with autocast(device):
            draws = rng.child("draws", batch.step).torch()
            return objective(learner, to_device(batch.observed, device), draws)

    for _ in learn(main, branches, source, rows, schedule, rng, loss_on):
        pass
    network.eval()
    return [branch.network.eval() for branch in branches]


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
