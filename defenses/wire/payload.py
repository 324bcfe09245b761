"""The wire format, version 2: self-contained packets, checksummed, parsed without trusting a length field.

Layout, little-endian; what is not sent is absent:

    ======  =====================================================================================================
    bytes   field
    ======  =====================================================================================================
    3 + 1   magic ``LKG`` and version
    2       codec code: the low half of the CRC32 of ``Codec.signature``; a receiver refuses another codec's payload
    1       flags: 1 = sizes, 2 = sizes of two bytes, 4 = order, 8 = merge map
    2       tokens in this packet
    2       index of its first token in the image
    2       tokens of the whole image, so that an image can be split over several packets
    2       width: channels a token, at least 1
    1       prefix: protected tokens at the start of the image
    ...     sizes: one each for the packet's unprotected tokens, 1 byte, or 2 where one exceeds 255
    ...     order: 2 bytes each, the original position of the packet's tokens within the image
    ...     merge map: patch count (2 bytes), then for each patch its token's index in the image, 0xFFFF = dropped
    ...     token values, as the codec writes them
    4       CRC32 of all before it
    ======  =====================================================================================================

Limits: 65,535 tokens, channels and patches; 255 protected tokens. Nothing is allocated on a claim: every count is held
against the real length and against what the receiver knows of the victim (``Known``) first, and codecs refuse more
than a fixed number of values a byte (``entropy``: 16), so that parsing needs at most a small multiple of the packet's
length, or of the largest image. Whatever the bytes, also where a codec fails on them, the parser raises PayloadError
alone.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leakgauge.defenses.wire.packet_layout import (
    DAMAGED,
    OTHER_SENDER,
    Known,
    Layout,
    check_map,
    check_order,
    payload_error,
)
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import PayloadError, PluginError
from leakgauge.harness.values.tokens import DROPPED

MAGIC, VERSION = b"LKG", 2
_HEADER = struct.Struct("<3sBHBHHHHB")
_COUNT = struct.Struct("<H")
_CRC = struct.Struct("<I")
_SIZES, _WIDE_SIZES, _ORDER, _MERGE_MAP = 1, 2, 4, 8
_DROPPED_CODE, _MOST = 0xFFFF, 0xFFFF
_MOST_QUOTED = 80


class ParsedPayload(NamedTuple):
    """What a packet says; None where it was not sent.

    Args:
        tokens: (n, D) float32.
        sizes: (n,) int64.
        order: (n,) int64, original position of each token within its image.
        merge_map: (N,) int64, for each source patch its token's index in the image, or ``DROPPED``.
        first: Index of the first token in the image.
        total: Tokens of the image.
    """

    tokens: Tensor
    sizes: Tensor | None
    order: Tensor | None
    merge_map: Tensor | None
    first: int
    total: int


class ByteAccount(NamedTuple):
    """Where a payload's bytes go; their sum is its length. ``codec_side``: bounds, tables; ``values``: token values."""

    header: int
    sizes: int
    order: int
    merge_map: int
    codec_side: int
    values: int
    checksum: int


class Serialised(NamedTuple):
    """A packet, and the account of its bytes."""

    data: bytes
    account: ByteAccount

    @property
    def side_bytes(self) -> int:
        """Bytes that the codec did not write: header, sizes, order, merge map and checksum."""
        return len(self.data) - self.account.codec_side - self.account.values


def _codec_code(codec: Codec) -> int:
    return zlib.crc32(codec.signature.encode()) & 0xFFFF


