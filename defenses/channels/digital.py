"""Digital channels: packets of payload bytes that arrive whole or are lost."""

from __future__ import annotations

import torch

from defenses.radio.block_error import choose_mcs, lose_packets
from defenses.radio.fading import Fading, noise_power
from defenses.radio.ldpc import send_packets
from defenses.radio.schemes import Mcs, scheme
from harness.errors import ConfigError
from harness.link import Delivered, PacketChannel, Packets
from harness.seeding import Streams


class ErasureChannel(PacketChannel):
    """Loses each packet with one probability, independently: a network, not a radio.

    Channel uses are counted as if every bit took one symbol (assumed: QPSK at rate 1/2).

    Args:
        loss: Probability in [0, 1] that a packet is lost.
    """

    name = "erasure"
    random = True

    def __init__(self, loss: float) -> None:
        if isinstance(loss, bool) or not isinstance(loss, int | float) or not 0 <= loss <= 1:
            raise ConfigError(f"loss = {loss!r} is not in [0, 1]", mend="write loss: 0.1")
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
        ConfigError: An option is unknown or out of range.
    """

    name = "digital"
    random = True

    def __init__(
        self,
        snr_db: float,
        mcs: str = "auto",
        target_bler: float = 0.001,
        kind: str = "none",
        k_db: float | None = None,
        pilots: int | None = None,
        bit_true: bool = False,
    ) -> None:
        noise_power(snr_db)
        self.snr_db = float(snr_db)
        if isinstance(target_bler, bool) or not isinstance(target_bler, int | float) or not 0 < target_bler < 1:
            raise ConfigError(f"target_bler = {target_bler!r} is not in (0, 1)", mend="write target_bler: 0.1")
        self.mcs: Mcs = choose_mcs(self.snr_db, target_bler) if mcs == "auto" else scheme(mcs)
        self._fading = Fading(kind, k_db, pilots)  # type: ignore[arg-type]  # checked by Fading
        self._bit_true = bit_true

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
