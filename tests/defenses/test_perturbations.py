"""Perturbations on the merged tokens of real photographs."""

import itertools
import math

import pytest
import torch

from leakgauge.defenses.backbones.families import adapt
from leakgauge.defenses.perturbations.dropout import TokenDropout
from leakgauge.defenses.perturbations.noise import GaussianNoise, LaplaceNoise
from leakgauge.defenses.perturbations.padding import PadCount, split_counts
from leakgauge.defenses.perturbations.shuffle import Shuffle
from leakgauge.defenses.ragged.forward import run_edge, run_server
from leakgauge.defenses.reductions.threshold import ThresholdMerge
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.registry import create, plugins
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch

CUT = 3
RNG = Streams(0, ("test",))
ALL = {
    "gaussian": {"strength": 0.3},
    "laplace": {"strength": 0.3},
    "token_dropout": {"p": 0.5},
    "shuffle": {},
    "pad_count": {"bucket": 16},
}


@pytest.fixture(scope="module")
def backbone(victim):
    return adapt(victim.model)


@pytest.fixture(scope="module")
def merged(victim, photographs, backbone) -> tuple[TokenBatch, tuple[str, ...]]:
    """12 photographs after three merging blocks."""
    images = photographs.select(range(12))
    with torch.no_grad():
        pixels = victim.normalise(images.images())
        batch, _ = run_edge(
            backbone,
            backbone.embed(pixels),
            images.ids,
            ThresholdMerge(thresholds=0.9),
            RNG,
            cut=CUT,
            proportional=True,
        )
    assert len(set(batch.lengths.tolist())) > 3
    return batch, images.ids


def served(backbone, batch: TokenBatch) -> torch.Tensor:
    with torch.no_grad():
        return run_server(backbone, batch, range(CUT, backbone.depth), proportional=True)


def uniform(images: int = 3, patches: int = 64, width: int = 192) -> tuple[TokenBatch, tuple[str, ...]]:
    """Unmerged tokens of images of very different power."""
    tokens = torch.randn(images, 1 + patches, width, generator=torch.Generator().manual_seed(0))
    powers = 10.0 ** torch.arange(images)
    return TokenBatch.from_uniform(tokens * powers[:, None, None], prefix=1), tuple(map(str, range(images)))


def same(one: TokenBatch, other: TokenBatch) -> bool:
    names = ("tokens", "lengths", "sizes", "merge_map")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_all_that_are_registered_are_tested():
    assert set(plugins("perturbations")) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_an_image_does_not_depend_on_its_batch_mates(name, merged):
    batch, ids = merged
    perturbation = create("perturbations", name, ALL[name])
    together = perturbation.apply(batch, ids, RNG)
    together.check()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = perturbation.apply(batch.select(order), tuple(ids[i] for i in order), RNG)
    for place, i in enumerate(order):
        alone = perturbation.apply(batch.select([i]), (ids[i],), RNG)
        alone.check()
        assert same(alone, together.select([i]))
        assert same(alone, shuffled.select([place]))


@pytest.mark.parametrize("name", ALL)
def test_streams_decide_and_inputs_stay(name, merged):
    batch, ids = merged
    before = batch.select(range(len(batch)))
    perturbation = create("perturbations", name, ALL[name])
    one = perturbation.apply(batch, ids, RNG)
    assert same(one, create("perturbations", name, ALL[name]).apply(batch, ids, RNG))
    assert same(one, perturbation.apply(batch, ids, RNG.child("other"))) == (name == "pad_count")
    assert not same(one, batch)
    assert same(batch, before)


@pytest.mark.parametrize("name", ALL)
def test_protected_tokens_stay_first_and_empty_images_pass(name):
    whole, ids = uniform()
    bare = TokenBatch(
        whole.tokens[whole.offsets[:-1]],
        torch.ones(3, dtype=torch.long),
        torch.ones(3, dtype=torch.long),
        torch.full_like(whole.merge_map, DROPPED),
        prefix=1,
    )
    perturbation = create("perturbations", name, ALL[name])
    for batch in (whole, bare):
        out = perturbation.apply(batch, ids, RNG)
        out.check()
        if name not in {"gaussian", "laplace"}:
            assert torch.equal(out.tokens[out.offsets[:-1]], batch.tokens[batch.offsets[:-1]])


