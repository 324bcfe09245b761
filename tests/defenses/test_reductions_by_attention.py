"""What each reduction that ranks by class attention does, against examples by hand and against plain loops."""

import math

import pytest
import torch
from token_states import RNG, X, Y, Z, case_of, dot, first_best, one_image, random_case, real_case, values_of
from torch.nn.functional import normalize

from leakgauge.defenses.ragged.merging import apply_assignment
from leakgauge.defenses.reductions.ats import AdaptiveTokenSampling
from leakgauge.defenses.reductions.diffrate import DiffRate
from leakgauge.defenses.reductions.evit import EViT
from leakgauge.defenses.reductions.prumerge import PruMerge
from leakgauge.defenses.reductions.share import ShareOfPatches
from leakgauge.defenses.reductions.top_k import TopK
from leakgauge.harness.values.tokens import TokenBatch

# TopK and EViT

ATTENTION = [0.1, 0.3, 0.1, 0.25, 0.2]


def test_top_k_keeps_the_most_attended_in_their_order():
    case = one_image([1, 2, 3, 4, 5], attention=ATTENTION, layer=3)
    after = case.reduced(TopK(0.6))
    assert values_of(after) == [9.0, 2.0, 4.0, 5.0]
    assert after.merge_map.tolist() == [[-1, 1, -1, 2, 3]]
    assert values_of(case.reduced(TopK(0.61))) == [9.0, 1.0, 2.0, 4.0, 5.0], "rounded up; of a tie the first stays"
    assert values_of(case.reduced(TopK(0.01))) == [9.0, 2.0], "one token stays"


def test_evit_fuses_the_rest_behind_the_kept():
    after = one_image([1, 2, 3, 4, 5], attention=ATTENTION, layer=3).reduced(EViT(0.4))
    assert values_of(after) == pytest.approx([9.0, 2.0, 4.0, 0.1 * 1 + 0.1 * 3 + 0.2 * 5])
    assert after.merge_map.tolist() == [[3, 1, 3, 2, 3]]
    assert after.sizes.tolist() == [1, 1, 1, 3]


def test_evit_fuses_each_image_of_a_batch():
    case = random_case(4, 3, 9, layer=3)
    after = case.reduced(EViT(0.5))
    for image, (start, length) in enumerate(
        zip(case.batch.offsets.tolist(), case.batch.lengths.tolist(), strict=False)
    ):
        attention = case.state.attention[start + 1 : start + length].tolist()
        order = sorted(range(length - 1), key=lambda i: (-attention[i], i))
        kept = sorted(order[: math.ceil((length - 1) / 2)])
        rows = case.batch.tokens[start + 1 : start + length]
        fused = sum(attention[i] * rows[i].double() for i in range(length - 1) if i not in kept)
        own = after.tokens[after.offsets[image] : after.offsets[image + 1]]
        assert torch.equal(own[1:-1], rows[kept])
        assert torch.allclose(own[-1].double(), fused, atol=1e-6)


@pytest.mark.parametrize("method", [TopK, EViT])
def test_layers_say_where_it_acts(method):
    assert [layer for layer in range(12) if method(0.7).active(layer, 12)] == [3, 6, 9]
    assert [layer for layer in range(12) if method(0.7, layers=[1, 2]).active(layer, 12)] == [1, 2]
    assert [layer for layer in range(4) if method([1.0, 0.5, 1, 0.9]).active(layer, 4)] == [1, 3]
    assert method(0.7).assign(random_case(0, 2, 9, layer=2).state, RNG) is None


def test_published_rates_of_evit():
    assert [ShareOfPatches("keep", 0.7).count(0, n) for n in (196, 139, 1)] == [138, 98, 1]
    assert ShareOfPatches("keep", 0.07).count(0, 100) == 7, "not 8, as floating point would have it"


# DiffRate