def serialise(
    tokens: Tensor,
    sizes: Tensor | None,
    prefix: int,
    codec: Codec,
    *,
    order: Tensor | None = None,
    merge_map: Tensor | None = None,
    first: int = 0,
    total: int | None = None,
) -> Serialised:
    """Writes one packet: all tokens of one image, or those from ``first`` on.

    Args:
        tokens: (n, D) float32, D at least 1.
        sizes: (n,) int64, 1 to 65,535, or None to withhold them. Protected tokens always have size 1, which is not
            sent.
        prefix: Protected tokens at the start of the image.
        codec: Turns token values into bytes.
        order: (n,) int64, original position of each token within its image, or None to withhold it.
        merge_map: (N,) int64, as of ``TokenBatch``, of the whole image; or None to withhold it.
        first: Index of the first token in the image.
        total: Tokens of the image; None where the packet holds them all.

    Raises:
        PayloadError: Something does not fit the format, or contradicts the rest.
    """
    layout = Layout(len(tokens), first, first + len(tokens) if total is None else total, tokens.shape[1], prefix)
    if max(layout) > _MOST or prefix > 0xFF or min(layout) < 0:
        raise payload_error(
            f"{tuple(layout)} do not fit the wire format", "at most 65535 tokens and channels, 255 protected"
        )
    hint = "check the reduction that made these tokens"
    layout.check(hint)
    flags, own = 0, None
    parts: list[bytes] = [b"", b"", b""]
    if sizes is not None:
        own = sizes[layout.protected :].cpu().numpy().astype(np.int64)
        if len(sizes) != layout.tokens or bool(((own < 1) | (own > _MOST)).any()):
            raise payload_error(f"sizes are not {layout.tokens} integers from 1 to {_MOST}", hint)
        wide = bool((own > 0xFF).any())
        flags |= _SIZES | (_WIDE_SIZES if wide else 0)
        parts[0] = own.astype("<u2" if wide else "u1").tobytes()
    if order is not None:
        places = order.cpu().numpy().astype(np.int64)
        check_order(places, layout, hint)
        flags |= _ORDER
        parts[1] = places.astype("<u2").tobytes()
    if merge_map is not None:
        pointers = merge_map.cpu().numpy().astype(np.int64)
        if pointers.ndim != 1 or len(pointers) > _MOST:
            raise payload_error(f"a merge map of shape {pointers.shape}", f"give one image's, at most {_MOST} patches")
        check_map(pointers, own, layout, hint)
        flags |= _MERGE_MAP
        codes = np.where(pointers == DROPPED, _DROPPED_CODE, pointers)
        parts[2] = _COUNT.pack(len(codes)) + codes.astype("<u2").tobytes()
    # Before the signature, which a codec that has not been prepared may lack.
    body, side = codec.encode(tokens), codec.side_bytes(layout.tokens, layout.width)
    if not isinstance(body, bytes) or not 0 <= side <= len(body):
        what = f"{type(body).__name__}, {side} bytes of it side information"
        raise PluginError(f"encode returned {what}", where=f"codec {codec.name!r}", hint="return bytes")
    head = _HEADER.pack(MAGIC, VERSION, _codec_code(codec), flags, *layout)
    data = head + b"".join(parts) + body
    account = ByteAccount(len(head), len(parts[0]), len(parts[1]), len(parts[2]), side, len(body) - side, _CRC.size)
    return Serialised(data + _CRC.pack(zlib.crc32(data)), account)