@pytest.mark.parametrize(("noise", "kurtosis"), [(GaussianNoise, 3.0), (LaplaceNoise, 6.0)])
def test_noise_has_the_stated_strength_and_shape(noise, kurtosis):
    batch, ids = uniform()
    out = noise(0.3).apply(batch, ids, RNG)
    difference = (out.tokens - batch.tokens).split(batch.lengths.tolist())
    for own, added in zip(batch.tokens.split(batch.lengths.tolist()), difference, strict=True):
        ratio = float(added.square().mean().sqrt() / own.square().mean().sqrt())
        # 12 480 values: the deviation's standard error is 0.6 % (Gaussian) and 1.0 % (Laplace); allow four.
        assert ratio == pytest.approx(0.3, rel=0.04)
        assert float(added.mean() / added.std()) == pytest.approx(0, abs=4 / math.sqrt(added.numel()))
    unit = torch.cat([(x / x.std()).flatten() for x in difference])
    # 37 440 values: the sample kurtosis scatters by 0.03 (Gaussian) and about 0.2 (Laplace).
    assert float(unit.pow(4).mean()) == pytest.approx(kurtosis, abs=0.8)


def test_noise_values_are_independent():
    batch, ids = uniform(2)
    one, two = ((GaussianNoise(1.0).apply(batch, ids, RNG).tokens - batch.tokens).view(2, 65, 192)).unbind()
    for a, b in ((one, two), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1])):
        correlation = float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
        assert abs(correlation) < 5 / math.sqrt(a.numel())


@pytest.mark.parametrize("noise", [GaussianNoise, LaplaceNoise])
def test_protected_tokens_get_noise_unless_told_otherwise(noise):
    batch, ids = uniform()
    first = batch.offsets[:-1]
    protected = noise(0.3, protect_prefix=True).apply(batch, ids, RNG).tokens
    assert torch.equal(protected[first], batch.tokens[first])
    assert bool((protected != batch.tokens).any(dim=1)[first + 1].all())
    assert bool((noise(0.3).apply(batch, ids, RNG).tokens[first] != batch.tokens[first]).any(dim=1).all())


def test_dropout_keeps_the_stated_share_and_the_merge_map_follows(merged):
    batch, ids = merged
    out = TokenDropout(0.3).apply(batch, ids, RNG)
    before, after = batch.unmerge(), out.unmerge()
    kept = out.merge_map != DROPPED
    assert torch.equal(after[kept], before[kept])
    assert not bool(after[~kept].any())
    plain, names = uniform(40)
    left = TokenDropout(0.3).apply(plain, names, RNG).lengths - 1
    # 2560 tokens: the share's standard error is 0.9 %; allow four.
    assert float(left.sum()) / 2560 == pytest.approx(0.7, abs=0.036)
    assert len(set(left.tolist())) > 5


def test_dropout_leaves_one_patch_token_any_of_them():
    batch, ids = uniform(200, 4, 2)
    out = TokenDropout(0.99).apply(batch, ids, RNG)
    # All four go with probability 0.96, two stay with 0.0006.
    assert int(out.lengths.min()) == 2
    stayed = (out.merge_map != DROPPED).sum(0)
    # About 50 times each; standard deviation 6.1.
    assert bool(((stayed > 25) & (stayed < 75)).all())
    assert same(TokenDropout(0).apply(batch, ids, RNG), batch)


def test_shuffle_is_a_permutation_that_the_server_does_not_need(merged, backbone):
    batch, ids = merged
    out = Shuffle().apply(batch, ids, RNG)
    assert torch.equal(out.lengths, batch.lengths)
    assert torch.equal(out.unmerge(), batch.unmerge())
    assert not torch.equal(out.tokens, batch.tokens)
    for i in range(len(ids)):
        one, other = batch.select([i]), out.select([i])
        order = (one.tokens[:, None] == other.tokens).all(dim=2).int().argmax(dim=1)
        assert sorted(order.tolist()) == list(range(len(one.tokens)))
        assert torch.equal(other.sizes[order], one.sizes)
    assert torch.allclose(served(backbone, out), served(backbone, batch), atol=1e-5)


