import json
import math
from itertools import pairwise

import pytest

from leakgauge.defenses.radio.block_error import (
    BlockErrorCurve,
    block_error_rate,
    block_error_table,
    choose_mcs,
    effective_snr_db,
    lose_packets,
    packet_loss,
)
from leakgauge.defenses.radio.fading import Fading
from leakgauge.defenses.radio.ldpc import DECODER_ITERATIONS, send_packets
from leakgauge.defenses.radio.measure_block_errors import main, measure_point
from leakgauge.defenses.radio.schemes import INFORMATION_BITS, SCHEMES, blocks_of, scheme
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.seeding import Streams

# Between the points of the table, where between half and nearly all packets of two blocks are lost.
VALIDATION = {"qpsk_1_2": (0.7, 0.9, 1.1), "qam16_3_4": (9.6, 9.9, 10.1)}
BY_NAME = {"ids": lambda mcs: mcs.name}


def sent_loss(name, snr_db, size, packets):
    """Measures the share of packets that the bit-true chain loses, with draws that the table was not made from."""
    rng = Streams(77, ("validation", name, str(snr_db)))
    data = [rng.child("bytes", index).numpy().bytes(size) for index in range(packets)]
    arrived = send_packets(data, scheme(name), snr_db, Fading(), rng).packets
    return sum(packet is None for packet in arrived) / packets


def test_the_table_says_where_it_comes_from():
    provenance = block_error_table().provenance
    assert provenance["date"] == "2026-11-22"
    assert provenance["sionna"].startswith("2.")
    assert f"{DECODER_ITERATIONS} iterations" in provenance["decoder"]
    assert provenance["information_bits"] == INFORMATION_BITS
    assert {"torch", "seed", "blocks_per_point", "errors_per_point", "channel", "demapper"} <= set(provenance)


@pytest.mark.parametrize("mcs", SCHEMES, **BY_NAME)
def test_measured_curves_are_dense_and_fall(mcs):
    curve = block_error_table().curves[mcs.name]
    points = list(zip(curve.snr_db, curve.blocks, curve.errors, strict=True))
    assert points[0][2] >= 0.99 * points[0][1]
    assert points[-1][2] == 0
    for (snr, blocks, errors), (next_snr, next_blocks, next_errors) in pairwise(points):
        assert next_snr - snr == pytest.approx(0.25)
        assert errors >= 400 or blocks >= 2000
        error = math.sqrt(errors / blocks * (1 - errors / blocks) * (1 / blocks + 1 / next_blocks))
        # One block more for rates of 0 and 1, whose estimated error is 0.
        assert next_errors / next_blocks <= errors / blocks + 4 * error + 1 / blocks


@pytest.mark.parametrize("mcs", SCHEMES, **BY_NAME)
def test_no_scheme_beats_the_shannon_limit_or_is_far_from_it(mcs):
    limit = 10 * math.log10(2**mcs.efficiency - 1)
    needed = next(snr for snr in (limit + step / 100 for step in range(600)) if block_error_rate(mcs, snr) < 0.1)
    # 960 bits, 20 iterations and bit-interleaved coded modulation cost 1 to 3 dB.
    assert 0.5 < needed - limit < 3.0


def test_interpolation_meets_its_points_and_states_its_ends():
    curve = BlockErrorCurve((0.0, 1.0, 2.0, 3.0), (1000,) * 4, (1000, 900, 100, 4))
    assert curve.rate(-0.01) == 1
    assert [curve.rate(snr) for snr in (1.0, 1.5, 2.0)] == pytest.approx([0.9, 0.5, 0.1])
    assert curve.rate(0.0) == pytest.approx(0.9995)
    # The fourth point has too few errors to count: the odds of 9 and 1 / 9 go on falling by 81 a dB.
    assert curve.rate(4.0) == pytest.approx(1 / 9 / 81**2, rel=1e-3)
    assert curve.rate(1e6) == pytest.approx(0, abs=1e-200)
    assert curve.rate(-math.inf) == 1
    # A rise by chance is flattened.
    bumpy = BlockErrorCurve((0.0, 1.0, 2.0, 3.0), (1000,) * 4, (900, 500, 510, 20))
    assert bumpy.rate(2.0) == pytest.approx(0.5)


def test_a_packet_of_many_blocks_is_lost_with_any_of_them():
    mcs, snr_db = scheme("qam16_1_2"), 6.4
    rate = block_error_rate(mcs, snr_db)
    assert 0.02 < rate < 0.8
    assert packet_loss(mcs, snr_db, 3) == pytest.approx(1 - (1 - rate) ** 3)
    assert packet_loss(mcs, -5.0, 1) == 1


