"""Codecs by themselves: round trips on any values, exact lengths, roundings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from leakgauge.defenses.codecs.entropy import EntropyCodec
from leakgauge.defenses.codecs.floating import BFloat16Codec, Float16Codec, Float32Codec
from leakgauge.defenses.codecs.uniform import UniformCodec
from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.payload import parse, serialise
from leakgauge.harness.errors import ConfigError, PayloadError
from leakgauge.harness.suite.registry import create

HALF, SINGLE = float(np.finfo(np.float16).max), float(np.finfo(np.float32).max)
BITS = st.integers(2, 8)
PER = st.sampled_from(["token", "channel"])


def tokens_within(limit: float) -> st.SearchStrategy[torch.Tensor]:
    """Tokens (0 to 6, 1 to 9): any values up to the limit, extremes, subnormals and constants among them."""
    value = st.floats(-limit, limit, width=32)
    shape = st.tuples(st.integers(0, 6), st.integers(1, 9))
    free = shape.flatmap(lambda s: hnp.arrays(np.float32, s, elements=value))
    constant = st.builds(lambda s, v: np.full(s, v, np.float32), shape, value)
    return st.one_of(free, constant).map(torch.from_numpy)


def through(tokens: torch.Tensor, codec) -> torch.Tensor:
    payload = serialise(tokens, None, 0, codec)
    assert len(payload.data) == sum(payload.account)
    return parse(payload.data, Known(0, tokens.shape[1], 10_000), codec).tokens


@given(tokens_within(SINGLE))
@settings(max_examples=150, deadline=None)
def test_float32_is_lossless(tokens):
    assert torch.equal(through(tokens, Float32Codec()), tokens)


@given(tokens_within(HALF))
@settings(max_examples=150, deadline=None)
def test_float16_rounds_as_torch_does(tokens):
    assert torch.equal(through(tokens, Float16Codec()), tokens.half().float())


@given(tokens_within(float(torch.finfo(torch.bfloat16).max)))
@settings(max_examples=150, deadline=None)
def test_bfloat16_rounds_as_torch_does(tokens):
    assert torch.equal(through(tokens, BFloat16Codec()), tokens.bfloat16().float())


def test_bfloat16_rounds_every_kind_of_tie_as_torch_does():
    # All upper halves of finite numbers, each with lower halves below, at and above the tie.
    upper = torch.arange(0, 0x7F7F, dtype=torch.int32)
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        for sign in (0, -(2**31)):
            tokens = ((upper << 16 | lower) | sign).view(torch.float32)[None]
            assert torch.equal(through(tokens, BFloat16Codec()), tokens.bfloat16().float())
    assert len(BFloat16Codec().encode(torch.zeros(3, 5))) == 30


@given(tokens_within(HALF), BITS, PER)
@settings(max_examples=300, deadline=None)
def test_uniform_is_within_half_a_step_and_its_ranges(tokens, bits, per):
    got = through(tokens, UniformCodec(bits, per))
    if not tokens.numel():
        assert got.shape == tokens.shape
        return
    axis = 1 if per == "token" else 0
    low, high = (f(tokens, axis, keepdim=True).half().float() for f in (torch.amin, torch.amax))
    assert bool(((got >= low) & (got <= high)).all())
    nearest = tokens.clamp(low, high).double()
    step = (high - low).double() / (2**bits - 1)
    assert bool(((got - nearest).abs() <= 0.5001 * step + 1e-6 * nearest.abs() + 1e-30).all())


@given(tokens_within(HALF), BITS, PER)
@settings(max_examples=300, deadline=None)
def test_entropy_decodes_to_the_very_values_of_uniform(tokens, bits, per):
    assert torch.equal(through(tokens, EntropyCodec(bits, per)), through(tokens, UniformCodec(bits, per)))


@pytest.mark.parametrize("per", ["token", "channel"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_uniform_costs_its_bounds_and_bits(bits, per):
    tokens = torch.randn(5, 7)
    codec = UniformCodec(bits, per)
    bounds = 4 * (5 if per == "token" else 7)
    assert codec.side_bytes(5, 7) == bounds
    assert len(codec.encode(tokens)) == bounds + -(-35 * bits // 8)


@pytest.mark.parametrize(
    "codec", [UniformCodec(4), UniformCodec(4, "channel"), EntropyCodec(4)], ids=lambda c: c.signature
)
def test_bounds_that_are_not_ranges_are_refused(codec):
    data = codec.encode(torch.randn(3, 4))
    for bounds in ([1.0, 0.5], [float("nan"), 1.0], [0.0, float("inf")]):
        damaged = np.array(bounds, "<f2").tobytes() + data[4:]
        with pytest.raises(PayloadError, match="range"):
            codec.decode(damaged, 3, 4)


def test_a_set_bit_after_the_last_value_is_refused():
    codec = UniformCodec(3)
    data = codec.encode(torch.randn(1, 5))
    assert data[-1] & 1 == 0
    with pytest.raises(PayloadError, match="bits after"):
        codec.decode(data[:-1] + bytes([data[-1] | 1]), 1, 5)


EVERY = [Float32Codec(), Float16Codec(), BFloat16Codec(), UniformCodec(8), EntropyCodec(4)]


@pytest.mark.parametrize("codec", EVERY, ids=lambda c: c.name)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_are_not_finite_are_refused(codec, value):
    tokens = torch.randn(5, 7)
    tokens[2, 3] = value
    with pytest.raises(PayloadError, match="NaN"):
        codec.encode(tokens)


@pytest.mark.parametrize("codec", [Float32Codec(), Float16Codec(), BFloat16Codec()], ids=lambda c: c.name)
def test_received_values_that_are_not_finite_are_refused(codec):
    size = len(codec.encode(torch.zeros(1, 1)))
    with pytest.raises(PayloadError, match="finite"):
        codec.decode(b"\xff" * size, 1, 1)


@pytest.mark.parametrize("codec", EVERY[1:], ids=lambda c: c.name)
def test_values_out_of_range_are_refused(codec):
    with pytest.raises(PayloadError, match="float32"):
        codec.encode(torch.full((1, 2), SINGLE if codec.name == "bfloat16" else 1e6))


@pytest.mark.parametrize("kind", ["uniform", "entropy"])
@pytest.mark.parametrize("bits", [1, 9, 4.0, True, "4"])
def test_bits_out_of_range_are_refused(kind, bits):
    with pytest.raises(ConfigError, match="bits"):
        create("codecs", kind, {"bits": bits})
    with pytest.raises(ConfigError, match="per"):
        create("codecs", kind, {"per": "image"})
