"""The PCA codec: exact inside its span, honest about its basis."""

import itertools

import pytest
import torch

from leakgauge.defenses.codecs.pca import PcaCodec
from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.payload import parse, serialise
from leakgauge.harness.errors import ConfigError, PayloadError, PluginError
from leakgauge.harness.suite.registry import create


def plane(count: int, seed: int = 0) -> torch.Tensor:
    """Tokens (count, 12) in a three-dimensional plane."""
    dice = torch.Generator().manual_seed(seed)
    axes = torch.randn(3, 12, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, 3, generator=dice) * torch.tensor([5.0, 2.0, 0.5]) @ axes + 1


KNOWN = Known(0, 12, 1000)


def prepared(rank: int, inner="float16") -> PcaCodec:
    codec = PcaCodec(rank, inner)
    codec.prepare(plane(200))
    return codec


def error(codec: PcaCodec, tokens: torch.Tensor) -> float:
    got = parse(serialise(tokens, None, 0, codec).data, KNOWN, codec).tokens
    return float((got - tokens).square().mean().sqrt() / tokens.square().mean().sqrt())


def test_tokens_in_the_span_come_back_and_a_smaller_rank_loses():
    tokens = plane(30, 1)
    assert error(prepared(3), tokens) < 2e-3
    assert error(prepared(2), tokens) > 1e-2


def test_more_bits_lose_less():
    errors = [error(prepared(3, bits), plane(300, 1)) for bits in (2, 3, 4, 5, 6, 7, 8)]
    # A bit nearly halves the error of an optimal uniform quantiser.
    assert all(b < 0.75 * a for a, b in itertools.pairwise(errors))
    # Max 1960: squared error 0.1188 at 2 bits, as a share of the variance.
    tokens = plane(300, 1)
    centred = (tokens - tokens.mean(0)).square().mean() / tokens.square().mean()
    assert errors[0] ** 2 / float(centred) == pytest.approx(0.1188, rel=0.25)


@pytest.mark.parametrize(("inner", "length"), [("float16", 5 * 3 * 2), (4, 8), (7, 14)])
def test_only_coefficients_are_sent(inner, length):
    payload = serialise(plane(5), None, 0, prepared(3, inner))
    assert payload.account.values == length
    assert payload.account.codec_side == 0


@pytest.mark.parametrize("inner", ["float16", 3])
@pytest.mark.parametrize("count", [0, 1])
def test_none_or_one_token(inner, count):
    codec = prepared(3, inner)
    tokens = plane(1)[:count]
    assert parse(serialise(tokens, None, 0, codec).data, KNOWN, codec).tokens.shape == (count, 12)


def test_tokens_that_never_vary_come_back():
    codec = PcaCodec(2, 4)
    codec.prepare(torch.full((5, 4), 1.5))
    assert torch.equal(codec.decode(codec.encode(torch.full((2, 4), 1.5)), 2, 4), torch.full((2, 4), 1.5))


def test_extreme_tokens_are_clipped_or_refused():
    assert bool(torch.isfinite(prepared(3, 4).decode(prepared(3, 4).encode(torch.full((1, 12), 6e4)), 1, 12)).all())
    with pytest.raises(PayloadError, match="range"):
        prepared(3).encode(torch.full((1, 12), 1e6))


def test_it_refuses_to_work_unprepared():
    for use in (
        lambda c: c.encode(plane(2)),
        lambda c: c.decode(b"", 0, 12),
        lambda c: serialise(plane(2), None, 0, c),
    ):
        with pytest.raises(PluginError, match="prepare"):
            use(PcaCodec(2))


def test_another_basis_is_refused():
    other = PcaCodec(3)
    other.prepare(plane(150, 7))
    with pytest.raises(PayloadError, match="not written by codec"):
        parse(serialise(plane(4), None, 0, prepared(3)).data, KNOWN, other)


def test_another_width_is_refused():
    with pytest.raises(PayloadError, match="width"):
        prepared(3).encode(torch.zeros(2, 11))
    with pytest.raises(PayloadError, match="width"):
        prepared(3).decode(bytes(6), 1, 65535)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_calibration_tokens_are_refused(count):
    with pytest.raises(ConfigError, match="rank"):
        PcaCodec(3).prepare(plane(count))


@pytest.mark.parametrize(("rank", "inner"), [(0, 4), (True, 4), (3, 9), (3, 1), (3, "float8"), (3, 2.0)])
def test_options_out_of_range_are_refused(rank, inner):
    with pytest.raises(ConfigError):
        create("codecs", "pca", {"rank": rank, "inner": inner})
