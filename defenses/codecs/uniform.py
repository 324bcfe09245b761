"""Uniform quantisation: levels between a minimum and a maximum that are sent as half floats."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from leakgauge.defenses.codecs.checks import DAMAGED, WHERE, check_length, checked_values
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import PayloadError

Axis = Literal["token", "channel"]
Bits = Annotated[int, Field(ge=2, le=8)]
_BOUND_BYTES = 4


class Ranges(NamedTuple):
    """What levels are measured against, float32, broadcasting against (n, D): start, step and highest value."""

    start: NDArray[np.float32]
    step: NDArray[np.float32]
    high: NDArray[np.float32]


class Quantised(NamedTuple):
    """The bounds as they are sent, the ranges that both ends compute from them, and levels (n, D) uint8."""

    bounds: bytes
    ranges: Ranges
    levels: NDArray[np.uint8]


class Quantiser:
    """Maps values to ``2 ** bits`` evenly spaced levels and back; both ends compute with the bounds as sent.

    Args:
        bits: 2 to 8.
        per: What has a range of its own: each ``token``, or each ``channel`` of the image.
    """

    def __init__(self, bits: Bits, per: Axis) -> None:
        self.bits, self.per = bits, per

    def bound_bytes(self, count: int, width: int) -> int:
        """Returns how many bytes the bounds of ``count`` tokens take; an image without values has none."""
        if not count or not width:
            return 0
        return _BOUND_BYTES * (count if self.per == "token" else width)

    def quantise(self, tokens: Tensor, name: str) -> Quantised:
        """Quantises tokens (n, D), both at least 1; raises PayloadError where a half float cannot hold a value."""
        values = checked_values(tokens, float(np.finfo(np.float16).max), name)
        axis = 1 if self.per == "token" else 0
        bounds = np.stack([values.min(axis=axis), values.max(axis=axis)], axis=1).astype("<f2")
        ranges = self._ranges(bounds)
        levels = np.clip(np.rint((values - ranges.start) / ranges.step), 0, 2**self.bits - 1)
        return Quantised(bounds.tobytes(), ranges, levels.astype(np.uint8))

    def read_ranges(self, data: bytes) -> Ranges:
        """Returns the ranges in the bounds ``data``; raises PayloadError unless they are finite and ordered."""
        bounds = np.frombuffer(data, "<f2").reshape(-1, 2)
        if not np.isfinite(bounds).all() or bool((bounds[:, 0] > bounds[:, 1]).any()):
            raise PayloadError(f"the range of a {self.per} is not finite or upside down", where=WHERE, hint=DAMAGED)
        return self._ranges(bounds)

    def values(self, levels: NDArray[np.uint8], ranges: Ranges) -> Tensor:
        """Returns the values (n, D) float32 of levels (n, D); never above the highest value of their range."""
        values = levels.astype(np.float32)
        # In place: a hostile payload is allowed few bytes of memory for each of its own.
        values *= ranges.step
        values += ranges.start
        np.minimum(values, ranges.high, out=values)
        return torch.from_numpy(values)

    def _ranges(self, bounds: NDArray[np.float16]) -> Ranges:
        """Returns the ranges from half-float bounds (n or D, 2)."""
        exact = bounds.astype(np.float32)
        low, high = exact[:, :1], exact[:, 1:]
        step = (high - low) / np.float32(2**self.bits - 1)
        # A constant has one level; any step serves, but none may divide by zero.
        step = np.where(step > 0, step, np.float32(1.0))
        return Ranges(low, step, high) if self.per == "token" else Ranges(low.T, step.T, high.T)


class QuantisedCodec(Codec):
    """What the codecs of quantised levels share; they differ in how they write the levels after the bounds.

    Args:
        bits: 2 to 8.
        per: What has a range of its own, ``token`` or ``channel``.
    """

    def __init__(self, bits: Bits, per: Axis) -> None:
        self._quantiser = Quantiser(bits, per)

    @property
    def signature(self) -> str:
        """Name, bits and what has a range."""
        return f"{self.name} bits={self._quantiser.bits} per={self._quantiser.per}"

    def side_bytes(self, count: int, width: int) -> int:
        """Returns the bytes of the bounds."""
        return self._quantiser.bound_bytes(count, width)


class UniformCodec(QuantisedCodec):
    """Uniform quantiser: the bounds, then ``bits`` a value packed without gaps, unused bits at the end zero.

    Args:
        bits: 2 to 8.
        per: ``token``: 4 bytes of bounds for each token; ``channel``: 4 bytes for each channel of the image, which is
            D times 4 bytes a payload, however few its tokens.
    """

    name = "uniform"

    def __init__(self, bits: Bits = 8, per: Axis = "token") -> None:
        super().__init__(bits, per)

    def encode(self, tokens: Tensor) -> bytes:
        """Returns bounds and packed levels; nothing where there are no values."""
        if not tokens.numel():
            return b""
        quantised = self._quantiser.quantise(tokens, self.name)
        return quantised.bounds + pack(quantised.levels, self._quantiser.bits)

    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns tokens (count, width) float32 at their quantised levels."""
        header = self.side_bytes(count, width)
        check_length(data, header + -(-count * width * self._quantiser.bits // 8))
        if not data:
            return torch.zeros(count, width)
        ranges = self._quantiser.read_ranges(data[:header])
        return self._quantiser.values(unpack(data[header:], self._quantiser.bits, count, width), ranges)


def pack(levels: NDArray[np.uint8], bits: Bits) -> bytes:
    """Returns levels, any shape, each below ``2 ** bits``, as one string of bits, highest first."""
    digits = np.unpackbits(levels.reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(digits.reshape(-1)).tobytes()


def unpack(data: bytes, bits: Bits, count: int, width: int) -> NDArray[np.uint8]:
    """Returns levels (count, width) from ``pack``; raises PayloadError where an unused bit is set."""
    used = count * width * bits
    digits = np.unpackbits(np.frombuffer(data, np.uint8))
    if digits[used:].any():
        raise PayloadError("bits after the last token value are set", where=WHERE, hint=DAMAGED)
    padded = np.zeros((count * width, 8), dtype=np.uint8)
    padded[:, 8 - bits :] = digits[:used].reshape(-1, bits)
    return np.packbits(padded, axis=1).reshape(count, width)
