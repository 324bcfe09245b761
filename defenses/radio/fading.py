"""Block fading: one complex gain an image, drawn apart from being applied, estimated from pilots and equalised.

The model of a symbol is y = h x + n with E|x|^2 = 1, E|h|^2 = 1 and n ~ CN(0, N0), so Es/N0 = 1 / N0 on average
and |h|^2 / N0 in one realisation (Goldsmith, Wireless Communications, 2005, 3.2 and 6.3). Shapes: gains (B,), symbols
(B, ...); for images of unequal length pass gains[image_index] with packed symbols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams

Equaliser = Literal["zero_forcing", "mmse"]
Kind = Literal["none", "rayleigh", "rician"]


@dataclass(frozen=True)
class Fading:
    """How the channel gain of an image is distributed and known.

    Args:
        kind: ``none`` (h = 1), ``rayleigh`` (CN(0, 1)) or ``rician`` (line of sight plus scatter, unit mean power).
        k_db: Line-of-sight power over scattered power, in dB; for ``rician`` only.
        pilots: Pilot symbols an image that the receiver estimates h from; None where it knows h.
    """

    kind: Kind = "none"
    k_db: float | None = None
    pilots: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in {"none", "rayleigh", "rician"}:
            raise ConfigError(f"unknown fading {self.kind!r}", hint="none, rayleigh or rician")
        if (self.k_db is not None) != (self.kind == "rician"):
            raise ConfigError(f"k_db = {self.k_db!r} with {self.kind} fading", hint="rician needs k_db, others none")
        if self.k_db is not None and not math.isfinite(self.k_db):
            raise ConfigError(f"k_db = {self.k_db!r} is not finite", hint="for a pure line of sight write kind: none")
        if self.pilots is not None and (isinstance(self.pilots, bool) or self.pilots < 1):
            raise ConfigError(f"pilots = {self.pilots!r}", hint="at least 1, or leave it out for perfect knowledge")


class Equalised(NamedTuple):
    """Symbols brought back to the constellation, and what is left to know about each image, broadcastable to them.

    Args:
        symbols: Equalised.
        noise_variance: E|symbol - x|^2.
        shrinkage: What the equaliser multiplies x by: 1 for zero forcing, less for MMSE.
    """

    symbols: Tensor
    noise_variance: Tensor
    shrinkage: Tensor


def noise_power(snr_db: float) -> float:
    """Returns N0 for unit symbol energy at this Es/N0 in dB.

    Raises:
        ConfigError: It is not a finite number.
    """
    if isinstance(snr_db, bool) or not isinstance(snr_db, int | float) or not math.isfinite(snr_db):
        raise ConfigError(f"snr_db = {snr_db!r} is not a finite number", hint="write snr_db: 10")
    return float(10.0 ** (-snr_db / 10.0))


def complex_normal(shape: Sequence[int], stream: Streams) -> Tensor:
    """Draws CN(0, 1) as complex64 on the CPU: half of the unit variance in each of the two parts."""
    return torch.randn(tuple(shape), dtype=torch.complex64, generator=stream.torch())


def draw_gains(fading: Fading, streams: Sequence[Streams]) -> Tensor:
    """Draws one gain an image.

    Args:
        fading: Its distribution.
        streams: One node an image, length B; the draw is addressed by it alone.

    Returns:
        (B,) complex64 with unit mean power.
    """
    if fading.kind == "none":
        return torch.ones(len(streams), dtype=torch.complex64)
    scatter = torch.stack([complex_normal((), stream.child("gain")) for stream in streams])
    if fading.kind == "rayleigh":
        return scatter
    assert fading.k_db is not None
    k = 10.0 ** (fading.k_db / 10.0)
    return math.sqrt(k / (k + 1)) + scatter / math.sqrt(k + 1)


def estimate_gains(gains: Tensor, fading: Fading, n0: float, streams: Sequence[Streams]) -> Tensor:
    """Returns (B,) gains as the receiver knows them: h, or its least-squares estimate h + CN(0, N0 / pilots).

    The mean of y / x over pilots of unit energy has exactly that error (Kay, Estimation Theory, 1993, 15.8).
    """
    if fading.pilots is None:
        return gains
    errors = torch.stack([complex_normal((), stream.child("pilots")) for stream in streams])
    return gains + errors.to(gains.device) * math.sqrt(n0 / fading.pilots)


def _beside(gains: Tensor, symbols: Tensor) -> Tensor:
    return gains.reshape(gains.shape + (1,) * (symbols.dim() - gains.dim()))


def transmit(symbols: Tensor, gains: Tensor, n0: float, unit_noise: Tensor) -> Tensor:
    """Returns y = h x + sqrt(N0) w.

    Args:
        symbols: (B, ...) complex64, unit mean energy.
        gains: (B,) complex64.
        n0: Noise energy a complex symbol.
        unit_noise: CN(0, 1) of the shape of ``symbols``.
    """
    return _beside(gains, symbols) * symbols + math.sqrt(n0) * unit_noise


def equalise(
    received: Tensor, known_gains: Tensor, n0: float, method: Equaliser = "zero_forcing", pilots: int | None = None
) -> Equalised:
    """Undoes the gain.

    Zero forcing: y / h, error N0 / |h|^2. MMSE: conj(h) y / (|h|^2 + N0), error N0 / (|h|^2 + N0), which is smaller but
    shrinks the symbols; dividing that shrinkage out again gives zero forcing, so with one antenna there is no third,
    unbiased way, and a demapper wants zero forcing (Tse and Viswanath, Wireless Communication, 2005, 8.3).

    Args:
        received: (B, ...) complex64.
        known_gains: (B,) complex64, true or estimated.
        n0: Noise energy a complex symbol.
        method: Which of the two.
        pilots: Where the gains are estimated, the pilots they come from: the estimate's error counts as more noise,
            N0 (1 + 1 / pilots), taken as independent of the estimate.
    """
    gains = _beside(known_gains, received)
    # A gain of exactly zero would give NaN, which a demapper turns into confident nonsense.
    power = gains.abs().square().clamp_min(torch.finfo(torch.float32).tiny * 1e6)
    noise = n0 * (1.0 + (1.0 / pilots if pilots else 0.0))
    scale = power if method == "zero_forcing" else power + noise
    return Equalised(received * gains.conj() / scale, noise / scale, power / scale)
