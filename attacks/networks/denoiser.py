"""A small U-Net that predicts the image behind diffusion noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, silu

GRID = 16
WAVES = 16


def folding(image_shape: tuple[int, int, int]) -> int:
    """Returns the pixels a side that are folded into channels: a power of two that leaves about 16 columns."""
    fold = 1
    while all(side % (2 * fold) == 0 and side // (2 * fold) >= GRID for side in image_shape[1:]):
        fold *= 2
    return fold


class TimedBlock(nn.Module):
    """Two convolutions with a residual; the time scales and shifts what lies between.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        times: Width of the time embedding.
    """

    def __init__(self, inputs: int, outputs: int, times: int) -> None:
        super().__init__()
        self.norm_in, self.conv_in = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm_out, self.conv_out = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(times, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Maps (B, inputs, h, w) at times (B, T) to (B, outputs, h, w)."""
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm_out(self.conv_in(silu(self.norm_in(x)))) * (1 + scale) + shift
        mixed: Tensor = self.skip(x) + self.conv_out(silu(hidden))
        return mixed


class PlaneAttention(nn.Module):
    """Self-attention over the positions of a plane.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.project, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C, h, w)."""
        query, key, value = self.project(self.norm(x)).flatten(2).chunk(3, dim=1)
        weights = (query.transpose(1, 2) @ key * x.shape[1] ** -0.5).softmax(dim=2)
        mixed: Tensor = x + self.out((value @ weights.transpose(1, 2)).view_as(x))
        return mixed


class Denoiser(nn.Module):
    """A U-Net of two resolutions after DDPM (Ho et al., NeurIPS 2020), on pixels folded into channels.

    No layer mixes images, and normalisation is an image's own.

    Args:
        image_shape: (3, H, W).
        width: Channels at the finer resolution, a multiple of 8; twice as many at the coarser one.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.fold = folding(image_shape)
        channels, times = 3 * self.fold**2, 4 * width
        self.waves = nn.Buffer(torch.exp(torch.linspace(0.0, math.log(200.0), WAVES)))
        self.time = nn.Sequential(nn.Linear(2 * WAVES, times), nn.SiLU(), nn.Linear(times, times), nn.SiLU())
        self.read = nn.Conv2d(channels, width, 3, padding=1)
        self.fine = nn.ModuleList(TimedBlock(width, width, times) for _ in range(2))
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(TimedBlock(2 * width, 2 * width, times) for _ in range(2))
        self.attention = PlaneAttention(2 * width)
        self.up = nn.Conv2d(2 * width, width, 1)
        self.join = nn.ModuleList([TimedBlock(2 * width, width, times), TimedBlock(width, width, times)])
        self.norm, self.paint = nn.GroupNorm(8, width), nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.paint.weight)

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        """Predicts the images (B, 3, H, W) behind noisy ones (B, 3, H, W) at times (B,) in [0, 1]."""
        phase = time[:, None] * self.waves
        when = self.time(torch.cat([phase.sin(), phase.cos()], dim=1))
        x = self.read(pixel_unshuffle(noisy, self.fold))
        for block in self.fine:
            x = block(x, when)
        low = self.down(x)
        low = self.attention(self.coarse[0](low, when))
        low = self.coarse[1](low, when)
        low = interpolate(self.up(low), size=x.shape[2:], mode="nearest")
        x = torch.cat([x, low], dim=1)
        for block in self.join:
            x = block(x, when)
        return pixel_shuffle(self.paint(silu(self.norm(x))), self.fold)
