"""An observation holds what the threat model grants and nothing else; tokens out of order are still the same tokens."""

from __future__ import annotations

import pytest
import torch

from leakgauge.harness.contracts.link import ChannelState, Encoded, Transmission
from leakgauge.harness.measurement.attacker_view import observe, trace
from leakgauge.harness.suite.schema import Knows, ThreatModel
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

IDS, GRID, OUTPUT = ("a", "b", "c"), (3, 3), torch.eye(3)
FIELDS = ("sizes", "merge_map", "order", "channel_state")


def transmission(sizes_sent=True) -> Transmission:
    """Three images of six tokens, the first protected; each of the other five stands for one or more of 9 patches."""
    tokens = torch.arange(18.0)[:, None].repeat(1, 2)
    merge_map = torch.tensor([[1, 1, 2, 2, 2, 3, 4, 5, 5]]).repeat(3, 1)
    sizes = torch.tensor([1, 2, 3, 1, 1, 2]).repeat(3)
    batch = TokenBatch(tokens, torch.tensor([6, 6, 6]), sizes, merge_map, 1)
    counts = torch.zeros(3, dtype=torch.long)
    encoded = Encoded(IDS, batch, counts, counts, counts[:, None], sizes_sent)
    return Transmission(encoded, batch, counts, ChannelState(torch.tensor([0.1, 0.2, 0.3])))


def seen(victim="white-box", sizes_sent=True, **knows) -> Observation:
    model = ThreatModel(victim=victim, knows=Knows(**knows))
    return observe(transmission(sizes_sent), model, GRID, OUTPUT, Streams(0))


@pytest.mark.parametrize("granted", FIELDS)
def test_each_grant_gives_what_it_says_and_nothing_else(granted):
    found = seen(**{field: field == granted for field in FIELDS})
    given = {
        "sizes": found.sizes is not None,
        "merge_map": found.merge_map is not None,
        "order": found.ordered,
        "channel_state": found.noise_std is not None,
    }
    assert given == {field: field == granted for field in FIELDS}
    whole = transmission().received
    expected = {"sizes": whole.sizes, "channel_state": torch.tensor([0.1, 0.2, 0.3])}
    if granted == "order":
        assert torch.equal(found.tokens, whole.tokens)
        assert found.prefix == 1
    elif granted == "merge_map":
        assert torch.equal(found.as_batch().unmerge(), whole.unmerge())
    else:
        value = found.noise_std if granted == "channel_state" else getattr(found, granted)
        assert sorted(value.flatten().tolist()) == pytest.approx(sorted(expected[granted].flatten().tolist()))


@pytest.mark.parametrize(("victim", "answered"), [("none", False), ("query", True), ("white-box", True)])
def test_the_server_s_answer_needs_a_query(victim, answered):
    found = seen(victim)
    assert (found.output is not None) == answered


def test_sizes_that_were_not_sent_are_not_seen():
    assert seen(sizes=True, sizes_sent=False).sizes is None


def test_without_order_each_image_is_shuffled_on_its_own_and_all_follows():
    found, whole = seen(sizes=True, merge_map=True, order=False), transmission().received
    assert found.prefix == 0
    orders = []
    for image, own in enumerate(found.tokens[:, 0].view(3, 6)):
        assert sorted(own.tolist()) == list(range(6 * image, 6 * image + 6))
        orders.append((own - 6 * image).long())
        assert torch.equal(found.sizes.view(3, 6)[image], whole.sizes.view(3, 6)[image][orders[-1]])
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert any(int(order[0]) != 0 for order in orders), "the protected token has lost its place too"
    batch = TokenBatch(found.tokens, found.lengths, found.sizes, found.merge_map, 0)
    assert torch.equal(batch.unmerge(), whole.unmerge())


def test_a_trace_withholds_the_channel_s_state_alone():
    for granted in (True, False):
        model = ThreatModel(victim="white-box", knows=Knows(sizes=False, order=False, channel_state=granted))
        found = trace(transmission(sizes_sent=False), model, GRID)
        assert found.sizes.tolist() == [1, 2, 3, 1, 1, 2] * 3
        assert (found.noise_std is not None) == granted
        assert found.ordered
