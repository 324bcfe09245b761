"""A small encoder-decoder with skips for every image, all run at once: the image prior of an untrained network."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, instance_norm, interpolate, leaky_relu, pad

from leakgauge.harness.values.seeding import Streams


class ManyConv(nn.Module):
    """A convolution with weights of its own for every image: one grouped convolution, so that images do not mix.

    Args:
        images: B.
        inputs: Channels in.
        outputs: Channels out.
        side: Kernel side; borders are reflected.
        stride: Stride.
        generator: Draws the start, the same for all images.
    """

    def __init__(
        self, images: int, inputs: int, outputs: int, side: int, stride: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.stride, self.border = stride, side // 2
        bound = 1.0 / math.sqrt(inputs * side * side)
        draw = (2 * torch.rand(1, outputs, inputs, side, side, generator=generator) - 1) * bound
        self.weight = nn.Parameter(draw.repeat(images, 1, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(images, outputs, 1, 1))

    def mixed(self, x: Tensor) -> Tensor:
        """Convolves (B, inputs, H, W) to (B, outputs, H / stride, W / stride), without bias."""
        images = len(x)
        if self.border:
            x = pad(x, [self.border] * 4, mode="reflect")
        out = conv2d(x.flatten(0, 1)[None], self.weight.flatten(0, 1), stride=self.stride, groups=images)
        return out.view(images, -1, *out.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        """Convolves, normalises over the plane, shifts and rectifies."""
        return leaky_relu(instance_norm(self.mixed(x)) + self.bias, 0.2)


class SkipNetwork(nn.Module):
    """Maps fixed noise to images; every image has parameters of its own.

    Ulyanov et al., CVPR 2018, section 2 and supplement: strided convolutions down, bilinear interpolation up, skips of
    a few channels, sigmoid. Theirs has 5 levels of 128 channels and batch norm; here widths are for small images on a
    CPU, and instance norm keeps images apart.

    Args:
        images: B.
        image_shape: (3, H, W).
        widths: Channels of each level; each level halves the resolution.
        skip: Channels of a skip.
        rng: Draws parameters and input noise, the same for all images.
    """

    def __init__(
        self, images: int, image_shape: tuple[int, int, int], widths: tuple[int, ...], skip: int, rng: Streams
    ) -> None:
        super().__init__()
        draws = rng.child("parameters").torch()
        noise = torch.rand(1, widths[0], *image_shape[1:], generator=rng.child("noise").torch())
        # A tenth: the scale of the input noise in the paper.
        self.noise = nn.Buffer(0.1 * noise.expand(images, -1, -1, -1))
        downs, skips, ups = [], [], []
        for before, after in pairwise((widths[0], *widths)):
            skips.append(ManyConv(images, before, skip, 1, 1, draws))
            downs.append(
                nn.Sequential(ManyConv(images, before, after, 3, 2, draws), ManyConv(images, after, after, 3, 1, draws))
            )
        for below, own in pairwise((widths[-1], *reversed(widths))):
            ups.append(ManyConv(images, below + skip, own, 3, 1, draws))
        self.downs, self.skips, self.ups = nn.ModuleList(downs), nn.ModuleList(skips), nn.ModuleList(ups)
        self.paint = ManyConv(images, widths[0], 3, 1, 1, draws)

    def forward(self) -> Tensor:
        """Draws the images (B, 3, H, W) in (0, 1)."""
        x: Tensor = self.noise
        carried = []
        for down, skip in zip(self.downs, self.skips, strict=True):
            carried.append(skip(x))
            x = down(x)
        for up, side in zip(self.ups, reversed(carried), strict=True):
            x = interpolate(x, size=side.shape[2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, side], dim=1))
        return torch.sigmoid(self.paint.mixed(x) + self.paint.bias)