def test_diffrate_prunes_the_lowest_and_merges_the_next():
    keys = [X, Y, (0.2, 1, 0), (1, 0.2, 0), Z, Y]
    case = one_image([1, 2, 3, 4, 5, 6], keys, attention=[0.3, 0.25, 0.1, 0.15, 0.02, 0.05])
    by_keys = {"similarity": "keys", "sizes": "counted"}
    after = case.reduced(DiffRate(prune_kept=4, merge_kept=2, **by_keys))
    assert values_of(after) == [9.0, 2.5, 2.5]
    assert after.merge_map.tolist() == [[1, 2, 2, 1, -1, -1]]
    assert values_of(case.reduced(DiffRate(prune_kept=2))) == [9.0, 1.0, 2.0]
    assert values_of(case.reduced(DiffRate(merge_kept=5, **by_keys))) == [9.0, 3.0, 2.0, 3.0, 4.0, 6.0], (
        "of a tie, the first"
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("prune", "merge"), [(7, 4), (5, 5), (20, 3), (4, 20), (3, 1)])
@pytest.mark.parametrize("similarity", ["tokens", "keys"])
def test_diffrate_against_a_loop(prune, merge, seed, similarity):
    case = random_case(seed, 3, 10)
    after = case.reduced(DiffRate([prune], [merge], similarity))
    for image, (start, length) in enumerate(
        zip(case.batch.offsets.tolist(), case.batch.lengths.tolist(), strict=False)
    ):
        attention = case.state.attention[start + 1 : start + length].tolist()
        compared = case.state.keys if similarity == "keys" else normalize(case.batch.tokens, dim=1)
        keys = compared[start + 1 : start + length].tolist()
        order = sorted(range(length - 1), key=lambda i: (-attention[i], i))
        kept, merged = sorted(order[:prune][:merge]), order[:prune][merge:]
        place = {i: 1 + kept.index(i) for i in kept}
        for i in merged:
            place[i] = place[kept[first_best([dot(keys[i], keys[j]) for j in kept])]]
        was = case.batch.merge_map[image].tolist()
        assert after.merge_map[image].tolist() == [-1 if t == -1 else place.get(t - 1, -1) for t in was]


# ATS


def test_ats_by_hand():
    # Cumulative .1 .6 .6 .7 1; quantiles of four samples .125 .375 .625 .875, the nearest .1 .6 (not .1) .6 and 1.
    case = one_image([1, 2, 3, 4, 5], significance=[0.2, 1.0, 0.0, 0.2, 0.6], layer=3)
    after = case.reduced(AdaptiveTokenSampling(4))
    assert values_of(after) == [9.0, 1.0, 2.0, 5.0], "of equal sums the first"
    assert after.merge_map.tolist() == [[1, 2, -1, -1, 3]]
    assert values_of(case.reduced(AdaptiveTokenSampling(1))) == [9.0, 2.0]


def test_ats_as_the_authors_by_hand():
    # Sorted 0 .2 .2 .6 1, sums less the first 0 .2 .4 1 2; quantiles of three samples .2, 1.1 and 2.
    case = one_image([1, 2, 3, 4, 5], attention=[0.2, 1.0, 0.0, 0.2, 0.6], layer=3, value_norm=torch.ones(6))
    after = case.reduced(AdaptiveTokenSampling(3, rule="authors"))
    assert values_of(after) == [9.0, 1.0, 2.0, 5.0]
    one = one_image([7], attention=[0.3], layer=3, value_norm=torch.ones(2))
    assert values_of(one.reduced(AdaptiveTokenSampling(3, rule="authors"))) == [9.0, 7.0]


def test_ats_counts_differ_between_images_and_match_a_loop(victim, photographs):
    case = real_case(victim, photographs.select(range(6)), 4)
    after = case.reduced(AdaptiveTokenSampling(24))
    for image in range(6):
        scores = case.state.significance[65 * image + 1 : 65 * (image + 1)].tolist()
        total = math.fsum(scores)
        reached = [math.fsum(scores[: place + 1]) / total for place in range(64)]
        found = {min(range(64), key=lambda place, u=(2 * i - 1) / 48: abs(reached[place] - u)) for i in range(1, 25)}
        assert (after.merge_map[image] != -1).nonzero().flatten().tolist() == sorted(found)
    assert len(set(after.lengths.tolist())) > 1


def test_ats_acts_from_block_three_on():
    assert [layer for layer in range(6) if AdaptiveTokenSampling(5).active(layer, 6)] == [3, 4, 5]
    nothing = one_image([1, 2], significance=[0.0, 0.0], layer=3)
    assert AdaptiveTokenSampling(1).assign(nothing.state, RNG) is None, "no significance says nothing"


# PruMerge

