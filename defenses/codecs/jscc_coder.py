"""The functions of the learned joint source-channel codec: a linear code and its learned correction."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu


class Layers(NamedTuple):
    """A hidden layer with GELU and an output layer: weights (H, in), (H,), (out, H), (out,)."""

    weight_in: Tensor
    bias_in: Tensor
    weight_out: Tensor
    bias_out: Tensor

    @classmethod
    def initial(cls, inputs: int, hidden: int, outputs: int, dice: torch.Generator) -> Layers:
        """Draws the hidden layer (normal, variance 1 / inputs); an output layer of zeros answers zero."""
        weight = torch.randn(hidden, inputs, generator=dice) * inputs**-0.5
        return cls(weight, torch.zeros(hidden), torch.zeros(outputs, hidden), torch.zeros(outputs))

    def __call__(self, values: Tensor) -> Tensor:
        """Maps values (T, in) to (T, out)."""
        hidden = gelu(values @ self.weight_in.T + self.bias_in)
        return hidden @ self.weight_out.T + self.bias_out


class Coder(NamedTuple):
    """What both ends share after ``prepare``; D is the tokens' width, M = 2 * uses_per_token.

    Args:
        mean: (D,) of the calibration tokens.
        deviation: (D,) of the calibration tokens, 1 for channels that never vary.
        directions: (D, M) main directions of the standardised tokens.
        variance: (M,) variances along them.
        remainder: Scalar, variance in all other directions together.
        amplitude: (M,) factor on each coefficient; the symbols' mean power over the training rows is 1.
        encoder: Correction of the symbols: D to M.
        decoder: Correction of the tokens: M + 1 to D; the last input is the noise in decades.
        scale: Scalar that brings corrected symbols to unit mean power over the training rows.
    """

    mean: Tensor
    deviation: Tensor
    directions: Tensor
    variance: Tensor
    remainder: Tensor
    amplitude: Tensor
    encoder: Layers
    decoder: Layers
    scale: Tensor

    def standardised(self, tokens: Tensor) -> Tensor:
        """Returns tokens (T, D) of zero mean and unit variance in each channel, over the calibration tokens."""
        return (tokens - self.mean) / self.deviation

    def symbols(self, inputs: Tensor) -> Tensor:
        """Maps standardised tokens (T, D) to symbol values (T, M), before ``scale``."""
        linear: Tensor = (inputs @ self.directions) * self.amplitude
        return linear + self.encoder(inputs)

    def unit_scale(self, inputs: Tensor) -> Tensor:
        """Returns the factor that brings the symbols of standardised tokens (..., D) to unit mean power."""
        return self.symbols(inputs).square().mean().clamp_min(1e-12).rsqrt()

    def linear_error(self, noise: Tensor) -> Tensor:
        """Returns the linear code's expected mean squared error (..., 1) at noise variances (..., 1), both positive."""
        power = self.amplitude.square() * self.variance
        lost = (self.variance * noise / (power + noise)).sum(dim=-1, keepdim=True)
        return ((lost + self.remainder) / len(self.mean)).clamp_min(1e-9)

    def restored(self, values: Tensor, noise: Tensor) -> Tensor:
        """Maps received values (T, M) with noise variances (T, 1) to standardised tokens (T, D)."""
        return self.linear_estimate(values, noise) + self.correction(values, noise)

    def linear_estimate(self, values: Tensor, noise: Tensor) -> Tensor:
        """Returns the linear estimate (T, D) of least squared error (Wiener); arguments as of ``restored``."""
        gain = self.amplitude * self.variance / (self.amplitude.square() * self.variance + noise)
        # A direction without power carries nothing: 0 / 0 where there is no noise either.
        return (values * gain.nan_to_num(0.0)) @ self.directions.T

    def correction(self, values: Tensor, noise: Tensor) -> Tensor:
        """Returns what the decoder adds to the linear estimate (T, D); arguments as of ``restored``."""
        # In units of the error to correct: what it learns amid noise must not disturb where there is little.
        learned: Tensor = self.decoder(torch.cat([values, noise.log10()], dim=-1))
        return learned * self.linear_error(noise).sqrt()

    def double(self) -> Coder:
        """Returns the same in float64, cut off from training."""
        parts: list[Any] = [
            Layers(*(x.detach().double() for x in part)) if isinstance(part, Layers) else part.detach().double()
            for part in self
        ]
        return Coder(*parts)
