"""Random noise on the token values."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from leakgauge.harness.contracts.link import Perturbation
from leakgauge.harness.suite.options import Weight
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


class Noise(Perturbation):
    """Adds zero-mean noise, independent for every value of every token.

    Its deviation follows the image's own root mean square over all its tokens (protected ones included, whether they
    get noise or not), as the power of an analog channel does: Gaussian noise of strength s is what an AWGN channel of
    -20 log10(s) dB adds. No differential privacy is claimed: values are not clipped, and the deviation itself depends
    on the image.

    Args:
        strength: Standard deviation of the noise over the image's root mean square; finite, at least 0.
        protect_prefix: Leave the protected tokens (class, registers) without noise.
    """

    def __init__(self, strength: Weight, protect_prefix: bool = False) -> None:
        self._strength = strength
        self._protect = protect_prefix

    @staticmethod
    @abstractmethod
    def draw(rows: int, width: int, dice: torch.Generator) -> Tensor:
        """Draws (rows, width) float32 values of zero mean and unit variance, on the CPU."""

    def apply(self, batch: TokenBatch, ids: tuple[str, ...], rng: Streams) -> TokenBatch:
        """Returns the tokens with noise; the layout stays."""
        width = batch.tokens.shape[1]
        parts = []
        for own, image_id in zip(torch.split(batch.tokens, batch.lengths.tolist()), ids, strict=True):
            # Image by image, so that not even the last bits of the mean depend on batch mates.
            level = own.float().square().mean().sqrt() * self._strength
            noise = self.draw(len(own), width, rng.child(self.name, image_id).torch())
            if self._protect:
                noise[: batch.prefix] = 0
            parts.append((own + noise.to(own.device) * level).to(own.dtype))
        return batch.with_tokens(torch.cat(parts)) if parts else batch


class GaussianNoise(Noise):
    """Normally distributed noise; see Noise for the options."""

    name = "gaussian"

    @staticmethod
    def draw(rows: int, width: int, dice: torch.Generator) -> Tensor:
        """Draws standard normal values."""
        return torch.randn(rows, width, generator=dice)


class LaplaceNoise(Noise):
    """Laplace-distributed noise: more mass near zero and in the tails than Gaussian; see Noise for the options."""

    name = "laplace"

    @staticmethod
    def draw(rows: int, width: int, dice: torch.Generator) -> Tensor:
        """Draws the difference of two exponential values, of scale 1 / sqrt(2) for unit variance.

        Unlike the inverse distribution function of a uniform value, that never takes the logarithm of zero.
        """
        both = torch.empty(2, rows, width).exponential_(generator=dice)
        return (both[0] - both[1]) / math.sqrt(2)
