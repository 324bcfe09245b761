import math

import pytest
import torch

from leakgauge.defenses.radio.fading import (
    Fading,
    complex_normal,
    draw_gains,
    equalise,
    estimate_gains,
    noise_power,
    transmit,
)
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams

IMAGES = 20_000


def streams(count=IMAGES, seed=0):
    return [Streams(seed, ("image", str(index))) for index in range(count)]


@pytest.fixture(scope="module")
def rayleigh():
    return draw_gains(Fading("rayleigh"), streams())


def test_rayleigh_gains_have_unit_power_and_an_exponential_distribution(rayleigh):
    power = rayleigh.abs().square()
    # An exponential variable of mean 1 has standard deviation 1: a standard error of 0.007; allow four.
    assert float(power.mean()) == pytest.approx(1, abs=0.029)
    # P(power < 0.1) = 1 - exp(-0.1), standard error 0.0021.
    assert float((power < 0.1).float().mean()) == pytest.approx(1 - math.exp(-0.1), abs=0.0085)
    assert abs(complex(rayleigh.mean())) < 4 / math.sqrt(IMAGES)


@pytest.mark.parametrize("k_db", [-3.0, 6.0])
def test_rician_gains_have_the_stated_moments(k_db):
    gains = draw_gains(Fading("rician", k_db), streams())
    k = 10 ** (k_db / 10)
    power = gains.abs().square()
    # The variance of the power is (1 + 2 K) / (1 + K)^2, at most 1.
    assert float(power.mean()) == pytest.approx(1, abs=4 / math.sqrt(IMAGES))
    assert float(gains.real.mean()) == pytest.approx(math.sqrt(k / (k + 1)), abs=4 / math.sqrt(2 * IMAGES * (k + 1)))
    scatter = (gains - math.sqrt(k / (k + 1))).abs().square().mean()
    assert float(scatter) == pytest.approx(1 / (k + 1), rel=4 / math.sqrt(IMAGES))
    # Fourth moment, independent of how the gain was put together: 1 + (1 + 2 K) / (1 + K)^2; its error is under 4 %.
    assert float(power.square().mean()) == pytest.approx(1 + (1 + 2 * k) / (1 + k) ** 2, rel=0.12)


def test_no_fading_is_a_gain_of_one():
    assert torch.equal(draw_gains(Fading(), streams(3)), torch.ones(3, dtype=torch.complex64))


def test_an_image_has_the_same_gain_and_estimate_alone_and_in_a_batch(rayleigh):
    fading = Fading("rayleigh", pilots=2)
    some = streams()[7:9]
    gains = draw_gains(fading, some)
    assert torch.equal(gains, rayleigh[7:9])
    known = estimate_gains(gains, fading, 0.1, some)
    assert torch.equal(known[1:], estimate_gains(gains[1:], fading, 0.1, some[1:]))
    assert not torch.equal(gains, draw_gains(fading, streams(9, seed=1)[7:9]))


@pytest.mark.parametrize("pilots", [1, 8])
def test_an_estimate_errs_by_the_noise_over_the_pilots(rayleigh, pilots):
    n0 = noise_power(5)
    errors = estimate_gains(rayleigh, Fading("rayleigh", pilots=pilots), n0, streams()) - rayleigh
    assert float(errors.abs().square().mean()) == pytest.approx(n0 / pilots, rel=4 / math.sqrt(IMAGES))
    # Not a rescaled copy of the gain.
    assert abs(complex((errors * rayleigh.conj()).mean())) < 4 * math.sqrt(n0 / pilots / IMAGES)
    assert torch.equal(estimate_gains(rayleigh, Fading("rayleigh"), n0, streams()), rayleigh)


@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_mmse_errs_less_than_zero_forcing_and_both_as_stated(rayleigh, snr_db):
    # 200 images of 500 Gaussian symbols each; errors are exponential, so four standard errors are 18 % of an image's
    # error and 1.3 % of the mean of the ratios.
    gains, n0 = rayleigh[:200], noise_power(snr_db)
    root = Streams(0, ("mmse", str(snr_db)))
    symbols = complex_normal((200, 500), root.child("symbols"))
    received = transmit(symbols, gains, n0, complex_normal((200, 500), root.child("noise")))
    measured = {}
    for method in ("zero_forcing", "mmse"):
        equalised = equalise(received, gains, n0, method)
        measured[method] = (equalised.symbols - symbols).abs().square().mean(dim=1)
        ratio = measured[method] / equalised.noise_variance[:, 0]
        assert ratio.mean() == pytest.approx(1, abs=0.013)
        assert ratio.min() > 0.75
        assert ratio.max() < 1.25
    power = gains.abs().square()
    assert torch.allclose(equalise(received, gains, n0, "mmse").noise_variance[:, 0], n0 / (power + n0))
    assert (measured["mmse"] < measured["zero_forcing"]).float().mean() > 0.95
    assert measured["mmse"].mean() < measured["zero_forcing"].mean()


def test_an_unbiased_mmse_is_zero_forcing(rayleigh):
    gains, n0 = rayleigh[:20], 0.3
    received = complex_normal((20, 5), Streams(0, ("received",)))
    shrink = gains.abs().square() / (gains.abs().square() + n0)
    unbiased = equalise(received, gains, n0, "mmse").symbols / shrink[:, None]
    assert torch.allclose(unbiased, equalise(received, gains, n0).symbols, rtol=1e-4, atol=1e-5)


def test_estimated_gains_err_as_stated_on_average():
    # A strong gain, where the stated independence of estimate and error holds well.
    n0, pilots, images = 0.02, 2, 4000
    fading, nodes = Fading(pilots=pilots), streams(images)
    gains = draw_gains(fading, nodes)
    known = estimate_gains(gains, fading, n0, nodes)
    symbols = torch.exp(1j * torch.rand(images, 50, generator=Streams(0, ("phase",)).torch()) * 2 * math.pi)
    received = transmit(symbols, gains, n0, complex_normal(symbols.shape, Streams(0, ("w",))))
    equalised = equalise(received, known, n0, pilots=pilots)
    error = (equalised.symbols - symbols).abs().square().mean()
    # Pilots err once an image: 4000 exponential draws make up a third of the error; four standard errors are 2.1 %.
    assert float(error) == pytest.approx(float(equalised.noise_variance.mean()), rel=0.025)
    # Blind to the pilots' error, the stated variance would be a third too small.
    assert float(error) > 1.4 * float(equalise(received, known, n0).noise_variance.mean())


def test_a_gain_of_zero_gives_finite_symbols_without_information():
    equalised = equalise(torch.ones(1, 4, dtype=torch.complex64), torch.zeros(1, dtype=torch.complex64), 0.1)
    assert torch.equal(equalised.symbols, torch.zeros(1, 4, dtype=torch.complex64))
    assert bool(torch.isfinite(equalised.noise_variance).all())


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "nakagami"},
        {"kind": "rician"},
        {"kind": "rayleigh", "k_db": 3.0},
        {"kind": "rician", "k_db": math.inf},
        {"pilots": 0},
    ],
)
def test_meaningless_fading_is_refused(options):
    with pytest.raises(ConfigError):
        Fading(**options)


@pytest.mark.parametrize("snr_db", [math.nan, math.inf, "10", True])
def test_snr_must_be_a_finite_number(snr_db):
    with pytest.raises(ConfigError, match="snr_db"):
        noise_power(snr_db)
