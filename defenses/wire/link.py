"""The link: what the edge's tokens become on their way, and what the server makes of what arrives."""

from __future__ import annotations

from torch import Tensor

from leakgauge.defenses.channels.analog import restored_tokens
from leakgauge.defenses.wire.payload import Serialised
from leakgauge.defenses.wire.serialisation import check_symbols, encoded_tokens
from leakgauge.defenses.wire.transport import NoValues, OnLoss, Placeholder, mean_placeholder, packed, unpacked
from leakgauge.harness.contracts.link import Channel, Codec, Encoded, PacketChannel, SymbolCodec, Transmission
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


class Link:
    """Codec, payload and channel, and what stands in for lost tokens.

        edge                          link                             server
        tokens (n, D) -> codec -> packets of bytes -> channel -> packets that arrived -> tokens (n, D)
                      -> codec ------ symbols ------> channel -> noisy symbols --------> tokens (n, D)

    Args:
        channel: Between edge and server.
        codec: Token values to bytes, or straight to channel symbols.
        packet_tokens: Patch tokens a packet, where the channel carries packets.
        on_loss: What becomes of lost tokens: ``mean`` or ``drop``.

    Attributes:
        may_lose: Whether packets are carried, each of which arrives whole or is lost.
    """

    def __init__(self, channel: Channel, codec: Codec | SymbolCodec, packet_tokens: int, on_loss: OnLoss) -> None:
        check_symbols(codec, channel)
        self.channel, self.codec = channel, codec
        self._symbol_codec = codec if isinstance(codec, SymbolCodec) else None
        self._byte_codec = NoValues() if isinstance(codec, SymbolCodec) else codec
        self.may_lose = isinstance(channel, PacketChannel)
        self._packet_tokens, self._on_loss = packet_tokens, on_loss
        self._placeholder: Placeholder | None = None

    @property
    def learned(self) -> bool:
        """Whether the codec is fitted to calibration images."""
        return self._symbol_codec is not None or type(self._byte_codec).prepare is not Codec.prepare

    @property
    def needs_tokens(self) -> bool:
        """Whether ``prepare`` must be called: the codec is learned, or lost tokens are stood in for."""
        return self.learned or self.may_lose

    def prepare(self, batch: TokenBatch, rng: Streams) -> None:
        """Fits the codec, and what stands in for lost tokens, to calibration images' tokens (float32, on the CPU)."""
        self._placeholder = mean_placeholder(batch)
        if self._symbol_codec is not None:
            self._symbol_codec.prepare(batch.tokens, rng.child("codec"))
        elif self.learned:
            self._byte_codec.prepare(batch.tokens)

    def packets(self, batch: TokenBatch, sizes_sent: bool) -> list[list[Serialised]]:
        """Serialises the tokens of each image: one packet, or for a packet channel several."""
        return packed(batch, sizes_sent, self._byte_codec, self._packet_tokens if self.may_lose else None)

    def payload_bytes(self, batch: TokenBatch, sizes_sent: bool) -> int:
        """Returns the bytes of all packets that the tokens of one image make."""
        return sum(len(packet.data) for packet in self.packets(batch, sizes_sent)[0])

    def encode(self, batch: TokenBatch, ids: tuple[str, ...], counts: Tensor, sizes_sent: bool) -> Encoded:
        """Serialises tokens of images (B); ``counts`` (B, cut) are the tokens after each block."""
        return encoded_tokens(batch, self.packets(batch, sizes_sent), self.codec, ids, counts, sizes_sent)

    def send(self, encoded: Encoded, rng: Streams, channel: Channel | None = None) -> Transmission:
        """Sends packets, or over an analog channel token values as symbols; ``channel`` is an eavesdropper's.

        Over an analog channel counts, sizes and scale are assumed to arrive.
        """
        channel = channel or self.channel
        if isinstance(channel, PacketChannel):
            return self._send_packets(encoded, rng, channel)
        if encoded.symbols is None:
            received = channel.apply(encoded.decoded, encoded.ids, rng)
            return Transmission(encoded, received.tokens, received.channel_uses, received.state)
        assert self._symbol_codec is not None
        received = channel.apply(encoded.symbols, encoded.ids, rng)
        tokens = encoded.decoded.with_tokens(restored_tokens(encoded.symbols, received, self._symbol_codec))
        return Transmission(encoded, tokens, received.channel_uses, received.state)

    def _send_packets(self, encoded: Encoded, rng: Streams, channel: PacketChannel) -> Transmission:
        """Sends packets and puts together what arrives."""
        check_symbols(self.codec, channel)
        if self._placeholder is None:
            raise PluginError("what stands in for lost tokens is not known", hint="call prepare() first")
        delivered = channel.carry(encoded.packets, encoded.ids, rng)
        batch, lost = unpacked(delivered.packets, encoded.decoded, self._byte_codec, self._placeholder, self._on_loss)
        return Transmission(encoded, batch, delivered.channel_uses, delivered.state, lost)
