"""The wire format: one payload an image, versioned, checksummed, parsed without trusting a length field.

Layout, little-endian: magic ``LKG`` + version (1 byte), flags (1 byte: 1 = sizes present, 2 = sizes need two bytes),
token count (2 bytes), width (2 bytes), [sizes of the unprotected tokens], codec data, CRC32 of all before it.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.contracts import Codec
from harness.errors import PayloadError

MAGIC = b"LKG\x01"
_HEADER = struct.Struct("<4sBHH")
_CRC = struct.Struct("<I")
_HAS_SIZES, _WIDE_SIZES = 1, 2
_DAMAGED = "the payload is damaged or truncated"


class ParsedPayload(NamedTuple):
    """What a payload says: tokens (n, D) float32, and sizes (n,) int64 or None where they were not sent."""

    tokens: Tensor
    sizes: Tensor | None


class Serialised(NamedTuple):
    """One image's payload, and how many of its bytes are header, sizes and checksum."""

    data: bytes
    side_bytes: int


def serialise(tokens: Tensor, sizes: Tensor | None, prefix: int, codec: Codec) -> Serialised:
    """Writes the payload of one image.

    Args:
        tokens: (n, D) float32.
        sizes: (n,) int64, or None to withhold them. Protected tokens always have size 1, which is not sent.
        prefix: Protected tokens at the start.
        codec: Turns token values into bytes.
    """
    count, width = tokens.shape
    if count > 0xFFFF or width > 0xFFFF:
        raise PayloadError(f"{count} tokens of width {width} do not fit the wire format", mend="at most 65535 of each")
    flags, side = 0, b""
    if sizes is not None:
        own = sizes[prefix:].cpu().numpy()
        wide = bool((own > 0xFF).any())
        flags = _HAS_SIZES | (_WIDE_SIZES if wide else 0)
        side = own.astype("<u2" if wide else "u1").tobytes()
    body = codec.encode(tokens)
    head = _HEADER.pack(MAGIC, flags, count, width) + side
    data = head + body
    return Serialised(data + _CRC.pack(zlib.crc32(data)), len(head) + _CRC.size)


def parse(data: bytes, prefix: int, codec: Codec) -> ParsedPayload:
    """Reads the payload of one image.

    Raises:
        PayloadError: Anything about the bytes is not as the format says.
    """
    if len(data) < _HEADER.size + _CRC.size:
        raise PayloadError(f"{len(data)} bytes are too few for a payload", mend=_DAMAGED)
    magic, flags, count, width = _HEADER.unpack_from(data)
    if magic != MAGIC or flags & ~(_HAS_SIZES | _WIDE_SIZES):
        raise PayloadError("not a payload of this version", mend=_DAMAGED)
    if _CRC.unpack(data[-_CRC.size :])[0] != zlib.crc32(data[: -_CRC.size]):
        raise PayloadError("checksum mismatch", mend=_DAMAGED)
    if count < prefix:
        raise PayloadError(f"{count} tokens, but {prefix} are protected", mend=_DAMAGED)
    body, sizes = data[_HEADER.size : -_CRC.size], None
    if flags & _HAS_SIZES:
        kind = np.dtype("<u2" if flags & _WIDE_SIZES else "u1")
        side = (count - prefix) * kind.itemsize
        if len(body) < side:
            raise PayloadError("sizes are cut short", mend=_DAMAGED)
        own = torch.from_numpy(np.frombuffer(body[:side], kind).astype(np.int64))
        if bool((own < 1).any()):
            raise PayloadError("a token of size 0", mend=_DAMAGED)
        sizes, body = torch.cat([torch.ones(prefix, dtype=torch.long), own]), body[side:]
    return ParsedPayload(codec.decode(body, count, width), sizes)
