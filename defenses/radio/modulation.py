"""QPSK, 16-QAM and 64-QAM: bits to symbols of unit mean energy, and noisy symbols to log-likelihood ratios.

The constellations are those of 3GPP TS 38.211, 5.1 (Gray labels), as sionna builds them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from leakgauge.defenses.radio.sionna_import import sionna_module
from leakgauge.harness.errors import ConfigError

Demapping = Literal["app", "maxlog"]


def _check(bits_per_symbol: int) -> None:
    if bits_per_symbol not in {2, 4, 6}:
        raise ConfigError(f"bits_per_symbol = {bits_per_symbol!r}", hint="2 (QPSK), 4 (16-QAM) or 6 (64-QAM)")


@cache
def _mapper(bits_per_symbol: int, device: str) -> Any:
    _check(bits_per_symbol)
    return sionna_module("mapping").Mapper("qam", bits_per_symbol, precision="single", device=device)


@cache
def _demapper(bits_per_symbol: int, method: Demapping, device: str) -> Any:
    _check(bits_per_symbol)
    return sionna_module("mapping").Demapper(method, "qam", bits_per_symbol, precision="single", device=device)


def modulate(bits: Tensor, bits_per_symbol: int) -> Tensor:
    """Maps bits to symbols.

    Args:
        bits: (..., n) zeros and ones of any dtype, n a multiple of ``bits_per_symbol``.
        bits_per_symbol: 2, 4 or 6.

    Returns:
        (..., n / bits_per_symbol) complex64, mean energy 1 over equally likely bits.
    """
    symbols: Tensor = _mapper(bits_per_symbol, str(bits.device))(bits)
    return symbols


def demodulate(symbols: Tensor, noise_variance: Tensor, bits_per_symbol: int, method: Demapping = "app") -> Tensor:
    """Returns the log-likelihood ratio of each bit.

    Args:
        symbols: (..., S) complex64, equalised: a point of the constellation plus circular Gaussian noise.
        noise_variance: Noise energy a complex symbol (N0 for unit symbol energy), broadcastable to ``symbols``.
        bits_per_symbol: 2, 4 or 6.
        method: ``app`` sums over all points (exact), ``maxlog`` takes the nearest one of each value.

    Returns:
        (..., S * bits_per_symbol) float32: ln P(bit = 1) / P(bit = 0), positive for a one (sionna's sign).
    """
    ratios: Tensor = _demapper(bits_per_symbol, method, str(symbols.device))(symbols, noise_variance.to(torch.float32))
    return ratios
