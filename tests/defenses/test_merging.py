"""A merged token is the mean of the patches it stands for, however many steps it took and whatever came before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.defenses.ragged.merging import apply_assignment
from leakgauge.harness.contracts.reduction import Assignment
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.tokens import DROPPED, TokenBatch


def batch_of(images=2, patches=6, prefix=1, seed=0) -> TokenBatch:
    values = torch.randn(
        images, prefix + patches, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return TokenBatch.from_uniform(values, prefix)


def merged(batch: TokenBatch, groups: list[list[int]]) -> TokenBatch:
    """Sends the patch tokens of each image to the groups named (DROPPED drops), which are renumbered from 0."""
    destination, lengths, start = [], [], 0
    for own in groups:
        names = sorted({g for g in own if g != DROPPED})
        destination += [start + i for i in range(batch.prefix)]
        destination += [DROPPED if g == DROPPED else start + batch.prefix + names.index(g) for g in own]
        lengths.append(batch.prefix + len(names))
        start += lengths[-1]
    return apply_assignment(batch, Assignment(torch.tensor(destination), torch.tensor(lengths)))


def test_sizes_weigh_the_mean():
    one = TokenBatch(
        torch.tensor([[9.0], [2.0], [6.0], [7.0]]),
        torch.tensor([4]),
        torch.tensor([1, 3, 1, 2]),
        torch.tensor([[1, 1, 1, 2, 3, 3]]),
        1,
    )
    found = merged(one, [[0, 0, 1]])
    assert found.tokens.flatten().tolist() == [9.0, (3 * 2.0 + 6.0) / 4, 7.0]
    assert found.sizes.tolist() == [1, 4, 2]
    assert found.merge_map.tolist() == [[1, 1, 1, 1, 2, 2]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(-1, 3), min_size=12, max_size=12), min_size=1, max_size=3), st.integers(0, 2))
def test_after_any_steps_a_token_is_the_mean_of_its_patches(steps, prefix):
    batch = first = batch_of(prefix=prefix)
    for step in steps:
        counts = [int(length) - prefix for length in batch.lengths]
        batch = merged(batch, [step[: counts[0]], step[counts[0] : sum(counts)]])
        batch.check()
    for image in range(2):
        start = int(batch.offsets[image])
        own = first.tokens.view(2, prefix + 6, 3)[image]
        assert torch.equal(batch.tokens[start : start + prefix], own[:prefix])
        for token in range(prefix, int(batch.lengths[image])):
            patches = (batch.merge_map[image] == token).nonzero().squeeze(1)
            assert int(batch.sizes[start + token]) == len(patches) > 0
            assert torch.allclose(batch.tokens[start + token], own[prefix + patches].mean(dim=0))


@pytest.mark.parametrize(
    ("destination", "lengths", "said"),
    [
        ([0, 0, 1, 2, 3, 4, 5], [6], "protected"),
        ([1, 0, 2, 3, 4, 5, 6], [7], "protected"),
        ([0, 1, 1, 3, 4, 5, 6], [7], "without sources"),
        ([0, 1, 2, 3, 4, 5, 7], [7], "another image"),
    ],
)
def test_a_broken_assignment_is_refused(destination, lengths, said):
    with pytest.raises(PluginError, match=said):
        apply_assignment(batch_of(images=1), Assignment(torch.tensor(destination), torch.tensor(lengths)))
