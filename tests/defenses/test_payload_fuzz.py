"""Fuzzed packets and codecs: whatever the bytes, PayloadError or a consistent image within what the receiver knows."""

import itertools
import struct
import zlib
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.defenses.codecs.entropy import LEAST_WIDTH, VALUES_PER_BYTE, EntropyCodec
from leakgauge.defenses.codecs.floating import BFloat16Codec, Float16Codec, Float32Codec
from leakgauge.defenses.codecs.pca import PcaCodec
from leakgauge.defenses.codecs.uniform import UniformCodec
from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.payload import parse, serialise
from leakgauge.defenses.wire.transport import NoValues, Placeholder, pack, unpack
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import PayloadError
from leakgauge.harness.suite.registry import plugins
from leakgauge.harness.values.tokens import DROPPED

WIDTH, PREFIX, PATCHES = 6, 1, 12
KNOWN = Known(PREFIX, WIDTH, PATCHES)
STAND = Placeholder(torch.zeros(PREFIX, WIDTH), torch.ones(WIDTH))
HEADER = struct.Struct("<3sBHBHHHHB")


class Hostile(Codec):
    """A third party's codec that trusts its bytes: whatever goes wrong in numpy or torch comes out of it."""

    name = "hostile"

    def encode(self, tokens):
        return struct.pack("<HH", *tokens.shape) + tokens.numpy().tobytes()

    def decode(self, data, count, width):
        rows, columns = struct.unpack("<HH", data[:4])
        return torch.frombuffer(bytearray(data[4:]), dtype=torch.float32).reshape(rows, columns)


CODECS = {
    "float32": Float32Codec(), "float16": Float16Codec(), "bfloat16": BFloat16Codec(),
    "uniform": UniformCodec(4), "uniform-channel": UniformCodec(3, "channel"), "uniform-8": UniformCodec(8),
    "entropy": EntropyCodec(4), "entropy-channel": EntropyCodec(8, "channel"), "entropy-2": EntropyCodec(2),
    "pca": PcaCodec(3), "pca-5": PcaCodec(3, 5), "no_values": NoValues(), "hostile": Hostile(),
}  # fmt: skip
for _codec in CODECS.values():
    _codec.prepare(torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(8)))
codecs = st.sampled_from(list(CODECS.values()))


