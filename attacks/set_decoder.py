"""The main attack: a permutation-invariant decoder from a set of merged tokens to the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from attacks.networks.layout import token_statistics
from attacks.networks.set_network import SetNetwork
from attacks.networks.training import Schedule, predict, train
from harness.contracts import Attack, AttackerView, Observation
from harness.images import ImageSet
from harness.learning import LearningCurve
from harness.seeding import Streams


def pixel_loss(images: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error, with a tenth of L1 for edges."""
    return mse_loss(images, targets) + 0.1 * l1_loss(images, targets)


class SetDecoder(Attack):
    """Learned 2-D queries cross-attend to the tokens and paint pixels; needs neither order nor merge map.

    Ours, after the detokeniser of DRAG (ICML 2025). Trained through the exact operating point that it attacks, with
    a fresh channel draw every epoch. Uses sizes where they are seen.

    Args:
        steps: Optimiser steps.
        batch_size: Images a step.
        width: Channels.
        layers: Decoder layers.
        heads: Attention heads.
        peak_lr: Peak learning rate of AdamW, with warm-up and cosine decay.
    """

    name = "set_decoder"

    def __init__(
        self,
        steps: int = 4000,
        batch_size: int = 32,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        peak_lr: float = 2e-3,
    ) -> None:
        self._schedule = Schedule(steps, batch_size, peak_lr, warmup_steps=min(100, max(1, steps // 10)))
        self._width, self._layers, self._heads = width, layers, heads

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Trains the decoder on the attacker's own transmissions."""
        observations = view.observe(auxiliary)
        mean, std = token_statistics(observations)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            self._network = SetNetwork(
                observations.tokens.shape[1],
                mean,
                std,
                view.image_shape,
                view.grid,
                width=self._width,
                layers=self._layers,
                heads=self._heads,
                prefix=observations.prefix,
            )
        self._device = view.device
        return train(self._network, view, auxiliary, self._schedule, pixel_loss, rng)

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Decodes every observation."""
        return predict(self._network, observations, self._device)