def parse(data: bytes, known: Known, codec: Codec) -> ParsedPayload:
    """Reads one packet.

    Args:
        data: The bytes received.
        known: What the receiver knows of the victim.
        codec: The codec that it must have been written with.

    Raises:
        PayloadError: Anything about the bytes is not as the format says, or goes beyond what is known.
    """
    layout, flags = _read_header(data, known, codec)
    sections = _Sections(memoryview(data)[_HEADER.size : -_CRC.size])
    own, places, pointers = None, None, None
    if flags & _SIZES:
        wide = bool(flags & _WIDE_SIZES)
        own = sections.take(layout.tokens - layout.protected, "<u2" if wide else "u1", "sizes")
        if bool((own < 1).any()):
            raise payload_error("a token of size 0", DAMAGED)
        if wide and not bool((own > 0xFF).any()):
            raise payload_error("sizes take two bytes where one would do", DAMAGED)
        if int(own.sum()) + layout.elsewhere > known.patches:
            raise payload_error(f"sizes add up to more than {known.patches} patches", DAMAGED)
    if flags & _ORDER:
        places = sections.take(layout.tokens, "<u2", "order")
        check_order(places, layout, DAMAGED)
    if flags & _MERGE_MAP:
        (patches,) = sections.take(1, "<u2", "merge map")
        if patches != known.patches:
            raise payload_error(f"a merge map of {patches} patches, not {known.patches}", OTHER_SENDER)
        pointers = sections.take(int(patches), "<u2", "merge map")
        pointers[pointers == _DROPPED_CODE] = DROPPED
        check_map(pointers, own, layout, DAMAGED)
    tokens = _decoded(sections.rest(), layout, codec)
    sizes = None if own is None else torch.cat([torch.ones(layout.protected, dtype=torch.long), torch.from_numpy(own)])
    return ParsedPayload(
        tokens,
        sizes,
        None if places is None else torch.from_numpy(places),
        None if pointers is None else torch.from_numpy(pointers),
        layout.first,
        layout.total,
    )


def _decoded(body: bytes, layout: Layout, codec: Codec) -> Tensor:
    """Returns the token values in a codec's bytes: (n, D) float32, finite; whoever wrote the codec."""
    name = repr(codec.name)[:_MOST_QUOTED]
    try:
        tokens = codec.decode(body, layout.tokens, layout.width)
    except PayloadError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_QUOTED]
        raise payload_error(f"codec {name} failed on these bytes: {what}", DAMAGED) from error
    if not isinstance(tokens, Tensor) or tokens.shape != (layout.tokens, layout.width) or tokens.dtype != torch.float32:
        found = f"{tuple(tokens.shape)} {tokens.dtype}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise payload_error(
            f"codec {name} made {found[:_MOST_QUOTED]} of these bytes, not {tuple(layout[::3])}", DAMAGED
        )
    if not bool(torch.isfinite(tokens).all()):
        raise payload_error("a token value is not finite", DAMAGED)
    return tokens


def _read_header(data: bytes, known: Known, codec: Codec) -> tuple[Layout, int]:
    """Returns counts and flags after checking magic, version, flags, checksum, codec and counts, in this order."""
    if len(data) < _HEADER.size + _CRC.size:
        raise payload_error(f"{len(data)} bytes are too few", DAMAGED)
    magic, version, code, flags, *counts = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise payload_error("these bytes are no payload", DAMAGED)
    if version != VERSION:
        raise payload_error(f"format version {version}, not {VERSION}", OTHER_SENDER)
    if flags & ~(_SIZES | _WIDE_SIZES | _ORDER | _MERGE_MAP) or flags & (_SIZES | _WIDE_SIZES) == _WIDE_SIZES:
        raise payload_error(f"impossible flags {flags:#x}", DAMAGED)
    if _CRC.unpack(data[-_CRC.size :])[0] != zlib.crc32(memoryview(data)[: -_CRC.size]):
        raise payload_error("checksum mismatch", DAMAGED)
    if code != _codec_code(codec):
        raise payload_error(f"not written by codec `{codec.signature}`", OTHER_SENDER)
    layout = Layout(*counts)
    layout.check_against(known)
    layout.check(DAMAGED)
    return layout, flags


class _Sections:
    """Takes sections off the front of what lies between header and checksum."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, count: int, dtype: str, name: str) -> NDArray[np.int64]:
        """Returns the next ``count`` numbers; raises PayloadError, before allocating, where there are fewer."""
        size = count * np.dtype(dtype).itemsize
        if len(self._data) < size:
            raise payload_error(f"{name} cut short", DAMAGED)
        taken, self._data = self._data[:size], self._data[size:]
        return np.frombuffer(taken, dtype).astype(np.int64)

    def rest(self) -> bytes:
        """Returns what is left: the codec's."""
        return bytes(self._data)
