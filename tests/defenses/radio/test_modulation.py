import math

import pytest
import torch

from leakgauge.defenses.radio.fading import Fading, complex_normal, draw_gains, equalise, noise_power, transmit
from leakgauge.defenses.radio.modulation import demodulate, modulate
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams

ORDERS = (2, 4, 6)


def theory_terms(bits_per_symbol):
    """Weights w and odd m with BER = sum of w erfc(m sqrt(3 Es/N0 / (2 (M - 1)))): Gray QAM, exact.

    Cho and Yoon, IEEE Trans. Commun. 50(7), 2002, equations 14 and 16; for QPSK it is Q(sqrt(Es/N0)).
    """
    side, bits = 2 ** (bits_per_symbol // 2), bits_per_symbol // 2
    for k in range(1, bits + 1):
        for i in range(round((1 - 2**-k) * side)):
            turn = i * 2 ** (k - 1) / side
            sign, weight = (-1) ** math.floor(turn), 2 ** (k - 1) - math.floor(turn + 0.5)
            yield sign * weight / (side * bits), 2 * i + 1


def awgn_ber(bits_per_symbol, snr):
    base = 3 * snr / (2 * (2**bits_per_symbol - 1))
    return sum(w * math.erfc(m * math.sqrt(base)) for w, m in theory_terms(bits_per_symbol))


def rayleigh_ber(bits_per_symbol, snr):
    # The mean of erfc(sqrt(c g)) over exponential g of mean snr is 1 - sqrt(c snr / (1 + c snr)).
    base = 3 * snr / (2 * (2**bits_per_symbol - 1))
    return sum(w * (1 - math.sqrt(m * m * base / (1 + m * m * base))) for w, m in theory_terms(bits_per_symbol))


def random_bits(shape, name):
    return torch.randint(0, 2, shape, generator=Streams(0, ("test", name)).torch())


def assert_rate(wrong, expected):
    """Allows four standard errors of independent bits, times 1.5 because those of a symbol share its noise."""
    error = math.sqrt(expected * (1 - expected) / wrong.numel())
    assert float(wrong.float().mean()) == pytest.approx(expected, abs=4 * 1.5 * error)


def test_theory_is_the_textbook_one():
    snr = 10.0
    a = math.sqrt(snr / 10)
    assert awgn_ber(2, snr) == pytest.approx(0.5 * math.erfc(math.sqrt(snr / 2)))
    assert awgn_ber(4, snr) == pytest.approx((3 * math.erfc(a) + 2 * math.erfc(3 * a) - math.erfc(5 * a)) / 8)
    per_bit = snr / 2
    assert rayleigh_ber(2, snr) == pytest.approx(0.5 * (1 - math.sqrt(per_bit / (1 + per_bit))))


@pytest.mark.parametrize("order", ORDERS)
def test_all_points_have_unit_mean_energy_and_neighbours_differ_in_one_bit(order):
    labels = torch.tensor([[(index >> bit) & 1 for bit in range(order)] for index in range(2**order)])
    points = modulate(labels, order)[:, 0]
    assert float(points.abs().square().mean()) == pytest.approx(1, abs=1e-6)
    distance = (points[:, None] - points).abs()
    nearest = torch.isclose(distance, distance[distance > 1e-3].min(), rtol=1e-3)
    assert set((labels[:, None] != labels).sum(dim=2)[nearest].tolist()) == {1}


@pytest.mark.parametrize("method", ["app", "maxlog"])
@pytest.mark.parametrize("order", ORDERS)
def test_bits_survive_a_quiet_channel(order, method):
    bits = random_bits((3, 60), "quiet")
    ratios = demodulate(modulate(bits, order), torch.tensor(0.01), order, method)
    assert torch.equal(ratios > 0, bits == 1)


def test_qpsk_ratios_are_the_closed_form():
    # The ratio of one axis is 4 Re(y) a / N0 with a = sqrt(1/2); a one lies on the negative side.
    y = complex_normal((50,), Streams(0, ("ratios",)))
    for method in ("app", "maxlog"):
        ratios = demodulate(y, torch.tensor(0.5), 2, method).reshape(50, 2)
        assert torch.allclose(ratios[:, 0], -4 * y.real * math.sqrt(0.5) / 0.5, atol=1e-4)


@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 12.0])
def test_measured_snr_of_the_channel_is_the_stated_one(snr_db):
    symbols = modulate(random_bits((100, 2000), "snr"), 4)
    n0 = noise_power(snr_db)
    noise = complex_normal(symbols.shape, Streams(0, ("noise",)))
    received = transmit(symbols, draw_gains(Fading(), [Streams(0)] * 100), n0, noise)
    measured = float(symbols.abs().square().mean() / (received - symbols).abs().square().mean())
    # 50 000 symbols: standard errors 0.45 % of the noise and 0.26 % of the signal, 0.023 dB together; allow four.
    assert 10 * math.log10(measured) == pytest.approx(snr_db, abs=0.09)


@pytest.mark.parametrize(("order", "snr_db"), [(2, 0.0), (2, 6.0), (4, 8.0), (4, 14.0), (6, 16.0)])
def test_bit_errors_over_awgn_follow_theory(order, snr_db):
    bits = random_bits((1, 120_000), f"awgn {order}")
    n0, symbols = noise_power(snr_db), modulate(bits, order)
    noise = complex_normal(symbols.shape, Streams(0, ("awgn", str(order), str(snr_db))))
    received = transmit(symbols, torch.ones(1, dtype=torch.complex64), n0, noise)
    wrong = (demodulate(received, torch.tensor(n0), order) > 0) != (bits == 1)
    # A hard decision by exact ratios is the best one for each bit, a hair under the nearest-point theory at low SNR.
    assert_rate(wrong, awgn_ber(order, 1 / n0))


@pytest.mark.parametrize(("order", "snr_db"), [(2, 5.0), (2, 15.0), (4, 10.0), (4, 20.0)])
def test_bit_errors_over_rayleigh_fading_follow_theory(order, snr_db):
    root = Streams(0, ("rayleigh", str(order), str(snr_db)))
    images = 30_000
    bits = random_bits((images, order), f"rayleigh {order}")
    gains = complex_normal((images,), root.child("gains"))
    n0, symbols = noise_power(snr_db), modulate(bits, order)
    received = transmit(symbols, gains, n0, complex_normal(symbols.shape, root.child("noise")))
    equalised = equalise(received, gains, n0)
    wrong = (demodulate(equalised.symbols, equalised.noise_variance, order) > 0) != (bits == 1)
    assert_rate(wrong, rayleigh_ber(order, 1 / n0))


def test_other_orders_are_refused():
    with pytest.raises(ConfigError, match="bits_per_symbol"):
        modulate(torch.zeros(6, dtype=torch.long), 3)
