"""The learned joint source-channel codec, on the merged tokens of real photographs."""

import itertools
import math

import pytest
import torch

from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.defenses.backbones.families import adapt
from leakgauge.defenses.channels.analog import FadingChannel
from leakgauge.defenses.codecs.jscc import JsccCodec
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.reductions.threshold import ThresholdMerge
from leakgauge.defenses.wire.link import Link
from leakgauge.harness.contracts.link import Encoded
from leakgauge.harness.errors import ConfigError, PayloadError, PluginError
from leakgauge.harness.suite.registry import create, load
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

RNG = Streams(0, ("test",))
STEPS = 200
SNRS_DB = (0, 5, 10, 20)


@pytest.fixture(scope="module")
def tokens(victim, photographs) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of calibration images, and of 32 evaluation images from other tiles."""

    def of(images):
        with torch.no_grad():
            pixels = victim.normalise(images.images())
            merge = ThresholdMerge(thresholds=0.9)
            backbone = adapt(victim.model)
            embedded = backbone.embed(pixels)
            return run_edge(backbone, embedded, images.ids, merge, RNG, cut=3, proportional=True)[0].tokens

    return of(crop_set("calibration").select(range(280))), of(photographs)


@pytest.fixture(scope="module")
def codecs(tokens) -> dict[tuple[int, int], JsccCodec]:
    """Linear and trained codecs by uses a token and steps."""
    found = {}
    for uses, steps in itertools.product((8, 32), (0, STEPS)):
        found[uses, steps] = JsccCodec(uses, hidden=96, steps=steps)
        found[uses, steps].prepare(tokens[0], RNG)
    return found


def error(codec: JsccCodec, sent: torch.Tensor, deviation: torch.Tensor, snr_db: float) -> float:
    """Mean squared error of standardised values after AWGN at the stated Es/N0 over all tokens."""
    values = codec.to_symbols(sent)
    ratio = 10 ** (-snr_db / 10)
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(3))
    received = values + noise * (values.square().mean() * ratio).sqrt()
    restored = codec.from_symbols(received, torch.full((len(sent),), ratio))
    return float(((restored - sent) / deviation).square().mean())


@pytest.mark.parametrize(("uses", "gain"), [(8, 0.97), (32, 0.985)])
def test_it_is_better_than_its_linear_start_on_other_images(codecs, tokens, uses, gain):
    calibration, sent = tokens
    linear, trained = (
        [error(codecs[uses, steps], sent, calibration.std(0), snr_db) for snr_db in SNRS_DB] for steps in (0, STEPS)
    )
    assert sum(trained) < gain * sum(linear)


def test_error_falls_with_snr_and_with_uses(codecs, tokens):
    calibration, sent = tokens
    few, many = ([error(codecs[uses, STEPS], sent, calibration.std(0), s) for s in SNRS_DB] for uses in (8, 32))
    for errors in (few, many):
        assert all(b < 0.9 * a for a, b in itertools.pairwise(errors))
    assert all(b < 0.8 * a for a, b in zip(few, many, strict=True))
    # Worse than sending nothing would be 1.
    assert few[0] < 1


def test_the_linear_start_is_the_optimal_linear_code_for_its_noise():
    # Four independent directions of known variance, in a plane of six channels.
    dice = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=dice))[0][:4]
    tokens = torch.randn(40_000, 4, generator=dice) * torch.tensor([8.0, 4.0, 2.0, 1.0]) @ axes
    codec = JsccCodec(2, steps=0)
    codec.prepare(tokens, RNG)
    standardised = tokens / tokens.std(0)
    variance = torch.linalg.eigvalsh(torch.cov(standardised.T)).flip(0)[:4]
    # Lee and Petersen 1976, high SNR: powers as roots of the variances, mean 1; each loses v / (1 + power / noise).
    power = variance.sqrt() / variance.sqrt().mean()
    for snr_db in (0, 20):
        expected = float((variance / (1 + power * 10 ** (snr_db / 10))).sum() / 6)
        assert error(codec, tokens, tokens.std(0), snr_db) == pytest.approx(expected, rel=0.03)


def test_without_noise_a_full_linear_code_is_exact():
    tokens = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    codec = JsccCodec(4, steps=0)
    codec.prepare(tokens, RNG)
    assert torch.allclose(codec.from_symbols(codec.to_symbols(tokens), torch.zeros(200)), tokens, atol=1e-4)


def test_symbols_have_unit_power_and_the_stated_number(codecs, tokens):
    for (uses, _), codec in codecs.items():
        values = codec.to_symbols(tokens[0])
        assert values.shape == (len(tokens[0]), 2 * uses)
        assert values.dtype == torch.float32
        assert float(values.square().mean()) == pytest.approx(1, rel=0.02)


def test_it_is_told_the_noise(codecs, tokens):
    codec, sent = codecs[32, STEPS], tokens[1]
    values = codec.to_symbols(sent)
    quiet, loud = (codec.from_symbols(values, torch.full((len(sent),), ratio)) for ratio in (0.0, 1.0))
    # The more noise, the nearer to the mean.
    assert float((loud - sent.mean(0)).norm()) < 0.9 * float((quiet - sent.mean(0)).norm())
    beyond = codec.from_symbols(values, torch.full((len(sent),), 1e6))
    assert bool(torch.isfinite(beyond).all())
    mixed = codec.from_symbols(values[:2], torch.tensor([0.0, 1.0]))
    assert torch.equal(mixed, torch.stack([quiet[0], loud[1]]))


@pytest.mark.parametrize("uses", [8, 32])
def test_below_the_trained_snr_the_linear_estimate_stands_alone(codecs, tokens, uses):
    calibration, sent = tokens
    nothing = float(((calibration.mean(0) - sent) / calibration.std(0)).square().mean())
    for snr_db in (-20, -10, -5):
        linear, trained = (error(codecs[uses, steps], sent, calibration.std(0), snr_db) for steps in (0, STEPS))
        assert trained == pytest.approx(linear, rel=0.02)
        assert trained < 1.01 * nothing
    # Above it, the correction still serves.
    linear, trained = (error(codecs[uses, steps], sent, calibration.std(0), 40) for steps in (0, STEPS))
    assert trained < linear


def test_the_correction_acts_to_the_very_end_of_its_range(codecs, tokens):
    codec, values = codecs[8, STEPS], codecs[8, STEPS].to_symbols(tokens[1][:40])
    at_the_end, beyond = (codec.from_symbols(values, torch.full((40,), ratio)) for ratio in (1.0, 1.001))
    # The linear estimate alone would hardly move.
    assert float((at_the_end - beyond).norm()) > 0.01 * float(at_the_end.norm())


def gaussian_tokens(images: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian tokens (images * length, 4) of known variances, and the variances of their standardised directions."""
    dice = torch.Generator().manual_seed(4)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=dice))[0][:4]
    tokens = torch.randn(images * length, 4, generator=dice) * torch.tensor([8.0, 4.0, 2.0, 1.0]) @ axes
    standardised = tokens / tokens.std(0)
    return tokens, torch.linalg.eigvalsh(torch.cov(standardised.T)).flip(0)[:4]


