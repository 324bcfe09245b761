"""Digital channels: packets of payload bytes that arrive whole or are lost."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from leakgauge.defenses.radio.block_error import choose_mcs, lose_packets
from leakgauge.defenses.radio.fading import Fading, Kind
from leakgauge.defenses.radio.ldpc import send_packets
from leakgauge.defenses.radio.schemes import Mcs, McsName, scheme
from leakgauge.harness.contracts.link import Delivered, PacketChannel, Packets
from leakgauge.harness.suite.options import Count, Decibel, Share
from leakgauge.harness.system.extras import require
from leakgauge.harness.values.seeding import Streams


class ErasureChannel(PacketChannel):
    """Loses each packet with one probability, independently: a network, not a radio.

    Channel uses are counted as if every bit took one symbol (assumed: QPSK at rate 1/2).

    Args:
        loss: Probability in [0, 1] that a packet is lost.
    """

    name = "erasure"
    random = True

    def __init__(self, loss: Share) -> None:
        self._loss = float(loss)

    def carry(self, packets: Packets, ids: tuple[str, ...], rng: Streams) -> Delivered:
        """Draws each packet's fate from a stream of its own."""
        arrived, uses = [], []
        for own, image_id in zip(packets, ids, strict=True):
            node = rng.child("erasure", image_id)
            draws = [
                float(torch.rand((), dtype=torch.float64, generator=node.child(i).torch())) for i in range(len(own))
            ]
            arrived.append(
                tuple(None if draw < self._loss else packet for packet, draw in zip(own, draws, strict=True))
            )
            uses.append(8 * sum(len(packet) for packet in own))
        return Delivered(tuple(arrived), torch.tensor(uses, dtype=torch.long), None)


class DigitalChannel(PacketChannel):
    """5G LDPC code and QAM over AWGN or block fading; a packet whose checksum fails is lost.

    Packet loss is drawn from block error curves measured with the bit-true chain, unless ``bit_true`` asks for the
    chain itself, which takes seconds a payload on a CPU. No retransmissions.

    Args:
        snr_db: Mean Es/N0 per complex symbol, in dB.
        mcs: Name of a modulation and coding scheme, or ``auto``: the most efficient one whose block error rate at the
            mean SNR is below ``target_bler``. An eavesdropper hears the scheme that the server's link chose: name it.
        target_bler: Block error rate that ``auto`` accepts, in (0, 1). A packet of tokens fills tens of blocks and is
            not sent again: the tenth that mobile networks aim at, with retransmissions, would lose most packets.
        kind: Fading: none, rayleigh or rician.
        k_db: Line-of-sight power over scattered power in dB; for ``rician`` only.
        pilots: Pilot symbols an image from which the receiver estimates the gain; None: it knows it.
        bit_true: Code, modulate and decode every bit.

    Raises:
        ConfigError: An option is unknown or out of range, or ``bit_true`` lacks the extra ``channels``.
    """

    name = "digital"
    random = True

    def __init__(
        self,
        snr_db: Decibel,
        mcs: McsName = "auto",
        target_bler: Annotated[float, Field(gt=0, lt=1)] = 0.001,
        kind: Kind = "none",
        k_db: Decibel | None = None,
        pilots: Count | None = None,
        bit_true: bool = False,
    ) -> None:
        self.snr_db = float(snr_db)
        self.mcs: Mcs = choose_mcs(self.snr_db, target_bler) if mcs == "auto" else scheme(mcs)
        self._fading = Fading(kind, k_db, pilots)
        self._bit_true = bit_true
        if bit_true:
            require("sionna", "digital: bit_true")

    def carry(self, packets: Packets, ids: tuple[str, ...], rng: Streams) -> Delivered:
        """Sends the packets of each image through one realisation of its channel."""
        assert self.snr_db is not None
        arrived: list[tuple[bytes | None, ...]] = []
        uses = []
        for own, image_id in zip(packets, ids, strict=True):
            node = rng.child("digital", image_id)
            if self._bit_true:
                delivery = send_packets(own, self.mcs, self.snr_db, self._fading, node)
                arrived.append(delivery.packets)
                uses.append(delivery.channel_uses)
            else:
                losses = lose_packets([len(packet) for packet in own], self.mcs, self.snr_db, self._fading, node)
                arrived.append(tuple(None if lost else packet for packet, lost in zip(own, losses.lost, strict=True)))
                uses.append(losses.channel_uses)
        return Delivered(tuple(arrived), torch.tensor(uses, dtype=torch.long), None)
