import math

import pytest
import torch

from leakgauge.defenses.channels.analog import AwgnChannel, FadingChannel, IdealChannel
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


def batch_of(images: int = 6, scale: float = 5.0) -> TokenBatch:
    tokens = torch.randn(images, 33, 64, generator=torch.Generator().manual_seed(0)) * scale
    return TokenBatch.from_uniform(tokens, prefix=1)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 20.0])
def test_measured_snr_is_the_stated_one(snr_db):
    sent = batch_of(64)
    ids = tuple(map(str, range(64)))
    received = AwgnChannel(snr_db).apply(sent, ids, Streams(0))
    noise = received.tokens.tokens - sent.tokens
    measured = 10 * math.log10(float(sent.tokens.square().mean() / noise.square().mean()))
    # 135 168 noise samples: the standard error of the power is 0.4 %, 0.017 dB; allow four.
    assert measured == pytest.approx(snr_db, abs=0.07)


@pytest.mark.parametrize("width", [1, 2, 3, 64, 65])
@pytest.mark.parametrize(
    "channel", [AwgnChannel(5.0), FadingChannel(5.0, kind="rician", k_db=60.0, equaliser="zero_forcing")]
)
def test_es_n0_is_that_of_the_symbols_that_are_counted(channel, width):
    """At an odd width each token ends in a symbol that holds one value: it is counted, and has half the energy."""
    sent = TokenBatch.from_uniform(torch.randn(20, 4000 // width, width, generator=torch.Generator().manual_seed(1)), 0)
    received = channel.apply(sent, tuple(map(str, range(20))), Streams(1))
    assert received.channel_uses.tolist() == [4000 // width * math.ceil(width / 2)] * 20
    symbol_energy = float(sent.tokens.square().sum() / received.channel_uses.sum())
    # Half of a symbol's noise falls on each of its two values, on one that carries nothing too.
    noise_energy = 2 * float((received.tokens.tokens - sent.tokens).square().mean())
    # About 80 000 values: the standard error of the power is 0.5 %, 0.02 dB; allow three.
    assert 10 * math.log10(symbol_energy / noise_energy) == pytest.approx(5.0, abs=0.065)


def test_power_is_normalised_by_the_image_alone():
    quiet, loud = batch_of(2, 1.0), batch_of(2, 50.0)
    mixed = TokenBatch.concatenate([quiet.select([0]), loud.select([1])])
    channel = AwgnChannel(10)
    alone = channel.apply(quiet.select([0]), ("a",), Streams(0)).tokens.tokens
    beside = channel.apply(mixed, ("a", "b"), Streams(0)).tokens.tokens
    assert torch.equal(alone, beside[: len(alone)])


def test_draws_are_addressed_by_image_and_stream():
    sent, ids = batch_of(2), ("a", "b")
    one = AwgnChannel(0).apply(sent, ids, Streams(0)).tokens.tokens
    assert torch.equal(one, AwgnChannel(0).apply(sent, ids, Streams(0)).tokens.tokens)
    assert not torch.equal(one, AwgnChannel(0).apply(sent, ids, Streams(1)).tokens.tokens)


def test_ideal_channel_changes_nothing_and_counts_symbols():
    sent = batch_of(2)
    received = IdealChannel().apply(sent, ("a", "b"), Streams(0))
    assert torch.equal(received.tokens.tokens, sent.tokens)
    assert received.channel_uses.tolist() == [33 * 32, 33 * 32]
    assert received.state is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "10", True])
def test_snr_must_be_a_number(value):
    with pytest.raises(ConfigError, match="snr_db"):
        create("channels", "awgn", {"snr_db": value})
