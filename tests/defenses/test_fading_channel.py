"""Block fading on tokens: power, noise and equalisation against closed forms, image by image."""

import pytest
import torch

from leakgauge.defenses.channels.analog import AwgnChannel, FadingChannel
from leakgauge.harness.contracts.link import symbols_per_image
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

RNG = Streams(3)


def batch(images=400, patches=40, width=6, scale=None):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(images, 1 + patches, width, generator=generator)
    if scale is not None:
        tokens = tokens * scale[:, None, None]
    return TokenBatch.from_uniform(tokens, prefix=1)


def names(count):
    return tuple(f"image{i}" for i in range(count))


def errors(sent, received):
    """Mean squared error of each image over its mean squared value."""
    per = (received.tokens.tokens - sent.tokens).square().view(len(sent), -1).mean(dim=1)
    return per / sent.tokens.square().view(len(sent), -1).mean(dim=1)


def test_a_line_of_sight_alone_is_awgn_with_the_snr_that_was_asked_for():
    sent = batch()
    for snr_db in (0.0, 10.0):
        for channel in (
            AwgnChannel(snr_db),
            FadingChannel(snr_db, kind="rician", k_db=60.0, equaliser="zero_forcing"),
        ):
            found = errors(sent, channel.apply(sent, names(400), RNG))
            # 400 images of 246 values: the mean error's standard error is .45 %.
            assert float(found.mean()) == pytest.approx(10 ** (-snr_db / 10), rel=0.02)


@pytest.mark.parametrize("equaliser", ["zero_forcing", "mmse"])
def test_the_error_of_each_image_is_what_its_realisation_predicts(equaliser):
    sent = batch(scale=torch.linspace(0.1, 10, 400))
    received = FadingChannel(5.0, equaliser=equaliser).apply(sent, names(400), RNG)
    power, n0 = received.state.gain.abs().square(), 10**-0.5
    expected = n0 / power if equaliser == "zero_forcing" else n0 / (power + n0)
    ratio = errors(sent, received) / expected
    assert float(ratio.median()) == pytest.approx(1, rel=0.03)
    # What the receiver is told about the noise is the noise.
    mean_square = sent.tokens.square().view(400, -1).mean(dim=1)
    assert torch.allclose(received.state.noise_std.square() / mean_square, expected, rtol=1e-4)


def test_mmse_is_never_worse_than_zero_forcing_on_average():
    sent = batch()
    mmse, forced = (
        errors(sent, FadingChannel(0.0, equaliser=e).apply(sent, names(400), RNG)) for e in ("mmse", "zero_forcing")
    )
    assert float(mmse.mean()) < 1 < float(forced.mean())


def test_gains_have_unit_power_and_rayleigh_fades():
    sent = batch(images=4000, patches=1, width=2)
    gain = FadingChannel(10.0).apply(sent, names(4000), RNG).state.gain
    power = gain.abs().square()
    assert float(power.mean()) == pytest.approx(1, abs=4 / 4000**0.5)
    # An exponential variable: P(power < 0.1) = 1 - exp(-0.1).
    assert float((power < 0.1).float().mean()) == pytest.approx(0.0952, abs=4 * (0.0952 * 0.905 / 4000) ** 0.5)


def test_pilots_cost_symbols_and_an_estimate_costs_fidelity():
    sent = batch()
    known = FadingChannel(5.0).apply(sent, names(400), RNG)
    guessed = FadingChannel(5.0, pilots=2).apply(sent, names(400), RNG)
    assert torch.equal(guessed.channel_uses, known.channel_uses + 2)
    assert float(errors(sent, guessed).mean()) > float(errors(sent, known).mean())


@pytest.mark.parametrize("channel", [FadingChannel(5.0), FadingChannel(5.0, pilots=4), AwgnChannel(5.0)])
def test_a_batch_mate_changes_nothing(channel):
    sent = batch(images=8)
    together = channel.apply(sent, names(8), RNG).tokens.select([3]).tokens
    loud = TokenBatch(sent.tokens * 100, sent.lengths, sent.sizes, sent.merge_map, 1)
    rows = slice(3 * 41, 4 * 41)
    loud.tokens[rows] = sent.tokens[rows]
    among_loud = channel.apply(loud, names(8), RNG).tokens.select([3]).tokens
    alone = channel.apply(sent.select([3]), ("image3",), RNG).tokens.tokens
    assert torch.equal(together, among_loud)
    assert torch.equal(together, alone)


def test_an_odd_width_pads_each_token_by_one_value():
    sent = batch(images=2, patches=3, width=5)
    received = FadingChannel(40.0, equaliser="zero_forcing").apply(sent, names(2), RNG)
    assert received.tokens.tokens.shape == sent.tokens.shape
    assert symbols_per_image(sent).tolist() == [12, 12]
    assert float(errors(sent, received).max()) < 0.1
