"""The classic inversion network on a token grid: a deliberately naive baseline that trusts the layout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from leakgauge.attacks.networks.grid_network import GridNetwork
from leakgauge.attacks.training.layout import token_statistics
from leakgauge.attacks.training.loop import Schedule, predict, train
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.suite.options import Count, Positive, Widths
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams


class ConvInverse(Attack):
    """Transposed convolutions over tokens in received order, or by merge map where it is granted.

    He et al., ACSAC 2019; Leggio et al. 2026, Table 1: channels 768-256-128-64-32-3, MSE, learning rate 1e-3, 20
    epochs. Here the input has the victim's width, and the channels are an option, so that it trains on a CPU.

    Args:
        epochs: Passes over the auxiliary images.
        batch_size: Images a step.
        channels: Width after each doubling of resolution.
        learning_rate: Learning rate of AdamW after warm-up.
        double_check: Whether to run the step-doubling check, for three eighths more time; without it every result is
            inconclusive.
    """

    name = "conv_inverse"
    layout = "needs order"
    # It trusts the layout, so that there is nothing to find out before it learns.
    least_steps = 100

    def __init__(
        self,
        epochs: Count = 20,
        batch_size: Count = 64,
        channels: Widths = (256, 128, 64, 32),
        learning_rate: Positive = 1e-3,
        double_check: bool = True,
    ) -> None:
        self._epochs, self._batch_size = epochs, batch_size
        self._channels, self._rate = list(channels), learning_rate
        self._double_check = double_check

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Trains on the attacker's own transmissions."""
        mean, std = token_statistics(view.observe(auxiliary))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            self._network = GridNetwork(mean, std, view.image_shape, view.grid, self._channels)
        self._device = view.device
        steps = max(1, self._epochs * len(auxiliary) // self._batch_size)
        schedule = Schedule(steps, self._batch_size, self._rate, weight_decay=0.0)
        return train(self._network, view, auxiliary, schedule, mse_loss, rng, double_check=self._double_check)

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Decodes every observation."""
        return predict(self._network, observations, self._device)
