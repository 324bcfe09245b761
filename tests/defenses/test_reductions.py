"""Properties that every registered reduction keeps, on random and on real tokens, and what merging checks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_states import RNG, Case, random_case, real_case

from leakgauge.defenses.backbones.timm_vit import TimmViT
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.ragged.merging import apply_assignment
from leakgauge.defenses.reductions.threshold import ThresholdMerge
from leakgauge.harness.contracts.reduction import Assignment, Reduction
from leakgauge.harness.errors import PluginError
from leakgauge.harness.suite.registry import create, plugins
from leakgauge.harness.values.tokens import DROPPED, TokenBatch

LAYER = 3
"""A block in which every reduction acts by default, of six."""


def matched(name: str, option: str, *values) -> list[dict]:
    return [{"match": {"name": name, option: value}} for value in values]


# Options of each reduction, from weak to strong.
OPTIONS = {
    "none": [{}],
    "threshold": [{"thresholds": tau} for tau in (0.99, 0.9, 0.5, -1.0)],
    "proportion": [{"proportions": gamma} for gamma in (0.1, 0.3, 0.6, 1.0)],
    "tome": [{"r": r} for r in (1, 2, 5, 30)],
    "random_merge": matched("tome", "r", 1, 2, 5, 30),
    "random_drop": matched("top_k", "keep", 0.9, 0.5, 0.3, 0.01),
    "top_k": [{"keep": keep} for keep in (0.9, 0.5, 0.3, 0.01)],
    "evit": [{"keep": keep} for keep in (0.9, 0.5, 0.3, 0.01)],
    "pitome": [{"ratio": ratio} for ratio in (0.95, 0.8, 0.6, 0.1)],
    "tofu": [{"r": r, "prune_layers": blocks} for r in (1, 2, 5, 30) for blocks in (0, 6)],
    "diffrate": [
        {"prune_kept": prune, "merge_kept": merge} for prune, merge in ((9, 8), (9, 5), (6, 3), (2, 2), (1, 1))
    ],
    "ats": [{"tokens": tokens} for tokens in (81, 27, 9, 3, 1)],
    "prumerge": [{"layer": LAYER, "plus": True}, {"layer": LAYER}],
}
# Options with which nothing qualifies for removal.
STILL = {
    "none": {},
    "threshold": {"thresholds": 1.0},
    "proportion": {"proportions": 0.0},
    "tome": {"r": 0},
    "random_merge": {"match": {"name": "tome", "r": 0}},
    "random_drop": {"match": {"name": "tome", "r": 0}},
    "top_k": {"keep": 1.0},
    "evit": {"keep": 1.0},
    "pitome": {"ratio": 1.0},
    "tofu": {"r": 0},
    "diffrate": {"prune_kept": 10**12, "merge_kept": 10**12},
    "ats": {"tokens": 1, "layers": [LAYER + 1]},
    "prumerge": {"layer": LAYER + 1},
}
every_reduction = pytest.mark.parametrize("name", sorted(plugins("reductions")))


def built(name: str) -> list[Reduction]:
    return [create("reductions", name, options) for options in OPTIONS[name]]


def seen_by(reduction: Reduction, case: Case) -> Case:
    """Returns the case with the features that the reduction says it needs and no others, and with its targets."""
    targets = None if reduction.match is None else seen_by(reduction.match, case).reduced(reduction.match).lengths
    state = case.state
    return case.with_(
        attention=state.attention if "attention" in reduction.needs else None,
        significance=state.significance if "significance" in reduction.needs else None,
        target_lengths=targets,
    )


def reduced(reduction: Reduction, case: Case) -> TokenBatch:
    return seen_by(reduction, case).reduced(reduction)


def check_invariants(before: TokenBatch, after: TokenBatch) -> None:
    after.check()
    old, new = before.merge_map, after.merge_map
    own = after.sizes.clone()
    protected = after.offsets[:-1, None] + torch.arange(after.prefix)
    own[protected.flatten()] = 0
    counts = torch.zeros(len(after), dtype=torch.long).index_add_(0, after.image_index, own)
    assert torch.equal(counts, (new != DROPPED).sum(dim=1)), "sizes add up to the patches that were not dropped"
    assert bool((new[old == DROPPED] == DROPPED).all()), "what was dropped stays dropped"
    together = old[:, :, None] == old[:, None, :]
    assert bool((new[:, :, None] == new[:, None, :])[together].all()), "patches of one token share their fate"
    was = before.offsets[:-1, None] + torch.arange(before.prefix)
    assert torch.equal(after.tokens[protected], before.tokens[was]), "protected tokens untouched, bit by bit"
    assert bool((after.lengths <= before.lengths).all())
    some = before.lengths > before.prefix
    assert bool((after.lengths[some] > after.prefix).all()), "a patch token stays"


def assert_same(one: TokenBatch, other: TokenBatch) -> None:
    assert torch.equal(one.lengths, other.lengths)
    assert torch.equal(one.sizes, other.sizes)
    assert torch.equal(one.merge_map, other.merge_map)
    assert torch.equal(one.tokens, other.tokens)


def test_every_registered_reduction_is_tested():
    assert set(plugins("reductions")) <= set(OPTIONS) == set(STILL)


@every_reduction
@given(seed=st.integers(0, 10_000), images=st.integers(1, 4), patches=st.integers(0, 12), prefix=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_invariants_and_strength_on_random_tokens(name, seed, images, patches, prefix):
    case = random_case(seed, images, patches, prefix, layer=LAYER)
    before = None
    for reduction in built(name):
        after = reduced(reduction, case)
        check_invariants(case.batch, after)
        assert before is None or bool((after.lengths <= before).all()), "stronger leaves no more tokens"
        before = after.lengths


@every_reduction
@given(seed=st.integers(0, 10_000), images=st.integers(2, 4), patches=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_batch_mates_do_not_matter_on_random_tokens(name, seed, images, patches):
    case = random_case(seed, images, patches, layer=LAYER)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed)).tolist()
    for reduction in built(name):
        after = reduced(reduction, case)
        assert_same(reduced(reduction, case.select(order)), after.select(order))
        for image in range(images):
            assert_same(reduced(reduction, case.select([image])), after.select([image]))


@every_reduction
def test_real_tokens(name, victim, photographs):
    case = real_case(victim, photographs.select(range(8)), LAYER)
    alone = case.select([5])
    shuffled = case.select([7, 2, 5, 0])
    before, fewest = None, 65
    for reduction in built(name):
        after = reduced(reduction, case)
        check_invariants(case.batch, after)
        assert before is None or bool((after.lengths <= before).all()), "stronger leaves no more tokens"
        assert_same(reduced(reduction, alone), after.select([5]))
        assert_same(reduced(reduction, shuffled), after.select([7, 2, 5, 0]))
        before, fewest = after.lengths, int(after.lengths.min())
    assert (fewest < 65) == (name != "none"), "the strongest options remove something"


@every_reduction
def test_nothing_moves_where_nothing_qualifies(name):
    case = random_case(1, 3, 9, layer=LAYER)
    reduction = create("reductions", name, STILL[name])
    assert_same(reduced(reduction, case), case.batch)


@every_reduction
def test_the_whole_edge_keeps_images_apart(name, victim, photographs):
    """All six blocks, features computed by the model: counts and merge map of an image are its own."""
    backbone = TimmViT(victim.model)
    reduction = built(name)[len(OPTIONS[name]) // 2]
    reduction.check(backbone.depth)

    def edge(images, targets=None, method=reduction):
        pixels = victim.normalise(images.images())
        with torch.no_grad():
            return run_edge(
                backbone,
                backbone.embed(pixels),
                images.ids,
                method,
                RNG,
                cut=6,
                proportional=method.proportional,
                targets=targets,
            )

    few = photographs.select(range(5))
    targets = None if reduction.match is None else edge(few, method=reduction.match)[1]
    batch, counts = edge(few, targets)
    batch.check()
    assert targets is None or torch.equal(counts, targets)
    other = [3, 1]
    apart, _ = edge(few.select(other), None if targets is None else targets[other])
    assert torch.equal(apart.merge_map, batch.merge_map[other])
    assert torch.allclose(apart.tokens, batch.select(other).tokens, atol=1e-4)


@pytest.mark.parametrize("control", ["random_merge", "random_drop"])
@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"random_merge", "random_drop"}))
def test_controls_reach_the_counts_of_every_reference(control, name):
    case = random_case(5, 4, 12, layer=LAYER)
    for options in OPTIONS[name]:
        reference = create("reductions", name, options)
        after = reduced(create("reductions", control, {"match": {"name": name, **options}}), case)
        check_invariants(case.batch, after)
        assert torch.equal(after.lengths, reduced(reference, case).lengths)


@every_reduction
def test_the_pipeline_runs_it(name, victim, photographs):
    spec = {"name": name, **OPTIONS[name][-1]}
    pipeline = SplitPipeline(victim, torch.device("cpu"), cut=4, reduction=spec)
    answer = pipeline.respond(pipeline.transmit(photographs.select(range(2)), RNG))
    assert bool(torch.isfinite(answer).all())


@pytest.mark.parametrize("fault", ["image", "prefix", "gap", "shape"])
def test_a_reduction_that_breaks_its_contract_is_caught(fault):
    batch = TokenBatch.from_uniform(torch.randn(2, 5, 8), prefix=1)
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


@pytest.mark.parametrize("kind", ["mean", "weights", "rescale"])
def test_merging_is_differentiable(kind):
    case = random_case(3, 2, 8)
    tokens = case.batch.tokens.double().requires_grad_()
    assignment = ThresholdMerge(0.5).assign(case.state, RNG)
    if kind == "weights":
        assignment = assignment._replace(weights=torch.linspace(0.1, 2.0, len(tokens)).double())
    assignment = assignment._replace(rescale=kind == "rescale")
    assert torch.autograd.gradcheck(lambda x: apply_assignment(case.batch.with_tokens(x), assignment).tokens, (tokens,))


def test_states_are_those_of_a_block(victim, photographs):
    """The cases above are what the model computes: attention of an image sums to one, states are replaceable."""
    case = real_case(victim, photographs.select(range(2)), LAYER)
    assert torch.allclose(case.state.attention.view(2, 65).sum(dim=1), torch.ones(2))
    assert replace(case.state, layer=0).layer == 0
