"""The observation loss of white-box attacks: zero at the truth, differentiable, blind to batch mates and order."""

import pytest
import torch
from tiny_edge import (
    BLIND,
    MERGED,
    OPEN,
    RNG,
    SHAPE,
    SIGHTED,
    pictures,
    pipeline_of,
    seen_of,
    tiny_victim,
    view_of,
)

from leakgauge.attacks.white_box.assignment import known_mass, transport
from leakgauge.attacks.white_box.descent import Descent, best_rows, clipped, descend, late_fall, repeated
from leakgauge.attacks.white_box.edge_profile import EdgeProfile, made_up_images
from leakgauge.attacks.white_box.image_priors import patch_seams, total_variation
from leakgauge.attacks.white_box.matching import Matching
from leakgauge.harness.contracts.defense import Defense, differentiable
from leakgauge.harness.errors import AccessDeniedError, ConfigError
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.tokens import TokenBatch


@pytest.fixture(scope="module")
def victim():
    return tiny_victim()


@pytest.fixture(scope="module")
def images():
    return pictures(6, "evaluation")


@pytest.fixture(scope="module")
def profile(victim):
    return EdgeProfile.learn(view_of(victim), pictures(96, "auxiliary"))


def loss_at(victim, matching, images, *, refresh=True):
    units = matching.units(pipeline_of(victim).edge_tokens(images).tokens)
    if refresh:
        matching.refresh(units)
    return matching.loss(units)


def test_the_differentiable_edge_is_the_edge(victim, images):
    pipeline = pipeline_of(victim)
    pixels = images.images().requires_grad_(True)
    batch = pipeline.edge_tokens(pixels)
    assert torch.allclose(batch.tokens.detach(), pipeline.encode(images, RNG).decoded.tokens, atol=1e-5)
    batch.tokens.square().sum().backward()
    assert bool((pixels.grad.abs().amax(dim=(1, 2, 3)) > 0).all())
    parameters = list(victim.model.parameters())
    assert all(p.grad is None for p in parameters)
    assert all(p.requires_grad for p in parameters)


def test_the_edge_is_for_white_boxes_and_optional(victim, images):
    with pytest.raises(AccessDeniedError, match="weights"):
        view_of(victim, ThreatModel(victim="query")).edge_tokens(images.images())

    class Closed(Defense):
        name = "closed"
        encode = send = respond = None

    Closed.__abstractmethods__ = frozenset()
    with pytest.raises(ConfigError, match="edge_tokens"):
        differentiable(Closed())