def sent_through(pipeline, tokens, codec, channel, length):
    """Sends tokens as images of ``length`` tokens each; the transmission."""
    batch = TokenBatch.from_uniform(tokens.view(-1, length, tokens.shape[1]), prefix=0)
    ids, none = tuple(map(str, range(len(batch)))), torch.zeros(len(batch), dtype=torch.long)
    symbols = batch.with_tokens(codec.to_symbols(batch.tokens))
    pipeline.link = Link(pipeline.channel, codec, packet_tokens=8, on_loss="mean")
    return pipeline.send(Encoded(ids, batch, none, none, none[:, None], False, symbols=symbols), RNG, channel)


@pytest.mark.parametrize("equaliser", ["mmse", "zero_forcing"])
@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_over_fading_the_error_is_that_of_the_codec_at_each_images_own_snr(victim, equaliser, snr_db):
    images, length = 150, 200
    tokens, variance = gaussian_tokens(images, length)
    codec = JsccCodec(2, steps=0)
    codec.prepare(tokens, RNG)
    pipeline = SplitPipeline(victim, torch.device("cpu"), codec="jscc")
    received = sent_through(pipeline, tokens, codec, FadingChannel(snr_db, equaliser=equaliser), length)
    found = ((received.received.tokens - tokens) / tokens.std(0)).square().view(images, -1).mean(dim=1)
    # Lee and Petersen 1976: each direction loses v / (1 + power |h|^2 / N0).
    power = variance.sqrt() / variance.sqrt().mean()
    snr = received.state.gain.abs().square()[:, None] * 10 ** (snr_db / 10)
    expected = (variance / (1 + power * snr)).sum(dim=1) / 6
    assert float(found.mean()) == pytest.approx(float(expected.mean()), rel=0.02)
    assert float((found / expected).std()) < 0.15


