"""Hostile bytes: every damage is a PayloadError, nothing else escapes, and claims allocate nothing."""

import random
import struct
import tracemalloc
import zlib

import pytest
import torch

from leakgauge.defenses.codecs import entropy
from leakgauge.defenses.codecs.entropy import EntropyCodec
from leakgauge.defenses.codecs.floating import BFloat16Codec, Float16Codec, Float32Codec
from leakgauge.defenses.codecs.pca import PcaCodec
from leakgauge.defenses.codecs.uniform import UniformCodec
from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.payload import parse, serialise
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import PayloadError
from leakgauge.harness.values.tokens import DROPPED

WIDTH, PREFIX = 6, 1
KNOWN = Known(PREFIX, WIDTH, 5)
HEADER = struct.Struct("<3sBHBHHHHB")
MAKERS = {
    "float32": Float32Codec,
    "float16": Float16Codec,
    "bfloat16": BFloat16Codec,
    "uniform3": lambda: UniformCodec(3),
    "uniform4-channel": lambda: UniformCodec(4, "channel"),
    "entropy4": lambda: EntropyCodec(4),
    "entropy8-channel": lambda: EntropyCodec(8, "channel"),
    "pca-float16": lambda: PcaCodec(3),
    "pca-5": lambda: PcaCodec(3, 5),
}


@pytest.fixture(params=MAKERS, scope="module")
def codec(request) -> Codec:
    made = MAKERS[request.param]()
    made.prepare(torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(8)))
    return made


def real_payload(codec: Codec) -> bytes:
    tokens = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(9))
    return serialise(
        tokens, torch.tensor([1, 2, 1, 1]), PREFIX, codec, order=torch.tensor([0, 3, 1, 2]),
        merge_map=torch.tensor([1, 1, 2, 3, DROPPED]),
    ).data  # fmt: skip


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def refused(data: bytes, codec: Codec, known: Known = KNOWN) -> bool:
    """Whether parsing gives a PayloadError; any other exception fails the test; a success must be consistent."""
    try:
        parsed = parse(data, known, codec)
    except PayloadError as error:
        return bool(error.what and error.hint)
    count, width = HEADER.unpack_from(data)[4], HEADER.unpack_from(data)[7]
    assert parsed.tokens.shape == (count, width)
    assert bool(torch.isfinite(parsed.tokens).all())
    return False


def test_the_real_payload_is_read(codec):
    assert not refused(real_payload(codec), codec)


def test_every_truncation_and_every_extension_is_refused(codec):
    data = real_payload(codec)
    assert all(refused(data[:end], codec) for end in range(len(data)))
    assert all(refused(data[start:], codec) for start in range(1, len(data)))
    assert all(refused(data + bytes([value]), codec) for value in range(256))
    # The checksum mended: lengths alone must tell.
    assert all(refused(sealed(data[:end]), codec) for end in range(len(data) - 4))
    assert all(refused(sealed(data[:-4] + tail), codec) for tail in (b"\0", b"\xff", b"\0" * 4, b"\1" * 8))


def test_every_other_value_of_every_byte_is_refused(codec):
    data = real_payload(codec)
    for place in range(len(data)):
        for value in range(256):
            if value != data[place]:
                assert refused(data[:place] + bytes([value]) + data[place + 1 :], codec), (place, value)


def test_a_damaged_header_under_a_mended_checksum_is_refused(codec):
    data = real_payload(codec)
    for place in range(HEADER.size):
        for value in range(256):
            if value != data[place]:
                assert refused(sealed(data[:place] + bytes([value]) + data[place + 1 : -4]), codec), (place, value)


def test_random_bytes_are_refused(codec):
    dice = random.Random(10)
    for _ in range(10_000):
        assert refused(dice.randbytes(dice.randrange(120)), codec)


