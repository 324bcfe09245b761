"""Modulation and coding schemes of the link, from the most robust to the most efficient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leakgauge.harness.errors import ConfigError

# 960 bits fill base graph 2 exactly (lifting size 96, no filler bits), and every rate below gives whole symbols.
INFORMATION_BITS = 960
BLOCK_BYTES = INFORMATION_BITS // 8
LINK_CRC_BYTES = 4


@dataclass(frozen=True)
class Mcs:
    """A modulation and coding scheme.

    Args:
        name: Modulation and code rate.
        bits_per_symbol: Coded bits a complex symbol: 2, 4 or 6.
        coded_bits: Bits of a codeword, n; a codeword carries ``INFORMATION_BITS``.
    """

    name: str
    bits_per_symbol: int
    coded_bits: int

    @property
    def rate(self) -> float:
        """Information bits a coded bit."""
        return INFORMATION_BITS / self.coded_bits

    @property
    def efficiency(self) -> float:
        """Information bits a complex symbol."""
        return self.rate * self.bits_per_symbol

    @property
    def block_symbols(self) -> int:
        """Complex symbols that a codeword fills."""
        return self.coded_bits // self.bits_per_symbol


McsName = Literal["auto", "qpsk_1_3", "qpsk_1_2", "qam16_1_2", "qam16_3_4", "qam64_2_3"]
SCHEMES: tuple[Mcs, ...] = (
    Mcs("qpsk_1_3", 2, 2880),
    Mcs("qpsk_1_2", 2, 1920),
    Mcs("qam16_1_2", 4, 1920),
    Mcs("qam16_3_4", 4, 1280),
    Mcs("qam64_2_3", 6, 1440),
)


def scheme(name: str) -> Mcs:
    """Returns the scheme of this name.

    Raises:
        ConfigError: No scheme has it.
    """
    for mcs in SCHEMES:
        if mcs.name == name:
            return mcs
    known = ", ".join(mcs.name for mcs in SCHEMES)
    raise ConfigError(f"unknown modulation and coding scheme {name!r}", hint=f"one of {known}")


def blocks_of(packet_bytes: int) -> int:
    """Returns the code blocks that a packet of so many bytes fills together with its link CRC."""
    return -(-(packet_bytes + LINK_CRC_BYTES) // BLOCK_BYTES)