PEAKS = [0.01, 0.3, 0.02, 0.03, 0.02, 0.25, 0.01, 0.02]


def test_prumerge_by_hand():
    # Quartiles .0175 and .085, limit .18625: patches 1 and 5 are outliers.
    keys = [X, X, Y, (1, 0.1, 0), Y, Y, X, (0.1, 1, 0)]
    after = one_image([1, 2, 3, 4, 5, 6, 7, 8], keys, PEAKS, layer=5).reduced(PruMerge())
    first = (0.01 * 1 + 0.3 * 2 + 0.03 * 4 + 0.01 * 7) / 0.35
    second = (0.02 * 3 + 0.02 * 5 + 0.25 * 6 + 0.02 * 8) / 0.31
    assert values_of(after) == pytest.approx([9.0, first, second])
    assert after.merge_map.tolist() == [[1, 1, 2, 1, 2, 2, 1, 2]]


def test_prumerge_plus_adds_every_fifth():
    keys = [X, X, Y, (1, 0.1, 0), Y, Y, X, (0.1, 1, 0)]
    after = one_image([1, 2, 3, 4, 5, 6, 7, 8], keys, PEAKS, layer=5).reduced(PruMerge(plus=True))
    assert after.merge_map.tolist() == [[1, 1, 2, 1, 2, 3, 1, 4]], "patches 1, 2, 5 and 7 stay; ties take the first"


def test_prumerge_judges_each_image_by_its_own_quartiles():
    # The second image has no outlier; of both together, none would be one.
    flat = [0.5, 0.4, 0.6, 0.45, 0.55, 0.5, 0.6, 0.4]
    batch = TokenBatch.from_uniform(torch.arange(18.0).view(2, 9, 1), prefix=1)
    keys = torch.tensor([Z, *[X] * 8] * 2)
    attention = torch.tensor([0.05, *PEAKS, 0.05, *flat])
    assert case_of(batch, keys, attention, layer=5).reduced(PruMerge()).lengths.tolist() == [3, 9]


def test_prumerge_against_a_loop(victim, photographs):
    case = real_case(victim, photographs, 5)
    after = case.reduced(PruMerge())
    counts = set()
    for image in range(len(photographs)):
        rows = slice(65 * image + 1, 65 * (image + 1))
        scores, keys = case.state.attention[rows].tolist(), case.state.keys[rows].tolist()
        ordered = sorted(scores)
        # Of 64 values, the quartiles lie at places 15.75 and 47.25.
        q1 = ordered[15] + 0.75 * (ordered[16] - ordered[15])
        q3 = ordered[47] + 0.25 * (ordered[48] - ordered[47])
        kept = [i for i in range(64) if scores[i] > q3 + 1.5 * (q3 - q1)] or list(range(64))
        into = [i if i in kept else kept[first_best([dot(keys[i], keys[j]) for j in kept])] for i in range(64)]
        assert after.merge_map[image].tolist() == [1 + kept.index(j) for j in into]
        counts.add(len(kept))
        start = int(after.offsets[image])
        for place, j in enumerate(kept):
            own = [i for i in range(64) if into[i] == j]
            mean = sum(scores[i] * case.batch.tokens[rows][i].double() for i in own) / sum(scores[i] for i in own)
            assert torch.allclose(after.tokens[start + 1 + place].double(), mean, atol=1e-5)
    assert len(counts) > 1, "the rule sets a count for each image"


@pytest.mark.parametrize(("layer", "acts_in"), [(None, [5]), (2, [2])])
def test_prumerge_acts_once(layer, acts_in):
    method = PruMerge(layer)
    keys = [X, X, Y, X, Y, Y, X, Y]
    cases = [one_image(range(8), keys, PEAKS, layer=block) for block in range(6)]
    assert [block for block in range(6) if method.assign(cases[block].state, RNG) is not None] == acts_in
    assert [block for block in range(6) if method.active(block, 6)] == acts_in


def test_weights_of_lone_tokens_are_exactly_one():
    case = random_case(2, 3, 12, layer=3)
    assignment = EViT(0.5).assign(case.state, RNG)
    after = apply_assignment(case.batch, assignment)
    kept = (assignment.weights == 1).nonzero().flatten()
    assert torch.equal(after.tokens[assignment.destination[kept]], case.batch.tokens[kept])
