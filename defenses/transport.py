"""From tokens to packets and back: what was sent, what arrived, and what stands in for tokens that were lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from defenses.payload import ByteAccount, Serialised, parse, serialise
from harness.errors import PayloadError
from harness.link import Codec
from harness.tokens import DROPPED, TokenBatch, offsets_of

OnLoss = Literal["drop", "mean"]


class NoValues(Codec):
    """Writes no token values: the packet that goes beside analog symbols, with counts and sizes alone."""

    name = "no_values"

    def encode(self, tokens: Tensor) -> bytes:
        """Returns nothing."""
        return b""

    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns zeros (count, width)."""
        if data:
            raise PayloadError("values where none were to come", where="payload", mend="send it again")
        return torch.zeros(count, width)


class Stand(NamedTuple):
    """Means over calibration images that stand in for lost tokens: protected ones (prefix, D), a patch token (D,)."""

    prefix: Tensor
    patch: Tensor


class Arrived(NamedTuple):
    """One image's tokens as a receiver has them.

    Args:
        tokens: (n, D) float32.
        sizes: (n,) int64, 1 where no size arrived.
        source: (n,) int64 index of each among the tokens sent; -1 for one that stands in for a lost token.
    """

    tokens: Tensor
    sizes: Tensor
    source: Tensor


def pack(
    tokens: Tensor, sizes: Tensor | None, prefix: int, codec: Codec, packet_tokens: int | None
) -> list[Serialised]:
    """Serialises one image's tokens.

    Args:
        tokens: (n, D) float32.
        sizes: (n,) int64, or None to withhold them.
        prefix: Protected tokens at the start; they travel in the first packet, beside other tokens.
        codec: Turns values into bytes.
        packet_tokens: Patch tokens a packet; None puts all into one.
    """
    total = len(tokens)
    step = total if packet_tokens is None else packet_tokens
    ends = [min(total, prefix + step)]
    while ends[-1] < total:
        ends.append(min(total, ends[-1] + step))
    packets = []
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        own = None if sizes is None else sizes[first:end]
        packets.append(serialise(tokens[first:end], own, prefix, codec, first=first, total=total))
    return packets


def unpack(packets: Sequence[bytes | None], prefix: int, codec: Codec, stand: Stand, on_loss: OnLoss) -> Arrived:
    """Puts together what arrived of one image.

    Protected tokens that were lost are replaced by their means, because the server half cannot do without them; lost
    patch tokens are left out, or replaced by the mean patch token where a packet tells the number of tokens.

    Args:
        packets: In the order sent, None for a lost one.
        prefix: Protected tokens at the start of the image.
        codec: Reads the values.
        stand: What stands in for lost tokens.
        on_loss: ``drop`` or ``mean``.

    Raises:
        PayloadError: A packet that arrived is not what the format says, or packets contradict one another.
    """
    parsed = [parse(packet, prefix, codec) for packet in packets if packet is not None]
    if len({one.total for one in parsed}) > 1:
        raise PayloadError("packets of one image disagree on its tokens", where="payload", mend="send it again")
    total = parsed[0].total if parsed else prefix
    width = stand.patch.shape[0]
    tokens = torch.zeros(total, width)
    tokens[:prefix], tokens[prefix:] = stand.prefix, stand.patch
    sizes, source = torch.ones(total, dtype=torch.long), torch.full((total,), -1)
    for one in parsed:
        rows = slice(one.first, one.first + len(one.tokens))
        tokens[rows], source[rows] = one.tokens, torch.arange(rows.start, rows.stop)
        if one.sizes is not None:
            sizes[rows] = one.sizes
    if on_loss == "drop":
        keep = source >= 0
        keep[:prefix] = True
        tokens, sizes, source = tokens[keep], sizes[keep], source[keep]
    return Arrived(tokens, sizes, source)


def received_batch(images: Sequence[Arrived], sent: TokenBatch) -> TokenBatch:
    """Packs what arrived of several images; the merge map follows, patches of lost tokens are ``DROPPED``.

    Args:
        images: What arrived of each.
        sent: What was sent, for its merge map and prefix.
    """
    maps = []
    for arrived, merge_map, length in zip(images, sent.merge_map, sent.lengths.tolist(), strict=True):
        place = torch.full((length + 1,), DROPPED)  # the last entry answers for patches dropped before
        here = (arrived.source >= 0).nonzero().squeeze(1)
        place[arrived.source[here]] = here
        maps.append(place[merge_map])
    return TokenBatch(
        torch.cat([one.tokens for one in images]),
        torch.tensor([len(one.tokens) for one in images]),
        torch.cat([one.sizes for one in images]),
        torch.stack(maps),
        sent.prefix,
    )


def account_of(packets: Sequence[Sequence[Serialised]]) -> dict[str, Tensor]:
    """Adds up where the bytes of each image go: (B,) int64 by part."""
    return {
        part: torch.tensor([sum(int(getattr(one.account, part)) for one in own) for own in packets])
        for part in ByteAccount._fields
    }


def mean_stand(batch: TokenBatch) -> Stand:
    """Returns the means over the images of a batch: each protected token, and the patch tokens together."""
    starts = offsets_of(batch.lengths)[:-1]
    prefix = (
        torch.stack([batch.tokens[starts + i].mean(dim=0) for i in range(batch.prefix)])
        if batch.prefix
        else (batch.tokens.new_zeros(0, batch.tokens.shape[1]))
    )
    position = torch.arange(len(batch.tokens)) - starts[batch.image_index]
    return Stand(prefix.float(), batch.tokens[position >= batch.prefix].mean(dim=0).float())
