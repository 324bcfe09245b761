"""The bit-true link: link CRC, 5G LDPC code, mapping, channel, demapping, belief propagation, CRC check.

The code is that of 3GPP TS 38.212 (5.3.2 LDPC, 5.4.2 rate matching and bit interleaving), built by sionna. Of the
standard's chain these are left out: its own CRC24 and segmentation (each block stands alone and a packet carries the
payload's CRC32 instead), retransmissions, and signalling: the receiver is told packet sizes and scheme without error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leakgauge.defenses.radio.fading import (
    Fading,
    complex_normal,
    draw_gains,
    equalise,
    estimate_gains,
    noise_power,
    transmit,
)
from leakgauge.defenses.radio.modulation import demodulate, modulate
from leakgauge.defenses.radio.schemes import BLOCK_BYTES, INFORMATION_BITS, LINK_CRC_BYTES, Mcs, blocks_of
from leakgauge.defenses.radio.sionna_import import sionna_module
from leakgauge.harness.values.seeding import Streams

DECODER_ITERATIONS = 20
# Messages of 8 blocks stay in a CPU cache; a GPU wants many at once.
_BLOCKS_AT_ONCE = {"cpu": 8, "cuda": 1024}
_CRC = struct.Struct("<I")


class Delivery(NamedTuple):
    """What arrived, in the order sent (None: lost), and the complex symbols used, pilots included."""

    packets: tuple[bytes | None, ...]
    channel_uses: int


class BlockCode:
    """Encoder and decoder of one scheme; decoding is flooding belief propagation (exact box-plus), float32.

    Args:
        mcs: The scheme.
        device: Where to compute.
    """

    def __init__(self, mcs: Mcs, device: str = "cpu") -> None:
        ldpc = sionna_module("fec.ldpc")
        self.mcs, self.device = mcs, device
        self._encoder: Any = ldpc.LDPC5GEncoder(
            INFORMATION_BITS,
            mcs.coded_bits,
            num_bits_per_symbol=mcs.bits_per_symbol,
            precision="single",
            device=device,
            check_input=False,
        )
        self._decoder: Any = ldpc.LDPC5GDecoder(
            self._encoder, cn_update="boxplus-phi", num_iter=DECODER_ITERATIONS, precision="single", device=device
        )
        # Without scrambling (TS 38.211, 7.3.1.1) a run of zeros would repeat one point of the constellation, and
        # the mean symbol energy would depend on the data. The standard's Gold sequence would do no better here.
        generator = Streams(0, ("radio", "scrambling")).torch()
        self._scrambling = torch.randint(0, 2, (mcs.coded_bits,), generator=generator).to(device, torch.int32)

    def encode(self, bits: Tensor) -> Tensor:
        """Maps information bits (m, 960), zeros and ones, to symbols (m, S) complex64 of unit mean energy."""
        coded = self._encoder(bits.to(self.device, torch.float32)).to(torch.int32)
        return modulate(coded ^ self._scrambling, self.mcs.bits_per_symbol)

    def decode(self, symbols: Tensor, noise_variance: Tensor) -> Tensor:
        """Maps equalised symbols (m, S) with noise energies (m, 1) to information bits (m, 960) uint8 on the CPU."""
        step = _BLOCKS_AT_ONCE.get(torch.device(self.device).type, 8)
        decoded = []
        for first in range(0, len(symbols), step):
            some = slice(first, first + step)
            ratios = demodulate(symbols[some], noise_variance[some], self.mcs.bits_per_symbol)
            decoded.append(self._decoder(ratios * (1 - 2 * self._scrambling)).to("cpu", torch.uint8))
        return torch.cat(decoded) if decoded else torch.empty(0, INFORMATION_BITS, dtype=torch.uint8)


@cache
def block_code(mcs: Mcs, device: str = "cpu") -> BlockCode:
    """Returns the code of a scheme, built once a process and device."""
    return BlockCode(mcs, device)


def packet_bits(packet: bytes) -> Tensor:
    """Returns (m, 960) uint8: the packet, its CRC32 and zero padding, most significant bit first."""
    data = packet + _CRC.pack(zlib.crc32(packet))
    padded = data.ljust(blocks_of(len(packet)) * BLOCK_BYTES, b"\0")
    bits = np.unpackbits(np.frombuffer(padded, np.uint8))
    return torch.from_numpy(bits).reshape(-1, INFORMATION_BITS)


def checked_packet(bits: Tensor, size: int) -> bytes | None:
    """Returns the packet of ``size`` bytes in decoded bits (m, 960), or None where its CRC32 does not match.

    A wrong packet passes the check with probability 2^-32.
    """
    data = np.packbits(bits.numpy().reshape(-1)).tobytes()
    packet, crc = data[:size], data[size : size + LINK_CRC_BYTES]
    return packet if crc == _CRC.pack(zlib.crc32(packet)) else None


def channel_uses(packet_sizes: Sequence[int], mcs: Mcs, fading: Fading) -> int:
    """Returns the complex symbols that packets of these sizes (bytes) and the pilots of one image take."""
    return sum(blocks_of(size) for size in packet_sizes) * mcs.block_symbols + (fading.pilots or 0)


def send_packets(
    packets: Sequence[bytes], mcs: Mcs, snr_db: float, fading: Fading, rng: Streams, device: str = "cpu"
) -> Delivery:
    """Sends the packets of one image through one realisation of the channel.

    Args:
        packets: Bytes; each is padded to whole code blocks of 120 bytes, its link CRC included.
        mcs: Modulation and coding scheme.
        snr_db: Mean Es/N0 per complex symbol, in dB.
        fading: Distribution of the image's gain, and how the receiver knows it.
        rng: The image's own node: its gain, its estimate, and noise and whitening of each packet are named below it, so
            they depend neither on other images nor on the other packets.
        device: Where to compute; draws are made on the CPU. Between devices the last bits of belief propagation differ,
            which can decide a block at the edge of convergence.
    """
    uses = channel_uses([len(packet) for packet in packets], mcs, fading)
    if not packets:
        return Delivery((), uses)
    code, n0 = block_code(mcs, device), noise_power(snr_db)
    gain = draw_gains(fading, [rng])
    known = estimate_gains(gain, fading, n0, [rng])
    bits = [packet_bits(packet) for packet in packets]
    noise = torch.cat(
        [
            complex_normal((len(blocks), mcs.block_symbols), rng.child("noise", index))
            for index, blocks in enumerate(bits)
        ]
    )
    # The code's own scrambling is one fixed sequence, under which the padding of every packet would be the same
    # symbols, 0.17 dB weak in one measured case; whitening that differs by image and packet, known to both ends,
    # averages that out.
    white = torch.cat(
        [
            torch.randint(0, 2, blocks.shape, dtype=torch.uint8, generator=rng.child("whitening", index).torch())
            for index, blocks in enumerate(bits)
        ]
    )
    received = transmit(code.encode(torch.cat(bits) ^ white), gain.to(device), n0, noise.to(device))
    equalised = equalise(received, known.to(device), n0, pilots=fading.pilots)
    decoded = code.decode(equalised.symbols, equalised.noise_variance.expand(len(received), 1)) ^ white
    arrived, first = [], 0
    for packet, blocks in zip(packets, bits, strict=True):
        arrived.append(checked_packet(decoded[first : first + len(blocks)], len(packet)))
        first += len(blocks)
    return Delivery(tuple(arrived), uses)
