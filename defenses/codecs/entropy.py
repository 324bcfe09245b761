"""Entropy coding of quantised levels: a range coder under a model that learns from the image's earlier tokens.

Nothing about the model is sent: both ends build it from what is already known, the bounds and the tokens before. Each
channel's next value follows a Student t around the channel's shrunken mean so far, the predictive distribution of a
Gaussian of unknown mean and variance (Murphy, Machine Learning, 2012, section 4.6.3), here with fixed degrees of
freedom so that powers are products.

Both ends must compute the same probabilities to the last bit, on any platform. Only element-by-element sums, products
and quotients of doubles are used, which IEEE 754 rounds exactly, no exponential, logarithm or reduction; frequencies
are integers whose sums a single-precision float holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leakgauge.defenses.codecs.checks import DAMAGED, WHERE
from leakgauge.defenses.codecs.uniform import Axis, Bits, QuantisedCodec, Quantiser, Ranges
from leakgauge.harness.errors import PayloadError

VALUES_PER_BYTE = 16
"""No payload holds more values a byte of coded levels: bounds memory and time by the length of what was received."""
LEAST_WIDTH = 64
"""A narrower token counts as so many values: each takes as long as some tens of them, however narrow."""

# Weights of the prior, in tokens, and its standard deviation as a share of the range of a token (hundreds of values) or
# of a channel (tens): flat optima, measured on merged tokens of task `photos`; doubling a weight costs about 1 %.
_MEAN_WEIGHT, _VARIANCE_WEIGHT = 1.0, 4.0
_PRIOR_SHARE = {"token": 1 / 6, "channel": 1 / 3}
_SQUARINGS = 3
_PEAK = 2.0**15
_WORD = 4
_TABLE_CELLS = 2**14

_FAMILY: Any = constriction.stream.model.Categorical(perfect=False)
Coder = Callable[[int, slice, NDArray[np.float32]], NDArray[np.int32]]


def _frequencies(mean: NDArray[np.float64], variance: NDArray[np.float64], levels: int) -> NDArray[np.float32]:
    """Returns integer frequencies (c, levels), each at least 1, of levels around means (c,) with variances (c,)."""
    power = 2**_SQUARINGS
    distance = np.arange(levels, dtype=np.float64) - np.clip(mean, 0, levels - 1)[:, None]
    weight = 1.0 / (1.0 + distance * distance / (variance * (2 * power - 1))[:, None])
    for _ in range(_SQUARINGS):
        weight *= weight
    table: NDArray[np.float32] = (np.floor(weight * _PEAK) + 1.0).astype(np.float32)
    return table


def _walk(quantiser: Quantiser, ranges: Ranges, count: int, width: int, code: Coder) -> None:
    """Goes through all values token by token and hands ``code`` the frequencies of a part of a token at a time.

    Args:
        quantiser: Says how many levels there are, and what has a range of its own.
        ranges: The image's.
        count: Tokens.
        width: Channels.
        code: Gets the token's index, the channels (c of them) and their frequencies (c, 2 ** bits); returns the levels
            (c,) that it wrote or read, which the model then learns.
    """
    levels, share = 2**quantiser.bits, _PRIOR_SHARE[quantiser.per]
    shape = (count, width)
    starts, steps = np.broadcast_to(ranges.start, shape), np.broadcast_to(ranges.step, shape)
    # Of a single token nothing is learnt.
    total, deviation = np.zeros((2, width if count > 1 else 0))
    chunk = _TABLE_CELLS // levels
    for row in range(count):
        for part in (slice(begin, min(begin + chunk, width)) for begin in range(0, width, chunk)):
            start, step = starts[row, part].astype(np.float64), steps[row, part].astype(np.float64)
            mean = start + step * ((levels - 1) / 2)
            variance = step * (levels * share)
            variance *= variance
            if row:
                mean = (mean * _MEAN_WEIGHT + total[part]) / (_MEAN_WEIGHT + row)
                variance = (variance * _VARIANCE_WEIGHT + deviation[part]) / (_VARIANCE_WEIGHT + row)
            # The mean is itself uncertain.
            variance *= 1.0 + 1.0 / (_MEAN_WEIGHT + row)
            table = _frequencies((mean - start) / step, variance / (step * step), levels)
            found = code(row, part, table)
            if row + 1 < count:
                value = start + found * step
                error = value - mean
                deviation[part] += error * error * ((_MEAN_WEIGHT + row) / (_MEAN_WEIGHT + row + 1.0))
                total[part] += value


def _finish(encoder: Any, count: int, width: int) -> bytes:
    """Returns what the encoder wrote, zeros appended up to the least length that (count, width) values may have."""
    written: bytes = encoder.get_compressed().astype("<u4").tobytes()
    return written.ljust(_least_bytes(count, width), b"\0")


def _least_bytes(count: int, width: int) -> int:
    """Returns the least length of the coded levels, in whole words."""
    values = count * max(width, LEAST_WIDTH) if width else 0
    return -(-values // (VALUES_PER_BYTE * _WORD)) * _WORD


class EntropyCodec(QuantisedCodec):
    """The uniform quantiser with entropy-coded levels: bounds as ``uniform`` sends them, then range-coded words.

    Decodes to the very values of ``uniform`` with the same options. Compresses more the more tokens an image has; with
    ``per: channel``, the bounds alone are D times 4 bytes.

    Args:
        bits: 2 to 8.
        per: What has a range of its own, ``token`` or ``channel``.
    """

    name = "entropy"

    def __init__(self, bits: Bits = 4, per: Axis = "token") -> None:
        super().__init__(bits, per)

    def encode(self, tokens: Tensor) -> bytes:
        """Returns bounds and coded levels; nothing where there are no values."""
        if not tokens.numel():
            return b""
        quantised = self._quantiser.quantise(tokens, self.name)
        levels = quantised.levels.astype(np.int32)
        encoder: Any = constriction.stream.queue.RangeEncoder()

        def write(row: int, part: slice, table: NDArray[np.float32]) -> NDArray[np.int32]:
            symbols: NDArray[np.int32] = levels[row, part]
            encoder.encode(symbols, _FAMILY, table)
            return symbols

        _walk(self._quantiser, quantised.ranges, len(levels), levels.shape[1], write)
        return quantised.bounds + _finish(encoder, *levels.shape)

    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns tokens (count, width) float32 at their quantised levels.

        Raises:
            PayloadError: More than ``VALUES_PER_BYTE`` values a byte are claimed, a token counted as ``LEAST_WIDTH`` at
                least, or the bytes are not those that ``encode`` writes for what they decode to.
        """
        header = self.side_bytes(count, width)
        coded = len(data) - header
        if coded < _least_bytes(count, width) or coded % _WORD or (coded and not count * width):
            raise PayloadError(f"{coded} bytes cannot hold {count} x {width} values", where=WHERE, hint=DAMAGED)
        if not data:
            return torch.zeros(count, width)
        ranges = self._quantiser.read_ranges(data[:header])
        decoder: Any = constriction.stream.queue.RangeDecoder(np.frombuffer(data[header:], "<u4").astype(np.uint32))
        again: Any = constriction.stream.queue.RangeEncoder()
        levels = np.empty((count, width), dtype=np.uint8)

        def read(row: int, part: slice, table: NDArray[np.float32]) -> NDArray[np.int32]:
            try:
                symbols: NDArray[np.int32] = decoder.decode(_FAMILY, table)
            except AssertionError as error:  # what constriction raises for words that no encoder writes
                raise PayloadError("the coded levels are impossible", where=WHERE, hint=DAMAGED) from error
            again.encode(symbols, _FAMILY, table)
            levels[row, part] = symbols
            return symbols

        _walk(self._quantiser, ranges, count, width, read)
        # Encoded alongside, under the same tables: left-over or altered bytes show.
        if _finish(again, count, width) != data[header:]:
            raise PayloadError("the coded levels are not as an encoder writes them", where=WHERE, hint=DAMAGED)
        return self._quantiser.values(levels, ranges)
