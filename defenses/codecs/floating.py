"""Floating-point codecs: every value for itself, in a fixed number of bytes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leakgauge.defenses.codecs.checks import DAMAGED, WHERE, check_length, checked_values
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import PayloadError


class Float32Codec(Codec):
    """IEEE single precision, little-endian: 4 bytes a value, lossless."""

    name = "float32"
    _dtype = "<f4"
    _limit = float(np.finfo(np.float32).max)

    def encode(self, tokens: Tensor) -> bytes:
        """Returns the values row by row."""
        return self._write(checked_values(tokens, self._limit, self.name)).tobytes()

    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns tokens (count, width) float32; raises PayloadError where lengths or values are impossible."""
        check_length(data, count * width * np.dtype(self._dtype).itemsize)
        values = self._read(np.frombuffer(data, self._dtype)).reshape(count, width)
        if not np.isfinite(values).all():
            raise PayloadError("a token value is not finite", where=WHERE, hint=DAMAGED)
        return torch.from_numpy(values)

    def _write(self, values: NDArray[np.float32]) -> NDArray[np.generic]:
        """Returns the values in the number type that is sent."""
        return values.astype(self._dtype)

    def _read(self, sent: NDArray[np.generic]) -> NDArray[np.float32]:
        """Returns a writable float32 copy of what was sent."""
        return sent.astype(np.float32)


class Float16Codec(Float32Codec):
    """IEEE half precision, little-endian: 2 bytes a value."""

    name = "float16"
    _dtype = "<f2"
    _limit = float(np.finfo(np.float16).max)


class BFloat16Codec(Float32Codec):
    """bfloat16, little-endian: the upper 2 bytes of single precision, rounded to nearest, ties to even."""

    name = "bfloat16"
    _dtype = "<u2"
    _limit = float(torch.finfo(torch.bfloat16).max)

    def _write(self, values: NDArray[np.float32]) -> NDArray[np.generic]:
        words = np.ascontiguousarray(values).view(np.uint32)
        # Half an ulp less one, and one more where the kept part is odd: a tie goes to the even neighbour.
        return ((words + np.uint32(0x7FFF) + ((words >> 16) & 1)) >> 16).astype(self._dtype)

    def _read(self, sent: NDArray[np.generic]) -> NDArray[np.float32]:
        return (sent.astype(np.uint32) << 16).view(np.float32)
