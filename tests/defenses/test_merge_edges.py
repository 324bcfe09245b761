"""What decides a merge, at its edges: a threshold just met, similarities beyond one, unit keys, sizes in attention."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from leakgauge.defenses.backbones.backbone import Projected
from leakgauge.defenses.codecs.floating import Float16Codec
from leakgauge.defenses.codecs.uniform import UniformCodec
from leakgauge.defenses.ragged.attention import attention_half, unit_keys
from leakgauge.defenses.reductions.bipartite import Pairs
from leakgauge.defenses.reductions.threshold import ThresholdMerge
from leakgauge.defenses.wire.packet_layout import Known, Layout
from leakgauge.defenses.wire.payload import parse, serialise
from leakgauge.defenses.wire.serialisation import encoded_tokens
from leakgauge.defenses.wire.transport import pack
from leakgauge.harness.errors import PayloadError
from leakgauge.harness.values.tokens import TokenBatch


def selected(tau, similarity):
    values = torch.tensor(similarity)
    rows = torch.arange(len(values))
    return ThresholdMerge(tau).select(Pairs(rows, rows, values, rows * 0), SimpleNamespace(layer=0)).tolist()


def test_a_pair_merges_strictly_above_its_threshold():
    above = float(torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)))
    assert selected(0.5, [0.5, above, 0.25]) == [False, True, False]


def test_a_threshold_of_one_never_merges_whatever_rounding_makes_of_one():
    assert selected(1.0, [1.0, 1.0000002, 0.9]) == [False, False, False]


def test_keys_are_the_mean_over_heads_at_unit_length():
    keys = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(0))
    found, mean = unit_keys(keys), keys.mean(dim=1)
    assert found.norm(dim=1).tolist() == pytest.approx([1.0] * 9)
    assert torch.allclose(found, mean / mean.norm(dim=1, keepdim=True))


class Plain:
    """As much of a backbone as attention needs: one head, and tokens that are query, key and value themselves."""

    prefix, class_token = 0, False

    def project(self, layer, tokens):
        return Projected(*(tokens[:, None] for _ in range(3)))

    def scale(self, layer):
        return 0.7

    def output(self, layer, attended, gate=None):
        return attended[:, 0]


def test_one_token_of_size_three_receives_what_three_copies_do():
    values = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([1, 3, 1, 2])
    once = TokenBatch(values, torch.tensor([4]), sizes, torch.tensor([[0, 1, 1, 1, 2, 3, 3]]), 0)
    copies = TokenBatch.from_uniform(values.repeat_interleave(sizes, dim=0)[None], 0)
    first = torch.tensor([0, 1, 4, 5])

    def attended(batch, proportional):
        return attention_half(Plain(), 0, batch, proportional=proportional).tokens

    expected = attended(copies, True)[first]
    assert torch.allclose(attended(once, True), expected, atol=1e-6)
    assert not torch.allclose(attended(once, False), expected, atol=1e-2)


@pytest.mark.parametrize("codec", [UniformCodec(4), Float16Codec()], ids=["uniform", "float16"])
@pytest.mark.parametrize("packet_tokens", [None, 3])
def test_a_receiver_has_what_was_decoded_and_every_byte_counts(codec, packet_tokens):
    batch = TokenBatch.from_uniform(torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(2)), 1)
    own = [pack(batch.tokens[i : i + 9], batch.sizes[i : i + 9], 1, codec, packet_tokens) for i in (0, 9)]
    found = encoded_tokens(batch, own, codec, ("a", "b"), torch.full((2, 1), 9), True)
    assert found.payload_bytes.tolist() == [sum(len(packet) for packet in packets) for packets in found.packets]
    alone = [serialise(batch.tokens[i : i + 9], batch.sizes[i : i + 9], 1, codec) for i in (0, 9)]
    if packet_tokens is None:
        assert found.payload_bytes.tolist() == [len(packet.data) for packet in alone]
        assert found.side_bytes.tolist() == [packet.side_bytes for packet in alone]
    decoded = torch.cat([parse(packet.data, Known(1, 6, 8), codec).tokens for packet in alone])
    assert torch.equal(found.decoded.tokens, decoded)
    assert not torch.equal(found.decoded.tokens, batch.tokens)


@pytest.mark.parametrize(("total", "taken"), [(9, True), (10, False), (65535, False)])
def test_a_packet_claims_no_more_tokens_than_there_are_patches(total, taken):
    layout, known = Layout(tokens=1, first=0, total=total, width=6, prefix=1), Known(1, 6, 8)
    if taken:
        layout.check_against(known)
    else:
        with pytest.raises(PayloadError, match="for 8 patches"):
            layout.check_against(known)
