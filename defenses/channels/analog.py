"""Analog channels: two token values a complex symbol, power normalised per image, block fading per image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from leakgauge.defenses.radio.fading import (
    Equaliser,
    Fading,
    draw_gains,
    equalise,
    estimate_gains,
    noise_power,
    transmit,
)
from leakgauge.harness.contracts.link import Channel, ChannelState, Received, SymbolCodec, symbols_per_image
from leakgauge.harness.suite.options import Count, Decibel
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


def image_power(sent: TokenBatch) -> Tensor:
    """Returns (B,) mean squares of each image's own token values, so that no image depends on its batch mates."""
    energy = sent.tokens.float().square().mean(dim=1)
    return energy.new_zeros(len(sent)).index_add_(0, sent.image_index, energy) / sent.lengths.clamp_min(1)


def symbol_energy(sent: TokenBatch) -> Tensor:
    """Returns (B,) the mean energy of the complex symbols of each image, in squared token values.

    Two values fill a symbol. Where the width is odd, the last symbol of a token holds one value and no other: it is a
    channel use like any other and has half the energy.
    """
    width = sent.tokens.shape[1]
    return image_power(sent) * (width / max(1, (width + 1) // 2))


def restored_tokens(symbols: TokenBatch, received: Received, codec: SymbolCodec) -> Tensor:
    """Returns the tokens (T, D) that a codec's receiver makes of what arrived of its ``symbols``.

    The codec estimates with least squared error itself: an equaliser that did so before it is undone.
    """
    owner, values = symbols.image_index, received.tokens.tokens
    ratio = torch.zeros(len(symbols))
    if received.state is not None:
        factor, variance = received.state.unbiased()
        values = values * factor.to(values)[owner][:, None]
        ratio = variance / image_power(symbols).clamp_min(torch.finfo(torch.float32).tiny)
    return codec.from_symbols(values, ratio[owner])


class IdealChannel(Channel):
    """Delivers what was sent."""

    name = "ideal"

    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Returns the tokens unchanged."""
        return Received(sent, symbols_per_image(sent), None)


class AwgnChannel(Channel):
    """Additive white Gaussian noise.

    Each image's token values are scaled to unit mean symbol energy by their own power alone; the receiver knows the
    scale (assumed delivered without error, as are counts and sizes).

    Args:
        snr_db: Es/N0 per complex symbol, in dB.
    """

    name = "awgn"
    random = True

    def __init__(self, snr_db: Decibel) -> None:
        self.snr_db = float(snr_db)

    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Adds noise whose variance on each real value is half of N0, the image's mean symbol energy over Es/N0."""
        assert self.snr_db is not None
        noise_std = (symbol_energy(sent) * noise_power(self.snr_db) / 2).sqrt()
        noise = rng.normal_per_image(ids, sent.lengths, sent.tokens.shape[1]).to(sent.tokens.device)
        tokens = sent.tokens + noise * noise_std[sent.image_index][:, None]
        return Received(sent.with_tokens(tokens), symbols_per_image(sent), ChannelState(noise_std))


class FadingChannel(Channel):
    """Block fading: one complex gain an image, additive noise, equalisation at the receiver.

    Args:
        snr_db: Mean Es/N0 per complex symbol, in dB.
        kind: ``rayleigh`` or ``rician``.
        k_db: Line-of-sight power over scattered power in dB; for ``rician`` only.
        pilots: Pilot symbols an image from which the receiver estimates the gain, counted as channel uses; None: the
            receiver knows it.
        equaliser: ``mmse`` or ``zero_forcing``.

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "fading"
    random = True

    def __init__(
        self,
        snr_db: Decibel,
        kind: Literal["rayleigh", "rician"] = "rayleigh",
        k_db: Decibel | None = None,
        pilots: Count | None = None,
        equaliser: Equaliser = "mmse",
    ) -> None:
        self.snr_db = float(snr_db)
        self._fading = Fading(kind, k_db, pilots)
        self._equaliser: Equaliser = equaliser

    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Sends y = h x + n with one h an image, and returns the equalised values."""
        assert self.snr_db is not None
        device, width = sent.tokens.device, sent.tokens.shape[1]
        n0, nodes = noise_power(self.snr_db), [rng.child("fading", image_id) for image_id in ids]
        gains = draw_gains(self._fading, nodes)
        known = estimate_gains(gains, self._fading, n0, nodes).to(device)
        # To symbols of unit mean energy.
        scale = symbol_energy(sent).sqrt().clamp_min(torch.finfo(torch.float32).tiny)[sent.image_index][:, None]
        padded = width + width % 2
        noise = _complex(rng.normal_per_image(ids, sent.lengths, padded).to(device)) / 2**0.5
        owner = sent.image_index
        received = transmit(_complex(sent.tokens.float() / scale), gains.to(device)[owner], n0, noise)
        restored = equalise(received, known[owner], n0, self._equaliser, self._fading.pilots)
        tokens = torch.view_as_real(restored.symbols).flatten(1)[:, :width] * scale
        first = sent.offsets[:-1]
        # Half of a symbol's error falls on each of its two values.
        noise_std = (restored.noise_variance.flatten()[first] / 2).sqrt() * scale[first, 0]
        uses = symbols_per_image(sent) + (self._fading.pilots or 0)
        shrinkage = restored.shrinkage.flatten()[first] if self._equaliser == "mmse" else None
        return Received(sent.with_tokens(tokens), uses, ChannelState(noise_std, known, shrinkage))


def _complex(values: Tensor) -> Tensor:
    """Pairs the columns of (T, D) real values, a zero after an odd last one: (T, ceil(D / 2)) complex64."""
    if values.shape[1] % 2:
        values = torch.nn.functional.pad(values, (0, 1))
    return torch.view_as_complex(values.float().reshape(len(values), -1, 2).contiguous())