def test_the_equaliser_makes_no_difference_to_the_codec(victim):
    tokens, _ = gaussian_tokens(20, 50)
    codec = JsccCodec(2, steps=20)
    codec.prepare(tokens, RNG)
    pipeline = SplitPipeline(victim, torch.device("cpu"), codec="jscc")
    mmse, forced = (
        sent_through(pipeline, tokens, codec, FadingChannel(3.0, pilots=pilots, equaliser=e), 50).received.tokens
        for pilots, e in ((4, "mmse"), (4, "zero_forcing"))
    )
    assert torch.allclose(mmse, forced, atol=1e-3)


def test_a_token_does_not_depend_on_its_neighbours(codecs, tokens):
    codec, sent = codecs[8, STEPS], tokens[1]
    values = codec.to_symbols(sent)
    restored = codec.from_symbols(values, torch.full((len(sent),), 0.1))
    for rows in (slice(0, 1), slice(5, 22), slice(7, None)):
        assert torch.equal(codec.to_symbols(sent[rows]), values[rows])
        assert torch.equal(codec.from_symbols(values[rows], torch.full((len(sent[rows]),), 0.1)), restored[rows])


def test_tokens_and_stream_decide_and_nothing_global(tokens):
    def symbols(rng):
        codec = JsccCodec(4, hidden=64, steps=80)
        codec.prepare(tokens[0], rng)
        return codec.to_symbols(tokens[1])

    before = torch.random.get_rng_state()
    one = symbols(RNG)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    with torch.no_grad():
        assert torch.equal(one, symbols(RNG))
    assert not torch.equal(one, symbols(RNG.child("other")))


def test_channels_that_never_vary_and_few_tokens_pass():
    tokens = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    tokens[:, 3] = 2.5
    codec = JsccCodec(4, hidden=4, steps=3)
    codec.prepare(tokens, RNG)
    restored = codec.from_symbols(codec.to_symbols(tokens), torch.zeros(9))
    assert bool(torch.isfinite(restored).all())
    assert codec.to_symbols(tokens[:0]).shape == (0, 8)


def test_it_is_registered_and_refuses_to_work_unprepared():
    codec = load("codecs", "jscc")()
    for use in (
        lambda: codec.to_symbols(torch.zeros(2, 192)),
        lambda: codec.from_symbols(torch.zeros(2, 2 * codec.uses_per_token), torch.ones(2)),
    ):
        with pytest.raises(PluginError, match="prepare"):
            use()


def test_other_widths_and_broken_values_are_refused(codecs):
    codec = codecs[8, 0]
    with pytest.raises(PayloadError, match="width 192"):
        codec.to_symbols(torch.zeros(2, 64))
    with pytest.raises(PayloadError, match="expected width 16"):
        codec.from_symbols(torch.zeros(2, 15), torch.ones(2))
    with pytest.raises(PayloadError, match="NaN"):
        codec.to_symbols(torch.full((2, 192), math.nan))
    with pytest.raises(PayloadError, match="NaN"):
        codec.from_symbols(torch.full((2, 16), math.inf), torch.ones(2))


@pytest.mark.parametrize(("count", "width"), [(0, 64), (1, 64), (8, 64), (64, 7)])
def test_too_few_calibration_tokens_or_channels_are_refused(count, width):
    with pytest.raises(ConfigError, match="uses_per_token"):
        JsccCodec(4, steps=1).prepare(torch.zeros(count, width), RNG)


@pytest.mark.parametrize(
    "options",
    [
        {"uses_per_token": 0},
        {"uses_per_token": 2.0},
        {"hidden": 0},
        {"steps": -1},
        {"steps": True},
        {"snr_low_db": math.nan},
        {"snr_high_db": "20"},
        {"snr_low_db": 10, "snr_high_db": 5},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        create("codecs", "jscc", options)
