"""From tokens to packets and back: what was sent, what arrived, and what stands in for tokens that were lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.payload import ByteAccount, ParsedPayload, Serialised, parse, serialise
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import PayloadError
from leakgauge.harness.values.tokens import DROPPED, TokenBatch, offsets_of

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
            raise _error("values where none were to come")
        return torch.zeros(1, 1).expand(count, width)  # one zero, however many are asked for


class Placeholder(NamedTuple):
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


def packed(batch: TokenBatch, sizes_sent: bool, codec: Codec, packet_tokens: int | None) -> list[list[Serialised]]:
    """Serialises the tokens of each image: one packet, or several where ``packet_tokens`` says how many go into one."""
    return [
        pack(batch.tokens[a:b], batch.sizes[a:b] if sizes_sent else None, batch.prefix, codec, packet_tokens)
        for a, b in pairwise(batch.offsets.tolist())
    ]


def unpack(
    packets: Sequence[bytes | None], known: Known, codec: Codec, placeholder: Placeholder, on_loss: OnLoss
) -> Arrived:
    """Puts together what arrived of one image, in whatever order.

    Protected tokens that were lost are replaced by their means, because the server half cannot do without them; lost
    patch tokens are left out, or replaced by the mean patch token where a packet tells the number of tokens.

    Args:
        packets: As received, None for a lost one.
        known: What the receiver knows of the victim.
        codec: Reads the values.
        placeholder: What stands in for lost tokens.
        on_loss: ``drop`` or ``mean``.

    Raises:
        PayloadError: A packet that arrived is not what the format says, or packets overlap or contradict one another.
    """
    if placeholder.patch.shape != (known.width,) or placeholder.prefix.shape != (known.prefix, known.width):
        raise _error(f"what stands in for lost tokens does not have {known.width} channels")
    parsed = [parse(packet, known, codec) for packet in packets if packet is not None]
    _check_together(parsed)
    total = parsed[0].total if parsed else known.prefix
    tokens = torch.zeros(total, known.width)
    tokens[: known.prefix], tokens[known.prefix :] = placeholder.prefix, placeholder.patch
    sizes, source = torch.ones(total, dtype=torch.long), torch.full((total,), -1)
    for one in parsed:
        rows = slice(one.first, one.first + len(one.tokens))
        if bool((source[rows] >= 0).any()):
            raise _error(f"tokens {rows.start} to {rows.stop - 1} came twice")
        tokens[rows], source[rows] = one.tokens, torch.arange(rows.start, rows.stop)
        if one.sizes is not None:
            sizes[rows] = one.sizes
    if int(sizes[known.prefix :].sum()) > known.patches:
        raise _error(f"sizes of one image add up to more than {known.patches} patches")
    if on_loss == "drop":
        keep = source >= 0
        keep[: known.prefix] = True
        tokens, sizes, source = tokens[keep], sizes[keep], source[keep]
    return Arrived(tokens, sizes, source)


def _error(what: str) -> PayloadError:
    return PayloadError(what, where="payload", hint="send it again")


def _check_together(parsed: Sequence[ParsedPayload]) -> None:
    """Raises PayloadError where packets of one image say different things of it."""
    if len(parsed) > 1 and not all(len(one.tokens) for one in parsed):
        raise _error("a packet of several holds no token")
    if len({one.total for one in parsed}) > 1:
        raise _error("packets of one image disagree on its tokens")
    if len({(one.sizes is None, one.order is None, one.merge_map is None) for one in parsed}) > 1:
        raise _error("packets of one image disagree on what they carry")
    maps = [one.merge_map for one in parsed if one.merge_map is not None]
    if any(not torch.equal(one, maps[0]) for one in maps[1:]):
        raise _error("packets of one image disagree on its merge map")
    places = torch.cat([one.order for one in parsed if one.order is not None] or [torch.empty(0, dtype=torch.long)])
    if len(torch.unique(places)) != len(places):
        raise _error("packets of one image disagree on its order")


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


def unpacked(
    packets: Sequence[Sequence[bytes | None]], sent: TokenBatch, codec: Codec, placeholder: Placeholder, on_loss: OnLoss
) -> tuple[TokenBatch, Tensor]:
    """Unpacks what arrived of every image: the tokens, and how many of each (B,) int64 were lost.

    Args:
        packets: As received, each image's.
        sent: What was sent.
        codec: As for ``unpack``.
        placeholder: As for ``unpack``.
        on_loss: As for ``unpack``.
    """
    known = known_of(sent)
    arrived = [unpack(own, known, codec, placeholder, on_loss) for own in packets]
    lost = sent.lengths - torch.tensor([int((one.source >= 0).sum()) for one in arrived])
    return received_batch(arrived, sent), lost


def known_of(batch: TokenBatch) -> Known:
    """Returns what the receiver of a batch of the victim knows beforehand: it shares prefix, width and grid."""
    return Known(batch.prefix, batch.tokens.shape[1], batch.merge_map.shape[1])


def account_of(packets: Sequence[Sequence[Serialised]]) -> dict[str, Tensor]:
    """Adds up where the bytes of each image go: (B,) int64 by part."""
    return {
        part: torch.tensor([sum(int(getattr(one.account, part)) for one in own) for own in packets])
        for part in ByteAccount._fields
    }


def mean_placeholder(batch: TokenBatch) -> Placeholder:
    """Returns the means over the images of a batch: each protected token, and the patch tokens together."""
    starts = offsets_of(batch.lengths)[:-1]
    prefix = (
        torch.stack([batch.tokens[starts + i].mean(dim=0) for i in range(batch.prefix)])
        if batch.prefix
        else (batch.tokens.new_zeros(0, batch.tokens.shape[1]))
    )
    position = torch.arange(len(batch.tokens)) - starts[batch.image_index]
    return Placeholder(prefix.float(), batch.tokens[position >= batch.prefix].mean(dim=0).float())