@pytest.mark.parametrize("options", [{"count": 65}, {"count": 500}, {"bucket": 8}, {"bucket": 1}, {"bucket": 64}])
def test_padding_reaches_its_count_and_leaves_the_servers_result(options, merged, backbone):
    batch, ids = merged
    out = PadCount(**options).apply(batch, ids, RNG)
    out.check()
    bucket = options.get("bucket", 1)
    wanted = (
        torch.full_like(batch.lengths, options["count"]) if "count" in options else -(-batch.lengths // bucket) * bucket
    )
    assert torch.equal(out.lengths, wanted.clamp_max(65))
    assert torch.equal(out.unmerge(), batch.unmerge())
    assert torch.allclose(served(backbone, out), served(backbone, batch), atol=1e-5)


def test_without_proportional_attention_padding_changes_the_result(merged, backbone):
    batch, ids = merged
    out = PadCount(count=65).apply(batch, ids, RNG)
    layers = range(CUT, backbone.depth)
    with torch.no_grad():
        one, two = (run_server(backbone, tokens, layers, proportional=False) for tokens in (batch, out))
    assert float((one - two).abs().max()) > 1e-2


def test_originals_come_first_then_copies_in_rounds(merged):
    batch, ids = merged
    out = PadCount(bucket=64).apply(batch, ids, RNG)
    for i in range(len(ids)):
        one, other = batch.select([i]).tokens, out.select([i]).tokens
        assert torch.equal(other[: len(one)], one)
        source = (other[len(one) :, None] == one).all(dim=2).int().argmax(dim=1).tolist()
        rounds = sum(b <= a for a, b in itertools.pairwise(source)) + 1
        assert rounds == max(source.count(token) for token in source)


def test_largest_tokens_are_split_first_and_evenly():
    assert split_counts([1, 5, 4, 1], 1) == [1, 2, 1, 1]
    assert split_counts([1, 5, 4, 1], 2) == [1, 2, 2, 1]
    assert split_counts([4, 4], 1) == [2, 1]
    assert split_counts([7, 1, 2], 100) == [7, 1, 2]
    batch = TokenBatch(
        torch.tensor([[0.0], [1.0], [2.0]]),
        torch.tensor([3]),
        torch.tensor([1, 5, 2]),
        torch.tensor([[1, 2, 1, 1, DROPPED, 1, 2, 1]]),
        prefix=1,
    )
    out = PadCount(count=5).apply(batch, ("a",), RNG)
    assert out.tokens.flatten().tolist() == [0, 1, 2, 1, 1]
    assert out.sizes.tolist() == [1, 2, 2, 2, 1]
    # A dropped patch leaves one token fewer than there are patches.
    assert PadCount(count=9).apply(batch, ("a",), RNG).lengths.tolist() == [8]


def test_a_longer_image_is_refused():
    batch, ids = uniform()
    with pytest.raises(ConfigError, match=r"65 tokens.*count: 65"):
        PadCount(count=64).apply(batch, ids, RNG)
    assert same(PadCount(count=65).apply(batch, ids, RNG), batch)


@pytest.mark.parametrize(
    ("perturbation", "options"),
    [
        ("gaussian", {"strength": -0.1}),
        ("gaussian", {"strength": math.inf}),
        ("laplace", {"strength": math.nan}),
        ("laplace", {"strength": True}),
        ("laplace", {"strength": 1.0, "protect_prefix": 1}),
        ("token_dropout", {"p": 1.0}),
        ("token_dropout", {"p": "0.5"}),
        ("pad_count", {}),
        ("pad_count", {"count": 40, "bucket": 8}),
        ("pad_count", {"count": 0}),
        ("pad_count", {"bucket": 2.5}),
    ],
)
def test_options_out_of_range_are_refused(perturbation, options):
    with pytest.raises(ConfigError):
        create("perturbations", perturbation, options)
