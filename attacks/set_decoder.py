"""The main attack: a decoder from a set of merged tokens to the image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from attacks.networks.closed_form import solve_ridge
from attacks.networks.layout import patches_of, token_statistics
from attacks.networks.set_network import SetNetwork
from attacks.networks.training import Schedule, hold_out, predict, to_device, train
from harness.contracts import Attack, AttackerView
from harness.images import ImageSet
from harness.learning import LearningCurve
from harness.observation import Observation
from harness.seeding import Streams

START_IMAGES = 2048


def pixel_loss(images: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error, with a tenth of L1 for edges."""
    return mse_loss(images, targets) + 0.1 * l1_loss(images, targets)


class SetDecoder(Attack):
    """Finds out where each token belongs, places it softly on the grid, and paints; needs no merge map.

    Ours, after the detokeniser of DRAG (ICML 2025). Starts from the closed-form ridge solution and is trained through
    the exact operating point that it attacks, with a fresh channel draw every epoch. Uses order and sizes where they
    are seen; where the order is withheld it does not depend on it.

    Args:
        steps: Optimiser steps.
        batch_size: Images a step.
        width: Channels.
        layers: Decoder layers.
        heads: Attention heads.
        peak_lr: Peak learning rate of AdamW, with warm-up and squared-cosine decay.
    """

    name = "set_decoder"

    def __init__(
        self,
        steps: int = 4000,
        batch_size: int = 32,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        peak_lr: float = 3e-3,
    ) -> None:
        self._schedule = Schedule(steps, batch_size, peak_lr, warmup_steps=min(100, max(1, steps // 10)))
        self._width, self._layers, self._heads = width, layers, heads

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Trains the decoder on the attacker's own transmissions."""
        mean, std = token_statistics(view.observe(auxiliary))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            self._network = SetNetwork(
                mean,
                std,
                view.image_shape,
                view.grid,
                width=self._width,
                layers=self._layers,
                heads=self._heads,
            ).to(view.device)
        self._device = view.device
        self._start_from_ridge(view, auxiliary, rng)
        return train(self._network, view, auxiliary, self._schedule, pixel_loss, rng)

    @torch.no_grad()
    def _start_from_ridge(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> None:
        """Sets the linear skip to the least-squares map from tokens, as first placed, to pixels."""
        rows = hold_out(auxiliary, rng).train
        rows = rows[:: max(1, len(rows) // START_IMAGES)]
        observed = view.observe(auxiliary)

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