def test_known_masses_follow_the_merge_map():
    merge_map = torch.tensor([[1, 2, 2, -1]])
    seen = Observation(torch.zeros(3, 2), torch.tensor([3]), 1, (2, 2), merge_map=merge_map)
    expected = torch.tensor([[[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]]).float()
    assert torch.equal(known_mass(seen, 4, 1), expected)
    # Where the place of protected tokens was withheld, nothing is made up about them.
    hidden = Observation(torch.zeros(3, 2), torch.tensor([3]), 0, (2, 2), merge_map=merge_map - 1)
    assert known_mass(hidden, 4, 1)[0, :, 0].sum() == 0


def test_transport_keeps_its_bounds_and_ignores_padding():
    cost = torch.rand(3, 5, 8, generator=RNG.child("cost").torch())
    sizes = torch.tensor([[4.0, 2, 2, 0, 0], [1, 1, 1, 1, 4], [2, 2, 2, 2, 0]])
    mass = transport(cost, sizes, sizes, torch.tensor([True] * 3), 0.05)
    assert torch.allclose(mass.sum(dim=2), sizes, atol=0.1)
    assert torch.allclose(mass.sum(dim=1), torch.ones(3, 8), atol=1e-4)
    alone = transport(cost[1:2], sizes[1:2], sizes[1:2], torch.tensor([True]), 0.05)
    assert torch.allclose(alone[0], mass[1], atol=1e-6)
    # Dropping: three tokens of one patch each, five patches go nowhere.
    ones = torch.tensor([[1.0, 1, 1, 0, 0]]).expand(3, -1)
    kept = transport(cost, ones, ones, torch.tensor([False] * 3), 0.05)
    assert torch.allclose(kept.sum(dim=2), ones, atol=0.02)
    assert float(kept.sum(dim=1).max()) < 1.0001
    # Sizes withheld: every token stands for one patch at least, and all patches went somewhere.
    free = transport(cost, ones, 8 * ones, torch.tensor([True] * 3), 0.05)
    assert float(free[:, :3].sum(dim=2).min()) > 0.95
    assert torch.allclose(free.sum(dim=1), torch.ones(3, 8), atol=1e-4)


def test_transport_finds_a_permutation():
    order = torch.randperm(12, generator=RNG.child("order").torch())
    points = torch.randn(12, 4, generator=RNG.child("points").torch())
    ones = torch.ones(1, 12)
    mass = transport(torch.cdist(points[order], points)[None], ones, ones, torch.tensor([True]), 0.02)
    assert torch.equal(mass[0].argmax(dim=1), order)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_the_loss_is_zero_at_the_true_image_of_an_unreduced_payload(victim, images, profile, distance):
    for model in (OPEN, SIGHTED, BLIND):
        matching = Matching(profile, seen_of(victim, images, model), distance=distance, temperature=0.01)
        truth = loss_at(victim, matching, images.images())
        grey = loss_at(victim, matching, torch.full_like(images.images(), 0.5))
        assert float(truth.max()) < (1e-3 if model is BLIND else 1e-6)
        assert bool((grey > 0.05).all())


def test_the_loss_is_zero_at_the_true_image_of_pooled_tokens_with_a_known_map(victim, images, profile):
    merge_map = torch.arange(16).div(2, rounding_mode="floor").add(1).expand(6, -1)
    tokens = pipeline_of(victim).edge_tokens(images.images()).tokens.view(6, 17, -1).detach()
    pooled = torch.cat([tokens[:, :1], tokens[:, 1:].unflatten(1, (8, 2)).mean(dim=2)], dim=1)
    seen = Observation(pooled.flatten(0, 1), torch.full((6,), 9), 1, (4, 4), merge_map=merge_map)
    assert float(loss_at(victim, Matching(profile, seen), images.images()).max()) < 1e-6


@pytest.mark.parametrize("model", [OPEN, BLIND, SIGHTED], ids=["order", "no order", "merge map"])
def test_the_loss_is_small_at_the_true_image_of_a_merged_payload(victim, images, profile, model):
    seen = seen_of(victim, images, model, **MERGED)
    assert int(seen.lengths.min()) < 17
    matching = Matching(profile, seen)
    truth = loss_at(victim, matching, images.images())
    other = loss_at(victim, matching, images.images().roll(1, 0))
    assert bool((truth < 0.25 * other).all())


def test_protected_tokens_keep_their_place(victim, images, profile):
    matching = Matching(profile, seen_of(victim, images, **MERGED))
    assert torch.allclose(matching.mass[:, 0, 0], torch.ones(6), atol=1e-3)
    assert float(matching.mass[:, 0, 1:].max()) < 1e-3
    assert float(matching.mass[:, 1:, 0].max()) < 1e-3


def test_a_shuffling_pipeline_is_found_out(victim):
    few = pictures(96, "auxiliary")
    assert EdgeProfile.learn(view_of(victim), few).laid_in_order
    assert not EdgeProfile.learn(view_of(victim, perturb=["shuffle"]), few).laid_in_order
    dropping = {"reduction": {"name": "random_drop", "match": {"name": "threshold", "thresholds": 0.9}}}
    assert EdgeProfile.learn(view_of(victim, **dropping), few).drops
    assert not EdgeProfile.learn(view_of(victim, **MERGED), few).drops


def test_tokens_tell_their_places_and_pixels(victim, images, profile):
    units = profile.standardise(pipeline_of(victim).edge_tokens(images.images()).tokens.view(6, 17, -1)).detach()
    cost = profile.place_cost(units)
    assert float((cost.argmin(dim=2) == torch.arange(17)).float().mean()) > 0.8
    far = (images.images() - images.images().mean(dim=0)).square().mean()
    assert float((profile.guess(units) - images.images()).square().mean()) < 0.3 * float(far)


def test_priors_know_flat_images_and_seams():
    flat, striped = torch.full((1, 3, 8, 8), 0.3), torch.zeros(1, 3, 8, 8)
    striped[..., 4:] = 1.0
    images = torch.cat([flat, striped])
    assert total_variation(images)[0] < 1e-3 < total_variation(images)[1]
    assert patch_seams(images, (2, 2)).tolist() == pytest.approx([0.0, 1.0])
    inside = striped.roll(2, 3)
    assert float(patch_seams(inside, (2, 2))) == pytest.approx(0.0)


def test_gradients_are_clipped_by_the_image():
    gradients = torch.stack([torch.full((3, 2, 2), 10.0), torch.full((3, 2, 2), 0.01)])
    short = clipped(gradients, 1.0)
    assert float(short[0].norm()) == pytest.approx(1.0)
    assert torch.equal(short[1], gradients[1])


class ShapedView:
    """An edge that hands out pixels as tokens, one a patch."""

    def edge_tokens(self, images):
        return TokenBatch.from_uniform(images.flatten(2).transpose(1, 2), 0)


class PixelMatching:
    """Squared distance of the mean pixel from a target; rows are images."""

    def __init__(self, target):
        self.target = target

    def units(self, tokens):
        return tokens.view(len(self.target), -1, 3)

    def refresh(self, units):
        pass

    def loss(self, units):
        return (units.mean(dim=1) - self.target).square().sum(dim=1)


def test_descent_returns_the_iterate_with_the_lowest_observation_loss():
    target = torch.tensor([[0.2, 0.5, 0.8], [0.9, 0.1, 0.4]])
    pixels = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    # A rate so large that the last iterate is not the best.
    done = descend(
        ShapedView(), PixelMatching(target), [pixels], lambda: pixels, lambda x: x.new_zeros(len(x)), Descent(60, 0.3)
    )
    assert torch.allclose(done.losses, done.history.min(dim=0).values)
    assert torch.allclose((done.images.mean(dim=(2, 3)) - target).square().sum(dim=1), done.losses, atol=1e-6)


def test_restarts_are_chosen_by_loss_image_by_image(victim, images):
    losses = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 9.0])  # three restarts of two images
    assert best_rows(losses, 3).tolist() == [2, 1]
    twice = repeated(seen_of(victim, images, **MERGED), 2)
    assert torch.equal(twice.lengths[:6], twice.lengths[6:])
    assert torch.equal(twice.select([1]).tokens, twice.select([7]).tokens)


def test_a_descent_cut_short_is_doubted():
    steps = torch.arange(200.0)[:, None]
    assert late_fall((-steps / 20).exp() + 0.1) is None
    assert "still lowered" in late_fall((-steps / 200).exp())


def test_made_up_images_use_the_whole_range():
    images = made_up_images(8, SHAPE, RNG)
    assert images.pixels.shape == (8, *SHAPE)
    assert int(images.pixels.max()) - int(images.pixels.min()) > 128
    assert len(set(images.ids)) == 8
