"""PCA codec: tokens as coefficients along the main directions of calibration tokens."""

from __future__ import annotations

import zlib
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from leakgauge.defenses.codecs.checks import check_length, checked_values
from leakgauge.defenses.codecs.floating import Float16Codec
from leakgauge.defenses.codecs.uniform import Bits, pack, unpack
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import ConfigError, PayloadError, PluginError

Inner = Bits | Literal["float16"]

# Range of the uniform quantiser of least squared error for a Gaussian, in standard deviations to either side (Max,
# Quantizing for minimum distortion, 1960, table II); recomputed by numerical integration.
_REACH = {2: 1.991, 3: 2.344, 4: 2.682, 5: 3.010, 6: 3.330, 7: 3.640, 8: 3.938}


class Basis(NamedTuple):
    """What both ends share beforehand: mean (D,), directions (D, rank), and the coefficients' deviations (rank,)."""

    mean: Tensor
    directions: Tensor
    deviation: Tensor


class PcaCodec(Codec):
    """Projects tokens on the ``rank`` main directions of calibration tokens and sends the coefficients.

    Mean, directions and deviations are fitted by ``prepare``, shared beforehand and not sent: no payload's length
    counts them. The payload's codec code covers them, so that a receiver with another basis refuses it.

    Args:
        rank: Coefficients a token, 1 to 4096; at most the calibration tokens' number and width.
        inner: Bits a coefficient, 2 to 8, in fixed ranges that scale with each coefficient's deviation over the
            calibration tokens (values beyond are clipped); or ``float16``.
    """

    name = "pca"

    def __init__(self, rank: Annotated[int, Field(ge=1, le=4096)], inner: Inner = "float16") -> None:
        self._rank, self._bits = rank, 0 if isinstance(inner, str) else inner
        self._basis: Basis | None = None

    def prepare(self, tokens: Tensor) -> None:
        """Fits mean, directions and deviations to calibration tokens (n, D), n at least 2; replaces earlier ones.

        Raises:
            ConfigError: There are too few tokens or channels for the rank.
            PayloadError: A value is not finite.
        """
        values = checked_values(tokens, float(np.finfo(np.float32).max), "float32").astype(np.float64)
        count, width = values.shape
        if count < 2 or self._rank > min(count, width):
            raise ConfigError(
                f"rank {self._rank} is too much for {count} calibration tokens of width {width}",
                where="codec 'pca'",
                hint="give a smaller rank or more calibration images",
            )
        mean = values.mean(axis=0)
        spread, directions = np.linalg.eigh(np.cov(values, rowvar=False).reshape(width, width))
        main = np.argsort(spread)[::-1][: self._rank]
        deviation = np.sqrt(np.maximum(spread[main], 0.0))
        self._basis = Basis(*(torch.from_numpy(x.astype(np.float32)) for x in (mean, directions[:, main], deviation)))

    @property
    def signature(self) -> str:
        """Name, options and checksum of the basis."""
        digest = 0
        for part in self._prepared():
            digest = zlib.crc32(part.numpy().astype("<f4").tobytes(), digest)
        return f"{self.name} rank={self._rank} inner={self._bits} basis={digest:08x}"

    def encode(self, tokens: Tensor) -> bytes:
        """Returns the coefficients, row by row; raises PluginError before ``prepare``."""
        basis = self._prepared()
        self._check_width(tokens.shape[1], basis)
        values = torch.from_numpy(checked_values(tokens, float(np.finfo(np.float16).max), self.name))
        coefficients = (values - basis.mean) @ basis.directions
        if not self._bits:
            return Float16Codec().encode(coefficients)
        start, step = self._scale(basis)
        levels = ((coefficients - start) / step).round().clamp(0, 2**self._bits - 1)
        return pack(levels.to(torch.uint8).numpy(), self._bits)

    def decode(self, data: bytes, count: int, width: int) -> Tensor:
        """Returns tokens (count, width) float32 in the span of the basis; ``width`` must be the basis's."""
        basis = self._prepared()
        self._check_width(width, basis)
        if not self._bits:
            coefficients = Float16Codec().decode(data, count, self._rank)
        else:
            check_length(data, -(-count * self._rank * self._bits // 8))
            start, step = self._scale(basis)
            coefficients = start + torch.from_numpy(unpack(data, self._bits, count, self._rank)).float() * step
        return basis.mean + coefficients @ basis.directions.T

    def _scale(self, basis: Basis) -> tuple[Tensor, Tensor]:
        """Returns lowest value and step (rank,) of the coefficients' levels."""
        reach = _REACH[self._bits] * basis.deviation
        step = 2 * reach / 2**self._bits
        # Levels sit in the middle of their cells. A coefficient that never varied gets any step, but none of zero.
        return step / 2 - reach, torch.where(step > 0, step, 1.0)

    def _check_width(self, width: int, basis: Basis) -> None:
        if width != len(basis.mean):
            raise PayloadError(
                f"tokens of width {width}, but the basis is for width {len(basis.mean)}",
                where="codec 'pca'",
                hint="calibrate on tokens of the same victim",
            )

    def _prepared(self) -> Basis:
        if self._basis is None:
            raise PluginError(
                "no basis has been fitted", where="codec 'pca'", hint="call `prepare` with calibration tokens first"
            )
        return self._basis
