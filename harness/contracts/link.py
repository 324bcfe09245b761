"""The contracts of the link: what leaves the edge, what carries it, and what arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

Packets = tuple[tuple[bytes, ...], ...]
"""The packets of each image, in order."""


class Perturbation(ABC):
    """A privacy mechanism on the tokens before they are encoded: noise, dropout, shuffling, padding of the count.

    What becomes of an image depends on that image alone.
    """

    name: ClassVar[str]

    @abstractmethod
    def apply(self, batch: TokenBatch, ids: tuple[str, ...], rng: Streams) -> TokenBatch:
        """Returns the tokens of the images ``ids``, perturbed; lengths, sizes and merge map follow."""


class Codec(ABC):
    """Turns token values into bytes and back."""

    name: ClassVar[str]

    @abstractmethod
    def encode(self, tokens: Tensor) -> bytes:
        """Returns the bytes of tokens (n, D) float32 of one image."""

    @abstractmethod
    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns tokens (count, width) float32; raises PayloadError where ``data`` does not hold just these."""

    def prepare(self, tokens: Tensor) -> None:  # noqa: B027 -- optional: most codecs need nothing
        """Fits what both ends share beforehand, never sent, to calibration tokens (n, D); does nothing by default."""

    @property
    def signature(self) -> str:
        """What both ends must agree on, options included; payloads carry a checksum of it."""
        return self.name

    def side_bytes(self, count: int, width: int) -> int:
        """Returns how many of the bytes of (count, width) tokens are no token values: bounds or tables, say."""
        return 0


class SymbolCodec(ABC):
    """Maps tokens straight to channel symbols and back (joint source-channel coding); for analog channels only.

    Attributes:
        uses_per_token: Complex symbols a token fills.
    """

    name: ClassVar[str]
    uses_per_token: int

    @abstractmethod
    def prepare(self, tokens: Tensor, rng: Streams) -> None:
        """Trains both ends on calibration tokens (n, D)."""

    @abstractmethod
    def to_symbols(self, tokens: Tensor) -> Tensor:
        """Maps tokens (T, D) to real symbol values (T, 2 * uses_per_token)."""

    @abstractmethod
    def from_symbols(self, values: Tensor, noise_to_signal: Tensor) -> Tensor:
        """Maps received values to tokens (T, D).

        Args:
            values: (T, 2 * uses_per_token) as sent plus noise; what an equaliser shrank has been divided out.
            noise_to_signal: (T,) power of that noise over the power of the signal.
        """


class ChannelState(NamedTuple):
    """A channel realisation.

    Args:
        noise_std: (B,) root mean squared error of each real value that was sent, after equalisation.
        gain: (B,) complex64 block-fading gain as the receiver knows it; None without fading.
        shrinkage: (B,) factor in (0, 1] by which the equaliser shrank the values, of which ``noise_std`` counts the
            bias too; None for 1. ``unbiased`` divides it out.
    """

    noise_std: Tensor
    gain: Tensor | None = None
    shrinkage: Tensor | None = None

    def unbiased(self) -> tuple[Tensor, Tensor]:
        """Returns (B,) the factor that undoes the shrinkage, and (B,) the noise variance of a value after that.

        An estimate of least squared error s x + e, with s its shrinkage, has the error variance (1 - s) P for values
        of power P. Divided by s it is x plus noise of variance (1 - s) P / s, which is its error variance over s.
        """
        variance = self.noise_std.square()
        if self.shrinkage is None:
            return torch.ones_like(variance), variance
        shrinkage = self.shrinkage.clamp_min(torch.finfo(torch.float32).tiny)
        return 1 / shrinkage, variance / shrinkage


