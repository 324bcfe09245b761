"""Codecs: token values to bytes and back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.contracts import Codec
from harness.errors import ConfigError, PayloadError


def _finite(tokens: Tensor, limit: float, name: str) -> None:
    if not bool(torch.isfinite(tokens).all()):
        raise PayloadError("tokens hold NaN or infinite values", mend="check weights and input images")
    if tokens.numel() and float(tokens.abs().max()) > limit:
        raise PayloadError(f"a token value exceeds {limit:g}, the range of {name}", mend="use codec float32")


def _expect(data: bytes, size: int) -> None:
    if len(data) != size:
        raise PayloadError(f"token data is {len(data)} bytes long, expected {size}", mend="the payload is damaged")


class Float32Codec(Codec):
    """IEEE single precision, little-endian: 4 bytes a value, lossless."""

    name = "float32"
    _dtype = "<f4"
    _limit = float(np.finfo(np.float32).max)

    def encode(self, tokens: Tensor) -> bytes:
        """Returns the values row by row."""
        _finite(tokens, self._limit, self.name)
        return tokens.detach().cpu().numpy().astype(self._dtype).tobytes()

    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns tokens (count, width) float32."""
        _expect(data, count * width * np.dtype(self._dtype).itemsize)
        return torch.from_numpy(np.frombuffer(data, self._dtype).astype(np.float32).reshape(count, width))


class Float16Codec(Float32Codec):
    """IEEE half precision, little-endian: 2 bytes a value."""

    name = "float16"
    _dtype = "<f2"
    _limit = float(np.finfo(np.float16).max)


class UniformCodec(Codec):
    """Uniform quantiser, per token: ``bits`` a value between the token's own minimum and maximum (as half floats).

    Args:
        bits: 2 to 8.
    """

    name = "uniform"

    def __init__(self, bits: int = 8) -> None:
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
            raise ConfigError(f"bits = {bits!r} is not an integer from 2 to 8", mend="write bits: 8")
        self._bits = bits

    def encode(self, tokens: Tensor) -> bytes:
        """Returns the (minimum, maximum) of every token, then all levels packed without gaps."""
        _finite(tokens, float(np.finfo(np.float16).max), self.name)
        values = tokens.detach().cpu().numpy().astype(np.float32)
        low, high = values.min(axis=1), values.max(axis=1)
        bounds = np.stack([low, high], axis=1).astype("<f2")
        start, step = self._scale(bounds)
        levels = np.clip(np.rint((values - start) / step), 0, 2**self._bits - 1).astype(np.uint8)
        bits = np.unpackbits(levels.reshape(-1, 1), axis=1, count=None)[:, 8 - self._bits :]
        return bounds.tobytes() + np.packbits(bits.reshape(-1)).tobytes()

    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns tokens (count, width) float32 at their quantised levels."""
        header = count * 4
        _expect(data, header + -(-count * width * self._bits // 8))
        bounds = np.frombuffer(data[:header], "<f2").reshape(count, 2)
        if not np.isfinite(bounds).all():
            raise PayloadError("a token's range is not finite", mend="the payload is damaged")
        start, step = self._scale(bounds)
        bits = np.unpackbits(np.frombuffer(data[header:], np.uint8), count=count * width * self._bits)
        padded = np.zeros((count * width, 8), dtype=np.uint8)
        padded[:, 8 - self._bits :] = bits.reshape(-1, self._bits)
        levels = np.packbits(padded, axis=1).reshape(count, width).astype(np.float32)
        return torch.from_numpy((start + levels * step).astype(np.float32))

    def _scale(self, bounds: NDArray[np.float16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns start and step (count, 1) from the half-float bounds, as both ends compute them."""
        exact = bounds.astype(np.float32)
        step = (exact[:, 1:] - exact[:, :1]) / (2**self._bits - 1)
        return exact[:, :1], np.where(step > 0, step, np.float32(1.0))