@pytest.mark.parametrize("fading", [Fading(), Fading("rayleigh")], ids=lambda fading: fading.kind)
def test_losses_follow_the_loss_rate_and_are_addressed_by_image_and_packet(fading):
    mcs, snr_db, rng = scheme("qpsk_1_2"), 1.2, Streams(0, ("losses",))
    lost, sizes = [], [100] * 5 + [200] * 5
    expected = []
    for image in range(400):
        node = rng.child(image)
        lost.append(lose_packets(sizes, mcs, snr_db, fading, node).lost)
        effective = effective_snr_db(snr_db, fading, node)
        expected.append([packet_loss(mcs, effective, blocks_of(size)) for size in sizes])
    for column in (slice(0, 5), slice(5, 10)):
        measured = [one for row in lost for one in row[column]]
        mean = sum(p for row in expected for p in row[column]) / len(measured)
        assert 0.02 < mean < 0.98
        # 2000 draws.
        assert sum(measured) / len(measured) == pytest.approx(mean, abs=4 * math.sqrt(mean * (1 - mean) / 2000))
    assert lose_packets(sizes[:3], mcs, snr_db, fading, rng.child(7)).lost == lost[7][:3]
    assert lose_packets(sizes, mcs, snr_db, fading, rng.child(7)) == (lost[7], 15 * 960)


def test_losses_use_the_gains_that_the_bit_true_chain_draws():
    """Over Rayleigh fading it is the gain that decides; only images near the waterfall may differ."""
    mcs, snr_db = scheme("qam16_3_4"), 12.0
    for fading in (Fading("rayleigh"), Fading("rayleigh", pilots=16)):
        both = []
        for image in range(120):
            rng = Streams(3, ("gains", str(image)))
            arrived = send_packets([bytes(100)], mcs, snr_db, fading, rng)
            drawn = lose_packets([100], mcs, snr_db, fading, rng)
            assert drawn.channel_uses == arrived.channel_uses
            both.append((arrived.packets[0] is None, drawn.lost[0]))
        assert 30 < sum(true for true, _ in both) < 90
        # About 8 % of Rayleigh gains lie within the 1.5 dB in which both are decided by their own noise.
        assert sum(true != drawn for true, drawn in both) <= 14


@pytest.mark.slow
def test_the_table_agrees_with_the_bit_true_chain_at_one_point():
    loss = packet_loss(scheme("qam16_3_4"), 10.1, blocks_of(200))
    assert 0.2 < loss < 0.9
    # 400 packets: four standard errors are 10 points of 100.
    assert sent_loss("qam16_3_4", 10.1, 200, 400) == pytest.approx(loss, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "snr_db"),
    [(name, snr_db) for name, tried in VALIDATION.items() for snr_db in tried],
)
def test_packet_loss_is_within_ten_percent_of_the_bit_true_chain(name, snr_db):
    loss = packet_loss(scheme(name), snr_db, blocks_of(200))
    assert sent_loss(name, snr_db, 200, 1200) == pytest.approx(loss, rel=0.1)


def test_more_signal_never_chooses_a_less_efficient_scheme():
    chosen = [choose_mcs(step / 10) for step in range(-60, 250)]
    assert {mcs.name for mcs in chosen} == {mcs.name for mcs in SCHEMES}
    assert [mcs.efficiency for mcs in chosen] == sorted(mcs.efficiency for mcs in chosen)
    for step, mcs in zip(range(-60, 250), chosen, strict=True):
        assert block_error_rate(mcs, step / 10) <= 0.1 or mcs is SCHEMES[0]
    assert choose_mcs(10.0, 1e-6).efficiency <= choose_mcs(10.0, 0.5).efficiency


def test_a_measurement_goes_on_where_it_stopped(tmp_path, monkeypatch):
    out = tmp_path / "table.json"
    arguments = ["--out", str(out), "--blocks", "100"]
    calls = []

    def fake_point(mcs, snr_db, *_):
        calls.append((mcs.name, snr_db))
        if len(calls) == 5:
            raise KeyboardInterrupt
        place = len({call for call in calls if call[0] == mcs.name})
        return {"snr_db": snr_db, "blocks": 100, "errors": 90 - 30 * place}

    monkeypatch.setattr("leakgauge.defenses.radio.measure_block_errors.measure_point", fake_point)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    before = json.loads(out.read_text())["curves"]
    with pytest.raises(DataError, match="qpsk_1_2"):
        block_error_table(out)
    main(arguments)
    after = json.loads(out.read_text())["curves"]
    assert after["qpsk_1_3"] == before["qpsk_1_3"]
    assert list(after) == [mcs.name for mcs in SCHEMES]
    # The point that was interrupted is the only one measured twice.
    assert len(calls) == len(set(calls)) + 1
    with pytest.raises(SystemExit, match="other settings"):
        main([*arguments, "--seed", "1"])


def test_a_point_of_the_table_comes_out_again():
    mcs = scheme("qam16_3_4")
    curve = block_error_table().curves[mcs.name]
    found = measure_point(mcs, curve.snr_db[0], 100, 400, block_error_table().provenance["seed"])
    # Seeded alike and all but certain: the first 100 blocks of this point.
    assert found["errors"] >= 97
