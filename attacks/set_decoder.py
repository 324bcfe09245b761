"""The main attack: a decoder from a set of merged tokens to the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from leakgauge.attacks.networks.attention import check_heads
from leakgauge.attacks.networks.set_network import PaintingNetwork, SetNetwork
from leakgauge.attacks.training.closed_form import solve_ridge
from leakgauge.attacks.training.layout import patches_of, token_statistics
from leakgauge.attacks.training.loop import Forward, Schedule, Source, hold_out, paint, predict, to_device, train
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.suite.options import Count, Positive, Weight
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

START_IMAGES = 2048


def pixel_loss(images: Tensor, targets: Tensor) -> Tensor:
    """Mean logarithm of each image's squared error, which is its PSNR, with a tenth of L1 for edges."""
    error = (images - targets).square().mean(dim=(1, 2, 3))
    return 0.01 * (error + 1e-5).log().mean() + 0.1 * l1_loss(images, targets)


class SetDecoder(Attack):
    """Finds out where each token belongs, places it softly on the grid, and paints; needs no merge map.

    Ours, after the detokeniser of DRAG (ICML 2025). Starts from the closed-form ridge solution and is trained through
    the exact operating point that it attacks, with a fresh channel draw every epoch. Uses order and sizes where they
    are seen; where the order is withheld it does not depend on it.

    Args:
        steps: Optimiser steps; the default takes 5 minutes of one CPU core at 64 px. On merged tokens twice as many are
            needed for the step-doubling check to pass: learning where tokens belong is what takes long.
        batch_size: Images a step.
        width: Channels.
        layers: Decoder layers.
        heads: Attention heads.
        peak_lr: Learning rate of AdamW after warm-up.
        muon: Learning rate of Muon, which moves the hidden matrices, over AdamW's; 0 for AdamW alone.
        double_check: Whether to run the step-doubling check, for three eighths more time; without it every result is
            inconclusive.
    """

    name = "set_decoder"
    layout = "finds positions"
    _network_class: ClassVar[type[PaintingNetwork]] = SetNetwork

    def __init__(
        self,
        steps: Count = 3200,
        batch_size: Count = 32,
        width: Count = 128,
        layers: Count = 2,
        heads: Count = 4,
        peak_lr: Positive = 4e-3,
        muon: Weight = 2.0,
        double_check: bool = True,
    ) -> None:
        check_heads(width, heads)
        warmup = min(100, max(1, steps // 10))
        self._schedule = Schedule(steps, batch_size, peak_lr, warmup, muon=muon)
        self._width, self._layers, self._heads = width, layers, heads
        self._double_check = double_check

    def _training_data(self, view: AttackerView, auxiliary: ImageSet) -> Source:
        """Returns what to train on."""
        return lambda draw: view.observe(auxiliary, draw)

    def _forward(self) -> Forward:
        """Returns how to run the network in training."""
        return paint

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Trains the decoder on the attacker's own transmissions."""
        training_data = self._training_data(view, auxiliary)
        mean, std = token_statistics(training_data(0))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            self._network = self._network_class(
                mean,
                std,
                view.image_shape,
                view.grid,
                width=self._width,
                layers=self._layers,
                heads=self._heads,
            ).to(view.device)
        self._device = view.device
        self._start_from_ridge(training_data(0), view, auxiliary, rng)
        return train(
            self._network,
            view,
            auxiliary,
            self._schedule,
            pixel_loss,
            rng,
            forward=self._forward(),
            training_data=training_data,
            double_check=self._double_check,
        )

    @torch.no_grad()
    def _start_from_ridge(self, observed: Observation, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> None:
        """Sets the linear skip to the least-squares map from tokens, as first placed, to pixels."""
        rows = hold_out(auxiliary, rng).train
        rows = rows[:: max(1, len(rows) // START_IMAGES)]

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, len(rows), 128):
                part = rows[start : start + 128]
                placed = self._network.place(to_device(observed.select(part), view.device)).by_position
                targets = patches_of(auxiliary.select(part).images() * 2.0 - 1.0, view.grid)
                yield placed.flatten(0, 1), targets.flatten(0, 1).to(view.device)

        weights, bias = solve_ridge(batches(), penalty=1e-3)
        self._network.skip.weight.copy_(weights.T)
        self._network.skip.bias.copy_(bias)

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Decodes every observation."""
        return predict(self._network, observations, self._device)
