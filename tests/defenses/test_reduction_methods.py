"""What each reduction that merges by similarity does, against examples worked by hand and against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_states import RNG, Case, X, Y, Z, case_of, dot, first_best, one_image, random_case, real_case, values_of
from torch.nn.functional import elu, normalize

from leakgauge.defenses.backbones.timm_vit import TimmViT
from leakgauge.defenses.ragged.attention import attention_half, mlp_half
from leakgauge.defenses.reductions.pitome import PiToMe, energies
from leakgauge.defenses.reductions.proportion import ProportionMerge
from leakgauge.defenses.reductions.random_merge import RandomMerge
from leakgauge.defenses.reductions.threshold import ThresholdMerge
from leakgauge.defenses.reductions.tofu import ToFu
from leakgauge.defenses.reductions.tome import ToMe
from leakgauge.harness.values.tokens import TokenBatch

# Threshold


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 12), st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_threshold_keeps_the_weighted_sum(seed, images, patches, tau):
    case = random_case(seed, images, patches)
    before, after = case.batch, case.reduced(ThresholdMerge(tau))
    assert bool((after.lengths >= 1 + (before.lengths - 1) // 2).all()), "at most half merges"
    sums = (torch.zeros(images, 8).index_add_(0, b.image_index, b.tokens * b.sizes[:, None]) for b in (before, after))
    assert torch.allclose(*sums, atol=1e-4)


@given(st.integers(0, 10_000), st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_lower_threshold_never_keeps_more(seed, one, other):
    case = random_case(seed, 3, 11)
    low, high = sorted((one, other))
    assert bool((case.reduced(ThresholdMerge(low)).lengths <= case.reduced(ThresholdMerge(high)).lengths).all())


def test_threshold_of_one_means_never_even_for_identical_keys():
    case = one_image(range(8))
    assert ThresholdMerge(1.0).assign(case.state, RNG) is None
    assert int(case.reduced(ThresholdMerge(0.999)).lengths[0]) == 1 + 4


def test_threshold_by_hand():
    # Patches 0..3 are A B A B; patch 0 is like patch 3, patch 2 like nothing.
    after = one_image([1, 2, 3, 5], [X, Y, (0, 0.2, 1), (1, 0.1, 0)]).reduced(ThresholdMerge(0.9))
    assert values_of(after) == [9.0, 2.0, 3.0, 3.0]
    assert after.merge_map.tolist() == [[3, 1, 2, 3]]
    assert after.sizes.tolist() == [1, 1, 1, 2]


def test_real_tokens_merge_block_after_block(victim, photographs):
    backbone = TimmViT(victim.model)
    with torch.no_grad():
        batch = backbone.embed(victim.normalise(photographs.images()))
        for layer in range(backbone.depth):
            attended = attention_half(backbone, layer, batch, proportional=True, keys=True)
            batch = case_of(batch.with_tokens(attended.tokens), attended.keys).reduced(ThresholdMerge(0.85))
            batch.check()
            batch = mlp_half(backbone, layer, batch)
    assert int(batch.lengths.min()) < 65


def test_tokens_may_be_compared_instead_of_keys():
    tokens = torch.tensor([[[1.0, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    case = case_of(TokenBatch.from_uniform(tokens, prefix=1), torch.tensor([Z, X, Y, Y, X]))
    assert case.reduced(ThresholdMerge(0.9, similarity="tokens")).merge_map.tolist() == [[1, 1, 2, 3]]
    assert case.reduced(ThresholdMerge(0.9)).merge_map.tolist() == [[2, 1, 1, 2]]


# Splits, counts, cap and order


@given(st.integers(0, 10_000), st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_all_pairs_joins_mutual_nearest_tokens(seed, patches):
    generator = torch.Generator().manual_seed(seed)
    batch = TokenBatch.from_uniform(torch.randn(2, 1 + patches, 4, generator=generator), prefix=1)
    case = case_of(batch, torch.randn(len(batch.tokens), 5, generator=generator))
    after = case.reduced(ThresholdMerge(0.2, split="all_pairs"))
    for image in range(2):
        start = image * (1 + patches) + 1
        keys = case.state.keys[start : start + patches].tolist()
        best = [first_best([-2.0 if i == j else dot(keys[i], keys[j]) for j in range(patches)]) for i in range(patches)]
        joined = {(i, best[i]) for i in range(patches) if best[best[i]] == i < best[i]}
        joined = {(i, j) for i, j in joined if dot(keys[i], keys[j]) > 0.2}
        own = after.merge_map[image].tolist()
        assert {(i, j) for i in range(patches) for j in range(i + 1, patches) if own[i] == own[j]} == joined


@pytest.mark.parametrize(("gamma", "merges"), [(0.0, 0), (0.19, 0), (0.2, 1), (0.6, 3), (0.99, 4), (1.0, 5)])
def test_proportion_is_a_share_of_the_matches_rounded_down(gamma, merges):
    case = random_case(7, 1, 10)  # five A tokens, five matches
    after = case.reduced(ProportionMerge(gamma))
    assert int(after.lengths[0]) == 11 - merges
    keys = case.state.keys[1:].tolist()
    best = [max(dot(keys[a], keys[b]) for b in range(1, 10, 2)) for a in range(0, 10, 2)]
    gone = sorted(range(5), key=lambda a: -best[a])[:merges]
    alone = [after.merge_map[0].tolist().count(after.merge_map[0, 2 * a].item()) == 1 for a in range(5)]
    assert alone == [a not in gone for a in range(5)]


def test_cap_lets_the_best_pairs_merge():
    # Eight patches, A tokens ever less similar to the B tokens; a cap of a quarter allows two merges.
    keys = [k for slope in (0.3, 0.1, 0.2, 0.0) for k in ((1.0, slope, 0.0), X)]
    case = one_image(range(8), keys)
    assert int(case.reduced(ThresholdMerge(-1.0)).lengths[0]) == 5
    after = case.reduced(ThresholdMerge(-1.0, cap=0.25))
    assert int(after.lengths[0]) == 7
    assert [after.merge_map[0, a].item() == after.merge_map[0, 1].item() for a in (0, 2, 4, 6)] == [
        False,
        True,
        False,
        True,
    ]


def test_tome_puts_the_a_tokens_first():
    # Patch 2 is like patch 3; A tokens 0 and 4 stay and come before B tokens 1, 3 and 5.
    case = one_image([10, 11, 12, 13, 14, 15], [(1, 1, 0), (-1, 0, 0), Y, Y, (1, 0, 1), (0, -1, 0)])
    assert values_of(case.reduced(ToMe(1))) == [9.0, 10.0, 14.0, 11.0, 12.5, 15.0]
    assert values_of(case.reduced(ToMe(1, order="kept"))) == [9.0, 10.0, 11.0, 12.5, 14.0, 15.0]


@given(st.integers(0, 1000), st.floats(-1, 0.95))
@settings(max_examples=30, deadline=None)
def test_random_merge_draws_from_the_image_alone(seed, tau):
    case = random_case(seed, 3, 10)
    case = case.with_(target_lengths=case.reduced(ThresholdMerge(tau)).lengths)
    control = RandomMerge({"name": "threshold", "thresholds": tau})
    after = case.reduced(control)
    assert torch.equal(after.lengths, case.state.target_lengths)
    assert torch.equal(case.select([1]).reduced(control).merge_map, after.merge_map[1:2])


# PiToMe


def energy_loop(keys: list[list[float]], margin: float) -> list[float]:
    found = []
    for i, one in enumerate(keys):
        terms = [(1.0 if i == j else dot(one, other)) - margin for j, other in enumerate(keys)]
        found.append(sum(x if x > 0 else math.exp(x) - 1 for x in terms) / len(keys))
    return found


def test_pitome_energies_by_hand():
    # Two equal tokens and one at a right angle: .5 twice and e^-.5 - 1 for the pair, .5 and twice that for the other.
    drop = math.exp(-0.5) - 1
    assert energies(torch.tensor([X, Y, X]), 0.5).tolist() == pytest.approx(
        [(1 + drop) / 3, (0.5 + 2 * drop) / 3, (1 + drop) / 3]
    )


def test_pitome_energies_are_the_mean_elu_and_do_not_jump_at_the_margin():
    keys = normalize(torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    for margin in (0.75, 0.3, 0.0):
        assert torch.allclose(energies(keys, margin), elu(keys @ keys.T - margin).mean(dim=1), atol=1e-6)
    # Two tokens whose similarity passes the margin by a hair, either way.
    below, above = (
        energies(torch.tensor([X, (x, math.sqrt(1 - x * x), 0.0)]), 0.75)[0] for x in (0.75 - 1e-4, 0.75 + 1e-4)
    )
    assert 0 < float(above - below) < 2e-4


@pytest.mark.parametrize("matched", [None, 0, 6])
@pytest.mark.parametrize("layer", [0, 3, 5])
def test_pitome_merges_the_dense_tokens(victim, photographs, layer, matched):
    case = real_case(victim, photographs.select(range(2)), layer)
    after = case.reduced(PiToMe(0.8, matched_blocks=matched))
    for image in range(2):
        keys = case.state.keys[65 * image + 1 : 65 * (image + 1)].tolist()
        energy = energy_loop(keys, 0.75 - 0.75 * layer / 6)
        count = 64 - math.ceil(0.8 * 64)
        among = 64 if layer < (3 if matched is None else matched) else 2 * count
        order = sorted(range(64), key=lambda i: -energy[i])[:among]
        a, b = order[::2], order[1::2]
        into = {i: b[first_best([dot(keys[i], keys[j]) for j in b])] for i in a}
        a = sorted(a, key=lambda i: -dot(keys[i], keys[into[i]]))[:count]
        own = after.merge_map[image].tolist()
        together = {frozenset(p for p in range(64) if own[p] == slot) for slot in set(own)}
        expected = {frozenset([j, *(i for i in a if into[i] == j)]) for j in range(64) if j not in a}
        assert together == expected


def test_pitome_was_published_without_proportional_attention():
    assert not PiToMe(0.9).proportional


def test_pitome_protects_the_sparse_tokens():
    # Four equal tokens and two outliers: two of six go, from the four. A is 0 and 3, B is 2 and 5; a tie takes 2.
    case = one_image([1, 2, 3, 4, 5, 6], [X, Y, X, X, (0, -1, 0), X])
    after = case.reduced(PiToMe(0.6, matched_blocks=0))
    assert after.merge_map.tolist() == [[2, 1, 2, 2, 3, 4]]


# ToFu


def tofu_case(layer: int) -> Case:
    tokens = torch.tensor([[[9.0, 9.0], [3.0, 0.0], [0.0, 4.0], [1.0, 1.0], [5.0, 5.0]]])
    return case_of(TokenBatch.from_uniform(tokens, prefix=1), torch.tensor([Z, X, X, Y, (0.0, -1.0, 0.0)]), layer=layer)


def test_tofu_prunes_early():
    after = tofu_case(layer=2).reduced(ToFu(1, order="kept"))
    assert after.tokens.tolist() == [[9.0, 9.0], [0.0, 4.0], [1.0, 1.0], [5.0, 5.0]]
    assert after.merge_map.tolist() == [[-1, 1, 2, 3]]


def test_tofu_keeps_the_largest_norm_later():
    after = tofu_case(layer=3).reduced(ToFu(1))
    # A tokens first; the mean (1.5, 2) has norm 2.5 and is scaled to 4.
    assert after.tokens.flatten().tolist() == pytest.approx([9.0, 9.0, 1.0, 1.0, 2.4, 3.2, 5.0, 5.0])
    assert after.merge_map.tolist() == [[2, 2, 1, 3]]


def test_tofu_weighs_the_mean_by_size():
    case = tofu_case(layer=3)
    sizes = torch.tensor([1, 3, 1, 1, 1])
    batch = TokenBatch(case.batch.tokens, case.batch.lengths, sizes, torch.tensor([[1, 1, 1, 2, 3, 4]]), 1)
    after = Case(batch, case.with_(sizes=sizes).state).reduced(ToFu(1))
    mean = torch.tensor([9.0, 4.0]) / 4
    assert torch.allclose(after.tokens[2], mean * 4 / mean.norm())


@pytest.mark.parametrize(("blocks", "prunes"), [(None, False), (3, False), (4, True), (0, False)])
def test_tofu_changes_where_it_is_told(blocks, prunes):
    assert bool((tofu_case(layer=3).reduced(ToFu(1, prune_layers=blocks)).merge_map == -1).any()) == prunes
