"""Channels that carry tokens as analog symbols: two values a complex symbol, power normalised per image."""

from __future__ import annotations

import math

from torch import Tensor

from harness.contracts import Channel, ChannelState, Received
from harness.errors import ConfigError
from harness.seeding import Streams
from harness.tokens import TokenBatch


def symbols_per_image(sent: TokenBatch) -> Tensor:
    """Returns (B,) complex symbols that an image's token values fill, two real values a symbol."""
    return (sent.lengths * sent.tokens.shape[1] + 1) // 2


class IdealChannel(Channel):
    """Delivers what was sent."""

    name = "ideal"

    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Returns the tokens unchanged."""
        return Received(sent, symbols_per_image(sent), None)


class AwgnChannel(Channel):
    """Additive white Gaussian noise.

    Each image's token values are scaled to unit mean symbol power by their own power alone, so that no image depends
    on its batch mates; the receiver knows the scale (assumed delivered without error, as are sizes).

    Args:
        snr_db: Es/N0 per complex symbol, in dB.
    """

    name = "awgn"

    def __init__(self, snr_db: float) -> None:
        if isinstance(snr_db, bool) or not isinstance(snr_db, int | float) or not math.isfinite(snr_db):
            raise ConfigError(f"snr_db = {snr_db!r} is not a finite number", mend="write snr_db: 10")
        self.snr_db = float(snr_db)

    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Adds noise whose variance on each real value is the image's mean squared value over Es/N0."""
        assert self.snr_db is not None
        energy = sent.tokens.float().square().mean(dim=1)
        power = energy.new_zeros(len(sent)).index_add_(0, sent.image_index, energy) / sent.lengths
        # A symbol holds two values: Es = 2 power and N0 = 2 variance, so the ratio of value to value is Es/N0 too.
        noise_std = (power / 10.0 ** (self.snr_db / 10.0)).sqrt()
        noise = rng.normal_per_image(ids, sent.lengths, sent.tokens.shape[1]).to(sent.tokens.device)
        tokens = sent.tokens + noise * noise_std[sent.image_index][:, None]
        return Received(sent.with_tokens(tokens), symbols_per_image(sent), ChannelState(noise_std))
