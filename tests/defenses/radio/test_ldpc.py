import subprocess
import sys

import pytest
import torch

from leakgauge.defenses.radio.fading import Fading, transmit
from leakgauge.defenses.radio.ldpc import block_code, checked_packet, packet_bits, send_packets
from leakgauge.defenses.radio.schemes import INFORMATION_BITS, SCHEMES, blocks_of, scheme
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams

AWGN = Fading()


def packets_of(*sizes, seed=0):
    generator = Streams(seed, ("packets",)).numpy()
    return [generator.bytes(size) for size in sizes]


@pytest.mark.parametrize("mcs", SCHEMES, ids=lambda mcs: mcs.name)
def test_all_bytes_arrive_over_a_good_channel_and_none_over_a_bad_one(mcs):
    packets = [*packets_of(0, 1, 116, 117, 500), bytes(300)]
    delivery = send_packets(packets, mcs, 20.0, AWGN, Streams(0))
    assert delivery.packets == tuple(packets)
    # With the link CRC of 4 bytes: 1, 1, 1, 2, 5 and 3 blocks of 120 bytes.
    assert delivery.channel_uses == 13 * mcs.coded_bits // mcs.bits_per_symbol
    assert send_packets(packets, mcs, -8.0, AWGN, Streams(0)).packets == (None,) * len(packets)


def test_encoded_blocks_are_codewords_of_the_standard():
    # The parity checks hold for what the decoder sees of noiseless symbols: information bits and codeword agree.
    code = block_code(scheme("qpsk_1_3"))
    bits = torch.randint(0, 2, (4, INFORMATION_BITS), generator=Streams(0, ("bits",)).torch())
    parity_checks = torch.from_numpy(code._encoder.pcm.toarray()).float()
    z, lifted = code._encoder.z, code._encoder.n_ldpc
    assert (z, lifted, code._encoder.k_filler) == (96, 52 * 96, 0)
    # Rate 1/3 sends the first 2880 bits after the 2 Z punctured ones; these checks touch nothing later.
    touched = parity_checks[:, 2 * z + 2880 :].sum(dim=1) == 0
    sent = code._encoder(bits.float())[:, code._encoder.out_int_inv]
    word = torch.cat([bits[:, : 2 * z].float(), sent, torch.zeros(4, lifted - 2 * z - 2880)], dim=1)
    assert int(touched.sum()) == 2112 == 2880 + 2 * z - INFORMATION_BITS
    assert int((word @ parity_checks[touched].T).remainder(2).sum()) == 0


@pytest.mark.parametrize("mcs", SCHEMES, ids=lambda mcs: mcs.name)
def test_symbol_energy_does_not_depend_on_the_data(mcs):
    zeros = block_code(mcs).encode(torch.zeros(1, INFORMATION_BITS))
    # Symbol energy varies by up to 0.62 standard deviations of 1 (64-QAM, 240 symbols): standard error 0.04.
    assert float(zeros.abs().square().mean()) == pytest.approx(1, abs=0.16)


def test_blocks_decode_alike_alone_and_in_a_batch():
    mcs = scheme("qam16_3_4")
    code = block_code(mcs)
    stream = Streams(0, ("alone",))
    bits = torch.randint(0, 2, (11, INFORMATION_BITS), generator=stream.torch())
    symbols = code.encode(bits)
    noise = torch.randn(symbols.shape, dtype=torch.complex64, generator=stream.child("noise").torch())
    received, variance = symbols + 0.31 * noise, torch.full((11, 1), 0.31**2)
    together = code.decode(received, variance)
    assert 0 < int((together != bits).any(dim=1).sum()) < 11
    for index in range(11):
        row = slice(index, index + 1)
        assert torch.equal(code.decode(received[row], variance[row]), together[row])


def test_a_packet_has_the_same_fate_whatever_is_sent_beside_it():
    mcs, rng = scheme("qam16_3_4"), Streams(0, ("image",))
    packets = packets_of(*[100] * 16)
    fading = Fading("rayleigh", pilots=4)
    outcome = send_packets(packets, mcs, 10.0, AWGN, rng).packets
    assert len({packet is None for packet in outcome}) == 2
    assert send_packets(packets[:5], mcs, 10.0, AWGN, rng).packets == outcome[:5]
    assert send_packets(packets, mcs, 10.0, AWGN, rng).packets == outcome
    assert send_packets(packets, mcs, 10.0, AWGN, rng.child("other")).packets != outcome
    faded = send_packets(packets, mcs, 18.0, fading, rng)
    assert faded.packets[:2] == send_packets(packets[:2], mcs, 18.0, fading, rng).packets
    assert faded.channel_uses == 16 * 320 + 4


def test_estimated_gains_cost_packets():
    mcs, packets = scheme("qam16_1_2"), packets_of(*[100] * 3)
    lost = {}
    for pilots in (None, 1, 64):
        fading = Fading("rician", 10.0, pilots)
        sent = [send_packets(packets, mcs, 9.0, fading, Streams(0, (str(i),))).packets for i in range(25)]
        lost[pilots] = sum(packet is None for one in sent for packet in one)
    assert lost[None] <= lost[64] < lost[1]


def test_padding_is_sent_as_other_symbols_in_every_packet(monkeypatch):
    seen = []

    def listen(symbols, *others):
        seen.append(symbols)
        return transmit(symbols, *others)

    monkeypatch.setattr("leakgauge.defenses.radio.ldpc.transmit", listen)
    mcs = scheme("qam16_3_4")
    send_packets([bytes(1)] * 40, mcs, 15.0, AWGN, Streams(0))
    # 16 points meet by chance once in 16; 39 * 320 symbols have a standard error of 0.0022.
    assert float((seen[0][1:] == seen[0][:-1]).float().mean()) == pytest.approx(1 / 16, abs=0.009)
    # Energies of 0.2, 1 and 1.8 with chances of 1/4, 1/2 and 1/4: standard error 0.005.
    assert float(seen[0].abs().square().mean()) == pytest.approx(1, abs=0.02)


def test_a_flipped_bit_loses_the_packet_and_flipped_padding_does_not():
    (packet,) = packets_of(150)
    bits = packet_bits(packet)
    assert bits.shape == (2, INFORMATION_BITS) == (blocks_of(150), INFORMATION_BITS)
    assert checked_packet(bits, 150) == packet
    for place in (0, 8 * 150 + 3):
        damaged = bits.clone().reshape(-1)
        damaged[place] ^= 1
        assert checked_packet(damaged, 150) is None
    damaged = bits.clone()
    damaged[-1, -1] ^= 1
    assert checked_packet(damaged, 150) == packet


def test_nothing_sent_uses_nothing():
    assert send_packets([], SCHEMES[0], 0.0, AWGN, Streams(0)) == ((), 0)


def test_unknown_schemes_are_refused():
    with pytest.raises(ConfigError, match="qpsk_1_3"):
        scheme("bpsk")


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_sionna_is_imported_only_when_used():
    code = "import sys, leakgauge.defenses.pipeline, leakgauge.defenses.radio.block_error\n"
    code += "import leakgauge.defenses.radio.measure_block_errors\n"
    assert run_python(code + "print('sionna' in sys.modules)") == ["False"]


@pytest.mark.slow
def test_importing_sionna_leaves_the_global_generator_alone():
    code = "import torch\ntorch.manual_seed(5)\nprint(torch.rand(1).item())\ntorch.manual_seed(5)\n"
    code += "from leakgauge.defenses.radio.sionna_import import sionna_module\nsionna_module('mapping')\n"
    first, second = run_python(code + "print(torch.rand(1).item())")
    assert first == second
