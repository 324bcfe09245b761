"""What the edge hands to the channel: the packets of every image, and the tokens as a receiver decodes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leakgauge.defenses.wire.payload import Serialised, parse
from leakgauge.defenses.wire.transport import account_of, known_of
from leakgauge.harness.contracts.link import Channel, Codec, Encoded, PacketChannel, SymbolCodec
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.tokens import TokenBatch


def check_symbols(codec: Codec | SymbolCodec, channel: Channel) -> None:
    """Raises ConfigError where a channel of packets should carry a codec's symbols."""
    if isinstance(codec, SymbolCodec) and isinstance(channel, PacketChannel):
        raise ConfigError(
            f"codec {codec.name!r} makes symbols, channel {channel.name!r} carries packets",
            where="defense 'split_pipeline'",
            hint="take an analog channel, or another codec",
        )


def encoded_tokens(
    batch: TokenBatch,
    packets: Sequence[Sequence[Serialised]],
    codec: Codec | SymbolCodec,
    ids: tuple[str, ...],
    tokens_per_layer: Tensor,
    sizes_sent: bool,
) -> Encoded:
    """Decodes every image's packets again, as a receiver will, and adds up their bytes.

    Args:
        batch: The tokens on the CPU, float32.
        packets: Each image's packets.
        codec: What wrote the token values; a SymbolCodec makes symbols of them instead.
        ids: B image identifiers.
        tokens_per_layer: (B, cut) token counts after each edge block.
        sizes_sent: Whether the packets carry sizes.
    """
    account = account_of(packets)
    values, symbols = [], None
    sizes = batch.sizes if sizes_sent else torch.ones_like(batch.sizes)
    if isinstance(codec, SymbolCodec):
        symbols = batch.with_tokens(codec.to_symbols(batch.tokens))
        values = [codec.from_symbols(symbols.tokens, torch.zeros(len(batch.tokens)))]
    else:
        known = known_of(batch)
        values = [parse(packet.data, known, codec).tokens for own in packets for packet in own]
    body = account["codec_side"] + account["values"]
    total = sum(account.values(), torch.zeros(len(batch), dtype=torch.long))
    return Encoded(
        ids=ids,
        decoded=TokenBatch(torch.cat(values), batch.lengths, sizes, batch.merge_map, batch.prefix),
        payload_bytes=total,
        side_bytes=total - body,
        tokens_per_layer=tokens_per_layer.cpu(),
        sizes_sent=sizes_sent,
        packets=tuple(tuple(packet.data for packet in own) for own in packets),
        symbols=symbols,
        account=account,
    )