def test_all_built_in_codecs_of_bytes_are_here():
    assert set(plugins("codecs")) - {"jscc"} <= {codec.name for codec in CODECS.values()}


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def image_of(seed: int, count: int, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def sizes_of(count: int) -> torch.Tensor:
    sizes = torch.ones(count, dtype=torch.long)
    sizes[-1] += PATCHES - (count - PREFIX)
    return sizes


def packets_of(codec: Codec, seed: int, count: int, step: int | None, sized: bool, width: int = WIDTH) -> list[bytes]:
    sizes = sizes_of(count) if sized else None
    return [one.data for one in pack(image_of(seed, count, width), sizes, PREFIX, codec, step)]


def whole(codec: Codec) -> bytes:
    """A packet with every section."""
    merge_map = torch.tensor([1, 1, 2, 3, 4, 4, 4, DROPPED, 5, 5, 5, 1])
    sizes = torch.tensor([1, 3, 1, 1, 3, 3])
    order = torch.tensor([0, 5, 4, 1, 2, 3])
    return serialise(image_of(3, 6), sizes, PREFIX, codec, order=order, merge_map=merge_map).data


@st.composite
def mutated(draw, data: bytes) -> bytes:
    """Bytes of a valid packet after cuts, flips, inserted and copied pieces; often under a checksum that is right."""
    body = bytearray(data[:-4])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(body) - 1)))
        match draw(st.sampled_from(["flip", "set", "cut", "insert", "copy", "field"])):
            case "flip" if body:
                body[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if body:
                body[place] = draw(st.sampled_from([0, 1, 127, 128, 255]))
            case "cut":
                del body[place : place + draw(st.integers(1, 40))]
            case "insert":
                body[place:place] = draw(st.binary(max_size=20))
            case "copy":
                body[place:place] = body[draw(st.integers(0, place)) : place]
            case "field" if len(body) >= HEADER.size:
                # A count of the header: tokens, first, total or width.
                number = draw(st.one_of(st.integers(0, 20), st.sampled_from([255, 256, 32767, 65535])))
                struct.pack_into("<H", body, 7 + 2 * draw(st.integers(0, 3)), number)
    return sealed(bytes(body)) if draw(st.integers(0, 9)) else bytes(body) + data[-4:]


def consistent(data: bytes, codec: Codec) -> None:
    """Parses: PayloadError of one line, or tokens within what is known."""
    parsed, message = None, "?"
    try:
        parsed = parse(data, KNOWN, codec)
    except PayloadError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    assert len(message) < 400
    if parsed is None:
        return
    assert parsed.tokens.shape[1] == WIDTH
    assert parsed.first + len(parsed.tokens) <= parsed.total <= PREFIX + PATCHES
    assert bool(torch.isfinite(parsed.tokens).all())
    if parsed.sizes is not None:
        own = parsed.sizes[max(PREFIX - parsed.first, 0) :]
        assert bool((own >= 1).all())
        assert int(own.sum()) <= PATCHES
    if parsed.merge_map is not None:
        assert len(parsed.merge_map) == PATCHES


@given(st.data(), codecs)
@settings(max_examples=250, deadline=None)
def test_mutated_packets_are_refused_or_consistent(data, codec):
    consistent(data.draw(mutated(whole(codec))), codec)


@given(codecs, st.binary(max_size=300), st.integers(0, 15), st.integers(0, 14), st.integers(0, 14), st.integers(0, 14))
@settings(max_examples=400, deadline=None)
def test_random_sections_under_a_plausible_header_are_refused_or_consistent(codec, rest, flags, tokens, first, total):
    code = zlib.crc32(codec.signature.encode()) & 0xFFFF
    head = HEADER.pack(b"LKG", 2, code, flags, tokens, first, total, WIDTH, PREFIX)
    consistent(sealed(head + rest), codec)


@cache
def pool_of(codec: Codec) -> list[bytes | None]:
    """A lost packet, packets of two images of two lengths in two divisions, and packets of other widths."""
    pool: list[bytes | None] = [None]
    for seed, count, step, sized in itertools.product((1, 2), (5, 8), (2, 3), (False, True)):
        pool += packets_of(codec, seed, count, step, sized)
    if not isinstance(codec, PcaCodec):
        pool += packets_of(codec, 1, 8, 3, False, width=1) + packets_of(codec, 1, 8, 3, False, width=WIDTH + 1)
    return pool


@given(st.data(), codecs)
@settings(max_examples=200, deadline=None)
def test_any_mixture_of_packets_is_refused_or_a_consistent_image(data, codec):
    """Repeated, overlapping, reordered, lost and damaged packets, of this image, of others and of other widths."""
    pool = pool_of(codec)
    chosen = data.draw(st.lists(st.sampled_from(pool), max_size=6))
    if chosen and chosen[0] is not None and data.draw(st.booleans()):
        chosen[0] = data.draw(mutated(chosen[0]))
    on_loss = data.draw(st.sampled_from(["drop", "mean"]))
    try:
        arrived = unpack(chosen, KNOWN, codec, STAND, on_loss)
    except PayloadError:
        return
    assert PREFIX <= len(arrived.tokens) <= PREFIX + PATCHES
    assert len(arrived.tokens) == len(arrived.sizes) == len(arrived.source)
    assert arrived.tokens.shape[1] == WIDTH
    came = arrived.source[arrived.source >= 0]
    assert len(came.unique()) == len(came), "no token came twice"
    assert bool((arrived.sizes >= 1).all())
    assert int(arrived.sizes[PREFIX:].sum()) <= PATCHES


@given(st.data(), codecs.filter(lambda codec: codec.name != "no_values"))
@settings(max_examples=30, deadline=None)
def test_packets_of_one_image_may_come_in_any_order_but_not_twice(data, codec):
    packets = packets_of(codec, 1, 9, data.draw(st.sampled_from([1, 2, 3, 5])), data.draw(st.booleans()))
    first = unpack(packets, KNOWN, codec, STAND, "mean")
    again = unpack(data.draw(st.permutations(packets)), KNOWN, codec, STAND, "mean")
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(PayloadError, match="came twice"):
        unpack([*packets, data.draw(st.sampled_from(packets))], KNOWN, codec, STAND, "mean")


def test_packets_that_overlap_are_refused():
    tokens, codec = image_of(1, 9), Float32Codec()
    one, other = (serialise(tokens[a:b], None, PREFIX, codec, first=a, total=9).data for a, b in ((0, 5), (4, 9)))
    with pytest.raises(PayloadError, match="tokens 4 to 8 came twice"):
        unpack([one, other], KNOWN, codec, STAND, "drop")
    empty = serialise(tokens[:0], None, PREFIX, codec, first=5, total=9).data
    with pytest.raises(PayloadError, match="no token"):
        unpack([one, empty], KNOWN, codec, STAND, "drop")


def test_packets_that_carry_different_sections_or_too_many_patches_are_refused():
    codec, tokens = Float32Codec(), image_of(1, 5)

    def part(first, end, sizes):
        return serialise(tokens[first:end], sizes, PREFIX, codec, first=first, total=5).data

    with pytest.raises(PayloadError, match="what they carry"):
        unpack([part(0, 3, torch.ones(3)), part(3, 5, None)], KNOWN, codec, STAND, "drop")
    # Ten and ten patches, each within the twelve of the grid, not together.
    both = [part(0, 3, torch.tensor([1, 5, 4])), part(3, 5, torch.tensor([5, 5]))]
    with pytest.raises(PayloadError, match="more than 12 patches"):
        unpack(both, KNOWN, codec, STAND, "drop")


@pytest.mark.parametrize("width", [1, WIDTH - 1, WIDTH + 1, 65535])
def test_another_width_is_refused_not_broadcast(width):
    packets = packets_of(Float32Codec(), 1, 3, None, False, width)
    with pytest.raises(PayloadError, match=f"{width} channels, not {WIDTH}"):
        unpack(packets, KNOWN, Float32Codec(), STAND, "mean")
    own = packets_of(Float32Codec(), 1, 3, None, False)
    with pytest.raises(PayloadError, match="stands in"):
        unpack(own, KNOWN, Float32Codec(), Placeholder(torch.zeros(PREFIX, width), torch.zeros(width)), "mean")


def test_a_few_bytes_ask_for_no_more_than_an_image():
    code = zlib.crc32(NoValues().signature.encode()) & 0xFFFF
    for tokens, total, width in ((65535, 65535, 65535), (1, 65535, WIDTH), (14, 14, WIDTH), (1, 1, 65535)):
        data = sealed(HEADER.pack(b"LKG", 2, code, 0, tokens, 0, total, width, PREFIX))
        assert len(data) == 20
        with pytest.raises(PayloadError):
            unpack([data], KNOWN, NoValues(), STAND, "mean")
    assert NoValues().decode(b"", 65535, 65535).untyped_storage().nbytes() == 4


@given(codecs.filter(lambda codec: codec.name != "hostile"), st.binary(max_size=400), st.data())
@settings(max_examples=200, deadline=None)
def test_codecs_refuse_bytes_that_are_not_theirs(codec, noise, data):
    count = data.draw(st.one_of(st.integers(0, 9), st.sampled_from([255, 4096, 65535])))
    width = data.draw(st.one_of(st.integers(0, 9), st.sampled_from([WIDTH, 255, 65535])))
    if data.draw(st.booleans()):
        # As long as it should be, real bounds in front, so that what lies behind them is reached.
        count, width = data.draw(st.integers(1, 5)), WIDTH
        real = codec.encode(image_of(1, count))
        side = codec.side_bytes(count, width)
        noise = real[:side] + (noise * 20)[: len(real) - side]
    try:
        tokens = codec.decode(noise, count, width)
    except PayloadError:
        return
    assert tokens.shape == (count, width)
    assert tokens.untyped_storage().nbytes() <= 64 * VALUES_PER_BYTE * max(1, len(noise))


def test_the_tokens_that_an_entropy_coded_packet_may_claim_are_bounded_by_its_length():
    codec = EntropyCodec(8, "channel")
    most = 400 * VALUES_PER_BYTE // LEAST_WIDTH
    bounds = struct.pack("<ee", 0.0, 1.0)
    assert codec.decode(bounds + bytes(400), most, 1).shape == (most, 1)
    with pytest.raises(PayloadError, match="cannot hold"):
        codec.decode(bounds + bytes(400), most + 1, 1)


def _raise(error: Exception):
    raise error


FAULTS = {
    "value error": lambda: _raise(ValueError("line\nline")),
    "memory error": lambda: _raise(MemoryError()),
    "key error": lambda: _raise(KeyError("x" * 10_000)),
    "matrix product": lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
    "none": lambda: None,
    "text": lambda: "x" * 10_000,
    "too narrow": lambda: torch.zeros(2, 1),
    "three dimensions": lambda: torch.zeros(2, WIDTH, 1),
    "too many": lambda: torch.zeros(3, WIDTH),
    "double": lambda: torch.zeros(2, WIDTH, dtype=torch.float64),
    "not finite": lambda: torch.full((2, WIDTH), float("nan")),
}


@pytest.mark.parametrize("made", FAULTS.values(), ids=FAULTS)
def test_a_third_partys_codec_that_fails_or_breaks_its_word_is_a_payload_error(made):
    class Broken(Codec):
        name = "broken"

        def encode(self, tokens):
            return b"12"

        def decode(self, data, count, width):
            return made()

    packet = serialise(image_of(1, 2), None, PREFIX, Broken()).data
    with pytest.raises(PayloadError) as caught:
        parse(packet, KNOWN, Broken())
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert "broken" in str(caught.value) or "finite" in str(caught.value)
