from typing import Annotated

import torch
from pydantic import Field

from leakgauge import Metric


class EdgeError(Metric):
    """Mean absolute difference of horizontal steps."""

    leaks_when, heading, unit = "lower", "Edge error", "0..255"

    def __init__(self, scale: Annotated[float, Field(gt=0)] = 255.0):
        self.scale = scale

    def score(self, originals, reconstructions):
        steps = [torch.diff(images, dim=3) for images in (originals, reconstructions)]
        return (steps[0] - steps[1]).abs().mean(dim=(1, 2, 3)) * self.scale
