"""Properties of reductions and merging, on random and on real tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from defenses.attention import attention_half
from defenses.backbones.timm_vit import TimmViT
from defenses.merging import apply_assignment
from defenses.reductions.none import NoReduction
from defenses.reductions.random_merge import RandomMerge
from defenses.reductions.threshold import ThresholdMerge
from harness.errors import ConfigError, PluginError
from harness.reduction import Assignment, LayerState
from harness.seeding import Streams
from harness.tokens import DROPPED, TokenBatch

RNG = Streams(0)


def state_of(batch: TokenBatch, keys: torch.Tensor, layer: int = 0, targets: torch.Tensor | None = None) -> LayerState:
    ids = tuple(f"image{i}" for i in range(len(batch)))
    return LayerState(keys, batch.sizes, None, batch.lengths, batch.prefix, layer, ids, targets)


def reduced(batch: TokenBatch, keys: torch.Tensor, tau: float) -> TokenBatch:
    assignment = ThresholdMerge(tau).assign(state_of(batch, keys), RNG)
    return batch if assignment is None else apply_assignment(batch, assignment)


def random_tokens(seed: int, images: int, patches: int) -> tuple[TokenBatch, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(images, patches + 1, 8, generator=generator)
    batch = TokenBatch.from_uniform(tokens, prefix=1)
    # Few directions, so that many keys are similar.
    palette = torch.randn(3, 4, generator=generator)
    pick = torch.randint(3, (len(batch.tokens),), generator=generator)
    noise = 0.3 * torch.randn(len(batch.tokens), 4, generator=generator)
    return batch, normalize(palette[pick] + noise, dim=-1)


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 12), st.floats(-1, 1))
@settings(max_examples=80, deadline=None)
def test_threshold_keeps_the_invariants(seed, images, patches, tau):
    batch, keys = random_tokens(seed, images, patches)
    after = reduced(batch, keys, tau)
    after.check()
    own = after.sizes.clone()
    own[after.offsets[:-1]] = 0
    counts = torch.zeros(images, dtype=torch.long).index_add_(0, after.image_index, own)
    assert bool((counts == patches).all()), "sizes add up to the patch count"
    assert torch.equal(after.tokens[after.offsets[:-1]], batch.tokens[batch.offsets[:-1]]), "protected tokens untouched"
    assert bool((after.lengths >= 1 + patches // 2).all()), "at most the A half merges"
    # Size-weighted means keep the weighted sum of all tokens.
    before_sum = torch.zeros(images, 8).index_add_(0, batch.image_index, batch.tokens * batch.sizes[:, None])
    after_sum = torch.zeros(images, 8).index_add_(0, after.image_index, after.tokens * after.sizes[:, None])
    assert torch.allclose(before_sum, after_sum, atol=1e-4)


@given(st.integers(0, 10_000), st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=50, deadline=None)
def test_lower_threshold_never_keeps_more(seed, one, other):
    batch, keys = random_tokens(seed, 3, 11)
    low, high = sorted((one, other))
    assert bool((reduced(batch, keys, low).lengths <= reduced(batch, keys, high).lengths).all())


def test_one_means_never_even_for_identical_keys():
    batch, _ = random_tokens(0, 2, 8)
    keys = normalize(torch.ones(len(batch.tokens), 4), dim=-1)
    assert ThresholdMerge(1.0).assign(state_of(batch, keys), RNG) is None
    assert int(reduced(batch, keys, 0.999).lengths[0]) == 1 + 4


def test_a_hand_worked_merge():
    # Patches 0..3 are A B A B; patch 0 is like patch 3, patch 2 like nothing.
    tokens = torch.tensor([[[9.0], [1.0], [2.0], [3.0], [5.0]]])
    batch = TokenBatch.from_uniform(tokens, prefix=1)
    keys = normalize(torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0.2, 1], [1, 0.1, 0]]), dim=-1)
    after = reduced(batch, keys, 0.9)
    assert after.tokens.flatten().tolist() == [9.0, 2.0, 3.0, 3.0]
    assert after.merge_map.tolist() == [[3, 1, 2, 3]]
    assert after.sizes.tolist() == [1, 1, 1, 2]


@given(st.integers(0, 1000), st.floats(-1, 0.95))
@settings(max_examples=40, deadline=None)
def test_random_merge_matches_counts_and_ignores_batch_mates(seed, tau):
    batch, keys = random_tokens(seed, 3, 10)
    reference = reduced(batch, keys, tau)
    control = RandomMerge({"name": "threshold", "thresholds": tau})
    state = state_of(batch, keys, targets=reference.lengths)
    after = apply_assignment(batch, control.assign(state, RNG))
    after.check()
    assert torch.equal(after.lengths, reference.lengths)
    alone = batch.select([1])
    rows = slice(int(batch.offsets[1]), int(batch.offsets[2]))
    state = LayerState(keys[rows], alone.sizes, None, alone.lengths, 1, 0, ("image1",), reference.lengths[1:2])
    assert torch.equal(apply_assignment(alone, control.assign(state, RNG)).merge_map, after.merge_map[1:2])


@pytest.mark.parametrize("value", [1.5, -1.01, float("nan"), True, "0.9", [0.9, 2.0]])
def test_thresholds_out_of_range_are_refused(value):
    with pytest.raises(ConfigError, match="thresholds"):
        ThresholdMerge(value)


def test_wrong_number_of_thresholds_is_refused():
    with pytest.raises(ConfigError, match="2 thresholds for 3 edge blocks"):
        ThresholdMerge([0.9, 0.8]).check(3)


def test_no_reduction_moves_nothing():
    batch, keys = random_tokens(0, 1, 4)
    assert NoReduction().assign(state_of(batch, keys), RNG) is None


@pytest.mark.parametrize("fault", ["image", "prefix", "gap", "shape"])
def test_a_reduction_that_breaks_its_contract_is_caught(fault):
    batch, _ = random_tokens(0, 2, 4)
    destination, lengths = torch.arange(10), batch.lengths.clone()
    if fault == "image":
        destination[1] = 7
    elif fault == "prefix":
        destination[[0, 1]] = destination[[1, 0]]
    elif fault == "gap":
        destination[1] = DROPPED
    else:
        destination = destination[:-1]
    with pytest.raises(PluginError):
        apply_assignment(batch, Assignment(destination, lengths))


def test_merging_is_differentiable():
    batch, keys = random_tokens(3, 2, 8)
    tokens = batch.tokens.double().requires_grad_()
    assignment = ThresholdMerge(0.5).assign(state_of(batch, keys), RNG)
    assert torch.autograd.gradcheck(lambda x: apply_assignment(batch.with_tokens(x), assignment).tokens, (tokens,))


def test_real_tokens_keep_the_invariants(victim, photographs):
    backbone = TimmViT(victim.model)
    with torch.no_grad():
        batch = backbone.embed(victim.normalise(photographs.images()))
        for layer in range(backbone.depth):
            attended = attention_half(backbone, layer, batch, proportional=True, keys=True)
            batch = reduced(batch.with_tokens(attended.tokens), attended.keys, 0.85)
            batch.check()
            batch = batch.with_tokens(backbone.mlp(layer, batch.tokens))
    assert int(batch.lengths.min()) < 65
