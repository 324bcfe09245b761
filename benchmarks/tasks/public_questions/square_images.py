"""Fits images of any shape into the square that a vision-language model takes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from leakgauge.harness.values.decoding import centre_square, resampling

Fit = Literal["pad", "crop"]
PAD_COLOUR = (122, 116, 104)
"""The mean colour of CLIP's images, of 255 and rounded down, as LLaVA-1.5 pads with it (``expand2square``)."""


def fit_square(
    image: Image.Image, px: int, fit: Fit, interpolation: str = "bicubic", crop_share: float = 1.0
) -> Tensor:
    """Returns an RGB image as (3, px, px) uint8, by an antialiased filter.

    Args:
        image: The image.
        px: Side of the square.
        fit: ``pad`` keeps all of the image and fills the rest with ``PAD_COLOUR``, as LLaVA-1.5 does; ``crop`` takes
            its centre square.
        interpolation: Name of the filter (``leakgauge.harness.values.decoding.resampling``).
        crop_share: For ``crop``, the side of the square as a share of the shorter side.
    """
    if fit == "crop":
        return centre_square(image, px, interpolation, crop_share)
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), PAD_COLOUR)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    square = canvas.resize((px, px), resampling(interpolation))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
