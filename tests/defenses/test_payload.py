import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.codecs import Float16Codec, Float32Codec, UniformCodec
from defenses.payload import parse, serialise
from harness.errors import ConfigError, PayloadError

CODECS = [Float32Codec(), Float16Codec(), *(UniformCodec(bits) for bits in range(2, 9))]


def tokens_of(seed: int, count: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{c.name}{getattr(c, '_bits', '')}")
def test_round_trip_is_within_half_a_step_and_idempotent(codec):
    tokens = tokens_of(1)
    sizes = torch.tensor([1, 1, 4, 1, 300])
    first = serialise(tokens, sizes, 1, codec)
    parsed = parse(first.data, 1, codec)
    assert torch.equal(parsed.sizes, sizes)
    if codec.name == "float32":
        assert torch.equal(parsed.tokens, tokens)
    elif codec.name == "float16":
        assert torch.equal(parsed.tokens, tokens.half().float())
    else:
        span = tokens.max(dim=1).values - tokens.min(dim=1).values
        step = span / (2**codec._bits - 1)
        # Half a step, and the rounding of the bounds to half floats.
        assert bool(((parsed.tokens - tokens).abs() <= (0.51 * step + 0.01)[:, None]).all())
    again = serialise(parsed.tokens, sizes, 1, codec)
    assert len(again.data) == len(first.data)


def test_bytes_are_counted_exactly():
    tokens, sizes = tokens_of(2), torch.ones(5, dtype=torch.long)
    with_sizes = serialise(tokens, sizes, 1, Float16Codec())
    without = serialise(tokens, None, 1, Float16Codec())
    assert len(without.data) == 9 + 5 * 7 * 2 + 4
    assert len(with_sizes.data) - len(without.data) == 4
    assert len(with_sizes.data) == with_sizes.side_bytes + 5 * 7 * 2
    four_bits = serialise(tokens, None, 1, UniformCodec(4))
    assert len(four_bits.data) == 9 + 5 * 4 + -(-5 * 7 * 4 // 8) + 4


@pytest.mark.parametrize("codec", [Float16Codec(), UniformCodec(4)], ids=["float16", "uniform4"])
def test_every_truncation_and_every_damaged_byte_is_a_clear_error(codec):
    data = serialise(tokens_of(3), torch.tensor([1, 2, 1, 1, 1]), 1, codec).data
    for end in range(len(data)):
        with pytest.raises(PayloadError):
            parse(data[:end], 1, codec)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x41
        with pytest.raises(PayloadError):
            parse(bytes(damaged), 1, codec)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_never_crash(data):
    with pytest.raises(PayloadError):
        parse(data, 1, Float16Codec())


@pytest.mark.parametrize("codec", [Float32Codec(), Float16Codec(), UniformCodec(8)], ids=lambda c: c.name)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_are_not_finite_are_refused(codec, value):
    tokens = tokens_of(4)
    tokens[2, 3] = value
    with pytest.raises(PayloadError, match="NaN"):
        serialise(tokens, None, 1, codec)


def test_values_out_of_half_range_are_refused():
    with pytest.raises(PayloadError, match="float16"):
        serialise(torch.full((1, 2), 1e6), None, 0, Float16Codec())


@pytest.mark.parametrize("bits", [1, 9, 4.0, True])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ConfigError, match="bits"):
        UniformCodec(bits)


def test_a_constant_token_survives_quantisation():
    tokens = torch.full((2, 6), 1.5)
    assert torch.equal(parse(serialise(tokens, None, 0, UniformCodec(3)).data, 0, UniformCodec(3)).tokens, tokens)