def symbols_per_image(sent: TokenBatch) -> Tensor:
    """Returns (B,) complex symbols that an image's token values fill: two real values a symbol, token by token."""
    return sent.lengths * ((sent.tokens.shape[1] + 1) // 2)


class Received(NamedTuple):
    """What comes out of an analog channel: tokens in the packed layout sent, channel uses (B,), the realisation."""

    tokens: TokenBatch
    channel_uses: Tensor
    state: ChannelState | None


class Delivered(NamedTuple):
    """What comes out of a packet channel: each image's packets, None for a lost one, channel uses (B,), realisation."""

    packets: tuple[tuple[bytes | None, ...], ...]
    channel_uses: Tensor
    state: ChannelState | None


class Channel(ABC):
    """Carries an image's tokens from the edge to a receiver. What one image receives never depends on its batch mates.

    A channel implements ``apply`` (analog: token values as symbols) or is a PacketChannel.
    """

    name: ClassVar[str]
    snr_db: float | None = None
    """Es/N0 per complex symbol in dB; None for a channel without noise."""
    random: bool = False
    """Whether two transmissions of one image may differ."""

    @abstractmethod
    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Sends the tokens of the images ``ids`` once."""


class PerImageChannel(Channel):
    """An analog channel that disturbs each image's token values by themselves, at two real values a complex symbol."""

    random = True

    @abstractmethod
    def disturb(self, tokens: Tensor, rng: Streams) -> Tensor:
        """Returns what arrives of one image's tokens (n, D); ``rng`` is the stream of this image alone.

        The tokens must stay as they are: others send them again.
        """

    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Sends the tokens of the images ``ids`` once, image by image."""
        each = zip(torch.split(sent.tokens, sent.lengths.tolist()), ids, strict=True)
        arrived = [self.disturb(tokens, rng.child(self.name, image_id)).to(tokens) for tokens, image_id in each]
        return Received(sent.with_tokens(torch.cat(arrived)), symbols_per_image(sent), None)


class PacketChannel(Channel):
    """A digital channel: it carries packets of bytes, each of which arrives whole or is lost."""

    @abstractmethod
    def carry(self, packets: Packets, ids: tuple[str, ...], rng: Streams) -> Delivered:
        """Sends the packets of the images ``ids`` once."""

    def apply(self, sent: TokenBatch, ids: tuple[str, ...], rng: Streams) -> Received:
        """Raises TypeError: packets are carried, tokens are not."""
        raise TypeError(f"channel {self.name!r} carries packets")


@dataclass(frozen=True)
class Encoded:
    """What the edge hands to the channel.

    Args:
        ids: B image identifiers.
        decoded: The tokens as a receiver without channel errors decodes them from the payload.
        payload_bytes: (B,) int64, bytes of all packets of an image, ``len()`` of what was serialised.
        side_bytes: (B,) int64, of these the header and side information (sizes).
        tokens_per_layer: (B, layers) int64 tokens an image after each edge block, prefix included.
        sizes_sent: Whether the payload carries the sizes.
        packets: The serialised packets of each image.
        symbols: What an analog channel carries, where that is not the decoded tokens themselves.
        account: (B,) int64 bytes by what they are for; they add up to ``payload_bytes``.
    """

    ids: tuple[str, ...]
    decoded: TokenBatch
    payload_bytes: Tensor
    side_bytes: Tensor
    tokens_per_layer: Tensor
    sizes_sent: bool
    packets: Packets = ()
    symbols: TokenBatch | None = None
    account: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def concatenate(parts: Sequence[Encoded]) -> Encoded:
        """Joins what the edge made of several batches."""

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])

        symbols = [part.symbols for part in parts if part.symbols is not None]
        return Encoded(
            ids=tuple(image_id for part in parts for image_id in part.ids),
            decoded=TokenBatch.concatenate([part.decoded for part in parts]),
            payload_bytes=joined("payload_bytes"),
            side_bytes=joined("side_bytes"),
            tokens_per_layer=joined("tokens_per_layer"),
            sizes_sent=parts[0].sizes_sent,
            packets=tuple(packets for part in parts for packets in part.packets),
            symbols=TokenBatch.concatenate(symbols) if symbols else None,
            account={name: torch.cat([part.account[name] for part in parts]) for name in parts[0].account},
        )


@dataclass(frozen=True)
class Transmission:
    """What a receiver gets for a batch of images, with the cost of sending it.

    ``received.merge_map`` is the simulator's ground truth: no payload carries it unless the defense says so, and an
    attack sees it only where its threat model says so. ``lost`` (B,) counts tokens that never arrived.
    """

    encoded: Encoded
    received: TokenBatch
    channel_uses: Tensor
    state: ChannelState | None
    lost: Tensor | None = None