def forged(dice: random.Random, code: int) -> bytes:
    """Returns bytes with valid magic, version, codec code and checksum, and small random or hostile fields."""

    def number() -> int:
        return dice.choice([dice.randrange(6), dice.randrange(6), dice.randrange(70), dice.randrange(65536), 65535])

    count = number()
    first = dice.choice([0, 0, number()])
    total = dice.choice([count, min(first + count, 65535), number()])
    flags = dice.choice([0, 0, dice.randrange(16), dice.randrange(256)])
    width = dice.choice([WIDTH, WIDTH, number()])
    head = HEADER.pack(b"LKG", 2, code, flags, count, first, total, width, dice.choice([PREFIX, PREFIX, 0, 255]))
    rest = dice.choice([dice.randbytes(dice.randrange(200)), bytes(dice.randrange(200)), small(dice)])
    return sealed(head + rest)


def small(dice: random.Random) -> bytes:
    """Returns bytes that are mostly small numbers, as sizes, orders and merge maps are."""
    return bytes(dice.choice([0, 1, 1, 2, 3, 255]) for _ in range(dice.randrange(120)))


def test_forged_fields_under_a_valid_checksum_are_refused_or_consistent(codec):
    dice = random.Random(11)
    code = HEADER.unpack_from(real_payload(codec))[2]
    shares = [refused(forged(dice, code), codec) for _ in range(10_000)]
    assert sum(shares) > 9_500


def test_random_token_data_of_the_right_length_is_refused_or_consistent(codec):
    dice = random.Random(12)
    code = HEADER.unpack_from(real_payload(codec))[2]
    tokens = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(13))
    length = len(codec.encode(tokens))
    head = HEADER.pack(b"LKG", 2, code, 0, 7, 0, 7, WIDTH, PREFIX)
    for _ in range(3_000):
        body = bytearray(dice.randbytes(length))
        if dice.random() < 0.7:
            # Real bounds, so that what lies behind them is reached.
            side = codec.side_bytes(7, WIDTH)
            body[:side] = codec.encode(tokens)[:side]
        refused(sealed(head + bytes(body)), codec)


def peak_bytes(data: bytes, codec: Codec, known: Known) -> int:
    tracemalloc.start()
    try:
        refused(data, codec, known)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_hostile_headers_allocate_little(codec):
    code = HEADER.unpack_from(real_payload(codec))[2]
    for flags in range(16):
        for count, width in ((65535, 65535), (65535, WIDTH), (1, 65535), (65535, 1), (40, 65535)):
            for length in (0, 50, 4_000, 200_000):
                head = HEADER.pack(b"LKG", 2, code, flags, count, 0, 65535, width, PREFIX)
                data = sealed(head + b"\1" * length)
                # To a receiver of the largest victims, too.
                known = Known(PREFIX, width, 65535)
                assert peak_bytes(data, codec, known) < 2**20 + 64 * len(data), (flags, count, width, length)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_densest_body_that_is_accepted_allocates_in_proportion(bits):
    codec = EntropyCodec(bits)
    code = zlib.crc32(codec.signature.encode()) & 0xFFFF
    for count, width in ((1, 65_535), (2, 40_000), (3_000, 192)):
        bounds = struct.pack("<ee", 0.0, 1.0) * count
        body = bounds + bytes(-(-count * width // 64) * 4)
        data = sealed(HEADER.pack(b"LKG", 2, code, 0, count, 0, count, width, PREFIX) + body)
        # A receiver of just such victims: nothing but the codec stands in the way.
        assert peak_bytes(data, codec, Known(PREFIX, width, count)) < 2**20 + 256 * len(data), (count, width)


def test_values_beyond_the_limit_are_refused_before_any_is_decoded(monkeypatch):
    def decode_nothing(*_):
        raise AssertionError("started to decode")

    codec = EntropyCodec(4)
    monkeypatch.setattr(entropy, "_walk", decode_nothing)
    bounds = struct.pack("<ee", 0.0, 1.0) * 4
    with pytest.raises(PayloadError, match="cannot hold"):
        codec.decode(bounds + bytes(400), 4, 400 * entropy.VALUES_PER_BYTE // 4 + 1)
    with pytest.raises(AssertionError, match="started"):
        codec.decode(bounds + bytes(400), 4, 400 * entropy.VALUES_PER_BYTE // 4)
