"""The classic inversion network on a token grid: a deliberately naive baseline that trusts the layout."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss

from attacks.networks.layout import on_grid, token_statistics
from attacks.networks.training import Schedule, predict, train
from harness.contracts import Attack, AttackerView
from harness.errors import ConfigError
from harness.images import ImageSet
from harness.learning import LearningCurve
from harness.observation import Observation
from harness.seeding import Streams


class GridNetwork(nn.Module):
    """Transposed convolutions from the token grid to pixels.

    Args:
        mean: (D,) of the token values.
        std: (D,) likewise.
        image_shape: (3, H, W).
        grid: Patch rows and columns.
        channels: Widths after each doubling of resolution; the last repeats where more doublings are needed.
    """

    def __init__(
        self, mean: Tensor, std: Tensor, image_shape: tuple[int, int, int], grid: tuple[int, int], channels: list[int]
    ) -> None:
        super().__init__()
        self.grid, self.image_shape = grid, image_shape
        self.mean = nn.Buffer(mean)
        self.std = nn.Buffer(std)
        doublings = math.ceil(math.log2(image_shape[1] / grid[0]))
        widths = [len(mean), *(channels[min(i, len(channels) - 1)] for i in range(doublings))]
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            blocks += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*blocks, nn.Conv2d(widths[-1], 3, 3, padding=1))

    def forward(self, observations: Observation) -> Tensor:
        """Returns images (B, 3, H, W), not clamped."""
        tokens = (on_grid(observations) - self.mean) / self.std
        images: Tensor = self.body(tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid))
        if images.shape[-2:] != self.image_shape[1:]:
            images = interpolate(images, size=self.image_shape[1:], mode="bilinear", align_corners=False)
        return 0.5 + 0.5 * images


class ConvInverse(Attack):
    """Transposed convolutions over tokens in received order, or by merge map where it is granted.

    He et al., ACSAC 2019; Leggio et al. 2026, Table 1: channels 768-256-128-64-32-3, MSE, learning rate 1e-3, 20
    epochs. Here the input has the victim's width, and the channels are an option, so that it trains on a CPU.

    Args:
        epochs: Passes over the auxiliary images.
        batch_size: Images a step.
        channels: Width after each doubling of resolution.
        learning_rate: Peak of AdamW, squared-cosine decay.
    """

    name = "conv_inverse"

    def __init__(
        self,
        epochs: int = 20,
        batch_size: int = 64,
        channels: tuple[int, ...] | list[int] = (256, 128, 64, 32),
        learning_rate: float = 1e-3,
    ) -> None:
        if not channels or any(c < 1 for c in channels):
            raise ConfigError(f"channels = {channels!r} must be positive", mend="write channels: [256, 128, 64, 32]")
        self._epochs, self._batch_size = epochs, batch_size
        self._channels, self._rate = list(channels), learning_rate

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Trains on the attacker's own transmissions."""
        mean, std = token_statistics(view.observe(auxiliary))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            self._network = GridNetwork(mean, std, view.image_shape, view.grid, self._channels)
        self._device = view.device
        steps = max(1, self._epochs * len(auxiliary) // self._batch_size)
        schedule = Schedule(steps, self._batch_size, self._rate, weight_decay=0.0)
        return train(self._network, view, auxiliary, schedule, mse_loss, rng)

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Decodes every observation."""
        return predict(self._network, observations, self._device)
