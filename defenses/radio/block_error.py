"""Packet loss drawn from measured block error rates instead of coding every bit; adaptive modulation and coding.

The curves are in ``block_errors.json``, measured with the bit-true chain over AWGN (``measure_block_errors``), with
their provenance. Between points the logit of the rate is linear in dB: in the tail that is a straight line of the log
rate, and in the bend above it does not cut the corner as a line of the log rate would. Below the first point every
block is lost. Above the last point with at least 5 errors the curve goes on along its last slope: the measurement by
itself supports no rate below 3 / blocks (rule of three), so smaller ones are an extrapolation
that assumes no error floor; taking the bound instead would lose most packets of many blocks at any SNR, taking 0 would
lose none.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from leakgauge.defenses.radio.fading import Fading, draw_gains, estimate_gains, noise_power
from leakgauge.defenses.radio.ldpc import channel_uses
from leakgauge.defenses.radio.schemes import SCHEMES, Mcs, blocks_of
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.seeding import Streams

_TABLE = Path(__file__).with_name("block_errors.json")
# Five errors give the rate to within 45 % (one standard error), which is 0.1 dB on these slopes.
_TRUSTED_ERRORS = 5


@dataclass(frozen=True)
class BlockErrorCurve:
    """One scheme's block error rate over AWGN.

    Args:
        snr_db: Es/N0 of the points in dB, rising.
        blocks: Blocks sent at each.
        errors: Blocks decoded wrongly at each.
    """

    snr_db: tuple[float, ...]
    blocks: tuple[int, ...]
    errors: tuple[int, ...]

    @cached_property
    def _nodes(self) -> tuple[list[float], list[float]]:
        """SNR and logit of the points to interpolate, without the rises that chance puts into a falling curve."""
        snr_db: list[float] = []
        logits: list[float] = []
        for snr, blocks, errors in zip(self.snr_db, self.blocks, self.errors, strict=True):
            if errors < _TRUSTED_ERRORS:
                break
            # Half an error short of all, where all were lost, keeps the logit finite.
            wrong = min(float(errors), blocks - 0.5)
            snr_db.append(snr)
            logits.append(min(math.log(wrong / (blocks - wrong)), logits[-1] if logits else math.inf))
        return snr_db, logits

    def rate(self, snr_db: float) -> float:
        """Returns the block error rate at this Es/N0 in dB, in [0, 1]."""
        points, logits = self._nodes
        if snr_db < points[0]:
            return 1.0
        right = min(max(bisect.bisect_right(points, snr_db), 1), len(points) - 1)
        left = right - 1
        slope = (logits[right] - logits[left]) / (points[right] - points[left])
        # The exponent is kept within the range of a float.
        return 1.0 / (1.0 + math.exp(min(-logits[left] - slope * (snr_db - points[left]), 700.0)))


class BlockErrorTable(NamedTuple):
    """The curves by scheme name, and how they were measured."""

    curves: dict[str, BlockErrorCurve]
    provenance: dict[str, Any]


class Losses(NamedTuple):
    """Which packets are lost, in the order sent, and the complex symbols used, pilots included."""

    lost: tuple[bool, ...]
    channel_uses: int


@cache
def block_error_table(path: Path = _TABLE) -> BlockErrorTable:
    """Reads a table; without a path, the one that the package ships.

    Raises:
        DataError: It lacks a scheme, or a scheme's curve has fewer than two points with enough errors.
    """
    table = json.loads(path.read_text(encoding="utf-8"))
    curves = {}
    for mcs in SCHEMES:
        points = table["curves"].get(mcs.name, [])
        columns = {key: tuple(point[key] for point in points) for key in ("snr_db", "blocks", "errors")}
        curves[mcs.name] = BlockErrorCurve(**columns)
        if sum(errors >= _TRUSTED_ERRORS for errors in columns["errors"]) < 2:
            raise DataError(
                f"no block error curve of {mcs.name}",
                where=str(path),
                hint="run python -m leakgauge.defenses.radio.measure_block_errors to its end",
            )
    return BlockErrorTable(curves, table["provenance"])


def block_error_rate(mcs: Mcs, snr_db: float) -> float:
    """Returns the rate at which blocks of 960 bits are lost over AWGN at this Es/N0 in dB."""
    return block_error_table().curves[mcs.name].rate(snr_db)


def packet_loss(mcs: Mcs, snr_db: float, blocks: int) -> float:
    """Returns 1 - (1 - BLER)^m, the rate at which packets of m blocks are lost over AWGN."""
    # In this form small rates keep their digits.
    rate = block_error_rate(mcs, snr_db)
    return 1.0 if rate >= 1.0 else -math.expm1(blocks * math.log1p(-rate))


def choose_mcs(snr_db: float, target_bler: float = 0.1) -> Mcs:
    """Returns the most efficient scheme whose block error rate is at most the target, else the most robust one.

    Args:
        snr_db: Es/N0 that the transmitter believes in, in dB.
        target_bler: Block error rate to stay under; 0.1 is what 3GPP TS 38.214, 5.2.2.1, adapts to.
    """
    fit = [mcs for mcs in SCHEMES if block_error_rate(mcs, snr_db) <= target_bler]
    return max(fit, key=lambda mcs: mcs.efficiency) if fit else SCHEMES[0]


def effective_snr_db(snr_db: float, fading: Fading, rng: Streams) -> float:
    """Returns the Es/N0 in dB that one image's realisation leaves after equalisation.

    |h|^2 / N0 where the receiver knows h. Where it estimates g = h + e, |g|^2 / (N0 + |e|^2): the mean square error of
    y / g, an approximation, because e turns and scales all symbols of the image alike where noise would not.

    Args:
        snr_db: Mean Es/N0 in dB.
        fading: Distribution of the gain, and how the receiver knows it.
        rng: The image's own node; the realisation is the one that ``ldpc.send_packets`` draws from it.
    """
    n0 = noise_power(snr_db)
    gain = draw_gains(fading, [rng])
    known = estimate_gains(gain, fading, n0, [rng])
    power, error = float(known.abs().square()), float((known - gain).abs().square())
    return 10 * math.log10(power / (n0 + error)) if power > 0 else -math.inf


def lose_packets(packet_sizes: Sequence[int], mcs: Mcs, snr_db: float, fading: Fading, rng: Streams) -> Losses:
    """Draws which packets of one image are lost; stands in for ``ldpc.send_packets`` where bytes need no coding.

    Args:
        packet_sizes: Bytes of each packet, without link CRC.
        mcs: Modulation and coding scheme.
        snr_db: Mean Es/N0 per complex symbol, in dB.
        fading: Distribution of the image's gain, and how the receiver knows it.
        rng: The image's own node; each packet's draw is named below it. The draws do not depend on the SNR, so a packet
            that arrives over AWGN arrives at every higher SNR too.
    """
    effective = effective_snr_db(snr_db, fading, rng)
    lost = []
    for index, size in enumerate(packet_sizes):
        draw = torch.rand((), dtype=torch.float64, generator=rng.child("loss", index).torch())
        lost.append(float(draw) < packet_loss(mcs, effective, blocks_of(size)))
    return Losses(tuple(lost), channel_uses(packet_sizes, mcs, fading))
