"""The wire format: what is written comes back, every byte is accounted for, contradictions are refused at both ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.defenses.codecs.entropy import EntropyCodec
from leakgauge.defenses.codecs.floating import BFloat16Codec, Float16Codec, Float32Codec
from leakgauge.defenses.codecs.pca import PcaCodec
from leakgauge.defenses.codecs.uniform import UniformCodec
from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.payload import parse, serialise
from leakgauge.harness.contracts.link import Codec
from leakgauge.harness.errors import PayloadError
from leakgauge.harness.values.tokens import DROPPED

HEADER, CHECKSUM = 16, 4


def tokens_of(seed: int, count: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_everything_that_is_sent_comes_back(data):
    count = data.draw(st.integers(0, 12), "tokens of the image")
    prefix = data.draw(st.integers(0, min(count, 5)), "prefix")
    first = data.draw(st.integers(0, count), "first")
    last = data.draw(st.integers(first, count), "last")
    own = count - prefix
    # The merge map decides the sizes: a patch at least for each token, some dropped.
    extra = data.draw(st.lists(st.integers(prefix - 1, count - 1), max_size=600 if own else 0), "extra patches")
    pointers = torch.tensor([*range(prefix, count), *extra], dtype=torch.long)
    merge_map = torch.where(pointers < prefix, DROPPED, pointers)
    sizes = torch.bincount(merge_map[merge_map != DROPPED], minlength=count)
    sizes[:prefix] = 1
    order = torch.tensor(data.draw(st.permutations(range(count)), "order"), dtype=torch.long)
    send = {name: data.draw(st.booleans(), name) for name in ("sizes", "order", "merge_map")}
    tokens = tokens_of(count, count, 3)
    payload = serialise(
        tokens[first:last],
        sizes[first:last] if send["sizes"] else None,
        prefix,
        Float32Codec(),
        order=order[first:last] if send["order"] else None,
        merge_map=merge_map if send["merge_map"] else None,
        first=first,
        total=count,
    )
    patches = len(merge_map) if send["merge_map"] or send["sizes"] else own
    parsed = parse(payload.data, Known(prefix, 3, patches), Float32Codec())
    assert torch.equal(parsed.tokens, tokens[first:last])
    assert (parsed.first, parsed.total) == (first, count)
    for name, sent in (("sizes", sizes[first:last]), ("order", order[first:last]), ("merge_map", merge_map)):
        got = getattr(parsed, name)
        assert torch.equal(got, sent) if send[name] else got is None


def test_packets_of_one_image_join_to_the_image():
    tokens, sizes = tokens_of(1, 9), torch.tensor([1, 1, 4, 1, 300, 2, 1, 1, 7])
    codec = Float16Codec()
    packets = [
        serialise(tokens[a:b], sizes[a:b], 2, codec, first=a, total=9).data for a, b in ((0, 1), (1, 5), (5, 5), (5, 9))
    ]
    parts = [parse(packet, Known(2, 7, 400), codec) for packet in reversed(packets)]
    parts.sort(key=lambda part: (part.first, len(part.tokens)))
    assert torch.equal(torch.cat([part.tokens for part in parts]), tokens.half().float())
    assert torch.equal(torch.cat([part.sizes for part in parts]), sizes)
    assert {part.total for part in parts} == {9}


def test_every_byte_is_accounted_for():
    tokens, sizes = tokens_of(2), torch.tensor([1, 2, 1, 3, 1])
    merge_map = torch.tensor([1, 1, 2, 3, 3, 3, 4, DROPPED])
    bare = serialise(tokens, None, 1, Float16Codec())
    assert len(bare.data) == HEADER + 5 * 7 * 2 + CHECKSUM
    assert bare.account == (HEADER, 0, 0, 0, 0, 5 * 7 * 2, CHECKSUM)
    full = serialise(tokens, sizes, 1, UniformCodec(4), order=torch.arange(5), merge_map=merge_map)
    assert full.account == (HEADER, 4, 10, 2 + 16, 5 * 4, -(-5 * 7 * 4 // 8), CHECKSUM)
    assert len(full.data) == sum(full.account)
    assert full.side_bytes == HEADER + 4 + 10 + 18 + CHECKSUM
    assert serialise(tokens, sizes, 1, UniformCodec(4, "channel")).account.codec_side == 7 * 4
    assert serialise(tokens, sizes * 256, 1, Float16Codec()).account.sizes == 8


CONTRADICTIONS = {
    "size 0": {"sizes": [1, 0, 1, 1, 1]},
    "size beyond two bytes": {"sizes": [1, 65536, 1, 1, 1]},
    "a size too few": {"sizes": [1, 1, 1, 1]},
    "order twice the same": {"order": [0, 1, 2, 3, 3]},
    "order outside": {"order": [0, 1, 2, 3, 5]},
    "order negative": {"order": [0, 1, 2, 3, -1]},
    "order too short": {"order": [0, 1, 2, 3]},
    "map to a protected token": {"merge_map": [0, 1, 2, 3, 4]},
    "map outside": {"merge_map": [1, 2, 3, 4, 5]},
    "map without a token": {"merge_map": [1, 2, 3, 3]},
    "map against sizes": {"merge_map": [1, 2, 3, 4, 4], "sizes": [1, 1, 1, 2, 1]},
    "first beyond the end": {"first": 1, "total": 5},
    "negative first": {"first": -1},
    "too many protected": {"prefix": 6},
    "no channels": {"tokens": torch.zeros(5, 0)},
    "too wide": {"tokens": torch.zeros(1, 65536)},
}


@pytest.mark.parametrize("wrong", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_not_written(wrong):
    given_ = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in wrong.items()}
    arguments = {"tokens": tokens_of(3), "sizes": None, "prefix": 1, "codec": Float16Codec(), **given_}
    with pytest.raises(PayloadError) as caught:
        serialise(**arguments)
    assert caught.value.hint


ALL = [
    Float32Codec(), Float16Codec(), BFloat16Codec(), UniformCodec(4), UniformCodec(5), UniformCodec(4, "channel"),
    EntropyCodec(4), EntropyCodec(5), EntropyCodec(4, "channel"), PcaCodec(3), PcaCodec(3, 8), PcaCodec(3, 7),
]  # fmt: skip


def test_a_payload_of_another_codec_or_other_options_is_refused():
    for codec in ALL:
        codec.prepare(tokens_of(4, 20))
    assert len({codec.signature for codec in ALL}) == len(ALL)
    for writer in ALL:
        data = serialise(tokens_of(5), None, 1, writer).data
        for reader in ALL:
            if reader is not writer:
                with pytest.raises(PayloadError, match="not written by codec"):
                    parse(data, Known(1, 7, 4), reader)


def test_another_prefix_is_refused():
    data = serialise(tokens_of(5), None, 1, Float32Codec()).data
    with pytest.raises(PayloadError, match="protected"):
        parse(data, Known(2, 7, 4), Float32Codec())


def test_a_codec_plug_in_needs_no_more_than_two_methods():
    class Doubled(Codec):
        name = "doubled"

        def encode(self, tokens):
            return (tokens * 2).numpy().tobytes()

        def decode(self, data, count, width):
            return torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(count, width) / 2

    codec = Doubled()
    codec.prepare(tokens_of(6))
    payload = serialise(tokens_of(6), None, 0, codec)
    assert torch.equal(parse(payload.data, Known(0, 7, 5), codec).tokens, tokens_of(6))
    assert payload.account.codec_side == 0
    # Values that the plug-in lets through are checked all the same.
    bad = serialise(torch.full((1, 1), float("nan")), None, 0, codec).data
    with pytest.raises(PayloadError, match="finite"):
        parse(bad, Known(0, 1, 1), codec)
