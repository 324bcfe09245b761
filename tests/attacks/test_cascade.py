"""The cascade: its closed forms against brute force, its steps, and what it rebuilds of a real edge."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from photo_views import RNG, few_images, seen_by_attacker, view_of

from leakgauge.attacks import cascade
from leakgauge.attacks.cascade import Cascade
from leakgauge.attacks.ridge import Ridge
from leakgauge.attacks.training.context_features import Scaling, context_of, laid
from leakgauge.attacks.training.folded_ridge import Features, FoldedRidge, LinearMap, Sums
from leakgauge.attacks.training.loop import mean_psnr_db
from leakgauge.harness.measurement.convergence import data_limited
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation

MAP_TOLD = ThreatModel(knows={"merge_map": True})


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def plain(x: torch.Tensor) -> Features:
    """Features of places alone."""
    return Features(x, x.new_zeros(len(x), 0))


def solved_by_hand(x: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """Returns weights of features (B, N, F) beside a one-hot position, which is not penalised."""
    count, places, width = x.shape
    one_hot = torch.eye(places, dtype=torch.float64).expand(count, -1, -1)
    full = torch.cat([x.double(), one_hot], dim=2).flatten(0, 1)
    centred = x.double() - x.double().mean(dim=0)
    scale = penalty * centred.flatten(0, 1).square().sum() / width
    ridge = torch.diag(torch.cat([torch.full((width,), float(scale)), torch.zeros(places)]).double())
    return torch.linalg.solve(full.T @ full + ridge, full.T @ y.double().flatten(0, 1))


def test_every_place_has_its_own_bias_and_all_share_the_weights():
    x, y = rows(30, 4, 3), rows(30, 4, 2) + torch.arange(4)[:, None]
    found = Sums.of(plain(x), y).solved((1e-2,))[0]
    expected = solved_by_hand(x, y, 1e-2).float()
    torch.testing.assert_close(found.weights, expected[:3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.bias, expected[3:], atol=1e-5, rtol=1e-4)


def test_the_error_of_a_map_follows_from_sums():
    x, y = rows(20, 4, 3), rows(20, 4, 2)
    one = LinearMap(rows(3, 2), rows(4, 2))
    assert Sums.of(plain(x), y).error(one) == pytest.approx(
        float((one(plain(x)) - y).double().square().sum()), rel=1e-5
    )


def test_what_is_told_of_an_image_comes_from_a_fit_without_it():
    x, y, folds = rows(24, 4, 3), rows(24, 4, 2), torch.arange(24) % 3
    ridge = FoldedRidge(3, (1e-3,))
    for part in (slice(0, 10), slice(10, 24)):
        ridge.add(plain(x[part]), y[part], folds[part])
    whole, of_the_rest = ridge.solve()
    for fold, one in enumerate(of_the_rest):
        rest = Sums.of(plain(x[folds != fold]), y[folds != fold]).solved((1e-3,))[0]
        torch.testing.assert_close(one(plain(x)), rest(plain(x)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.weights, Sums.of(plain(x), y).solved((1e-3,))[0].weights, atol=1e-5, rtol=1e-4)


def test_a_guess_about_an_own_image_comes_from_maps_that_never_saw_it():
    x, y, folds = rows(24, 4, 30), rows(24, 4, 2), torch.arange(24) % 4
    attack, ridge = Cascade(), FoldedRidge(4, cascade.PENALTIES)
    ridge.add(plain(x), y, folds)
    whole, given = attack._solved(lambda images: plain(x[images]), y, folds)
    for fold, one in enumerate(ridge.solve()[1]):
        torch.testing.assert_close(given[folds == fold], one(plain(x[folds == fold])))
    assert (whole(plain(x)) - y).square().mean() < (given - y).square().mean() / 2, "its own fit would look far better"


def test_the_penalty_is_that_which_is_best_on_images_left_out():
    x, folds = rows(40, 2, 30), torch.arange(40) % 4
    noise = FoldedRidge(4, (1e-7, 10.0))
    noise.add(plain(x), rows(40, 2, 3), folds)
    assert noise.solve()[0].weights.abs().max() < 0.1, "nothing can be told from noise"
    signal = FoldedRidge(4, (1e-7, 10.0))
    wanted = x[:, :, :3]
    signal.add(plain(x), wanted, folds)
    torch.testing.assert_close(signal.solve()[0](plain(x)), wanted, atol=1e-3, rtol=1e-3)


def test_clusters_of_dependent_images_are_left_out_together():
    pixels = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)
    groups = torch.arange(20) // 4
    folds = cascade._folds(ImageSet(pixels, tuple(map(str, range(20))), None, groups), RNG)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in range(5))
    assert len(set(folds.tolist())) == cascade.FOLDS


def test_a_patch_is_seen_with_its_neighbours():
    tokens = torch.arange(7.0)[:, None]  # a protected one, and 2 x 3 patches
    seen = Observation(tokens, torch.tensor([7]), 1, (2, 3))
    found = context_of(laid(seen, Scaling(torch.zeros(1), torch.ones(1))), (2, 3))
    #                                own, above, below, left, right
    assert found.local[0, 0].tolist() == [1, 0, 4, 0, 2]
    assert found.local[0, 4].tolist() == [5, 2, 0, 4, 6]
    #                          mean, protected
    assert found.whole[0].tolist() == [3.5, 0]


def test_what_is_the_same_at_all_places_is_summed_once_and_counts_at_each():
    local, whole, y = rows(30, 4, 3), rows(30, 2), rows(30, 4, 2)
    spread = torch.cat([local, whole[:, None].expand(-1, 4, -1)], dim=2)
    apart, together = Sums.of(Features(local, whole), y), Sums.of(plain(spread), y)
    torch.testing.assert_close(apart.gram, together.gram)
    torch.testing.assert_close(apart.cross, together.cross)
    torch.testing.assert_close(apart.x, together.x)
    one = together.solved((1e-3,))[0]
    torch.testing.assert_close(one(Features(local, whole)), one(plain(spread)), atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def auxiliary() -> ImageSet:
    return few_images()


@pytest.fixture(scope="module")
def fitted(victim, auxiliary):
    attack = Cascade(stages=2)
    view = view_of(victim)
    attack.fit(view, auxiliary, RNG)
    return attack, view


def test_each_stage_rebuilds_more_than_the_last_and_all_more_than_ridge(victim, photographs, auxiliary, fitted):
    attack, view = fitted
    seen, truth = seen_by_attacker(victim, photographs), photographs.images()
    ridge = Ridge()
    ridge.fit(view, auxiliary, RNG)
    reached = [mean_psnr_db(ridge.reconstruct(seen, RNG), truth)]
    stages = attack._stages
    for count in range(len(stages) + 1):
        attack._stages = stages[:count]
        reached.append(mean_psnr_db(attack.reconstruct(seen, RNG), truth))
    assert len(stages) == 2
    assert all(after > before + 1 for before, after in pairwise(reached)), reached
    assert stages[0].gain_db == pytest.approx(reached[2] - reached[1], abs=1), "left-out images tell the gain"


def test_the_same_images_give_the_same_maps(victim, auxiliary):
    found = []
    for _ in range(2):
        attack = Cascade(stages=1)
        attack.fit(view_of(victim), auxiliary.select(range(0, 308, 4)), RNG)
        found.append(attack._stages[0].step)
    assert torch.equal(found[0].weights, found[1].weights)
    assert torch.equal(found[0].bias, found[1].bias)


def test_images_do_not_mix(victim, photographs, fitted):
    seen = seen_by_attacker(victim, photographs)
    whole, order = (
        fitted[0].reconstruct(seen, RNG),
        torch.randperm(len(photographs), generator=RNG.child("order").torch()),
    )
    torch.testing.assert_close(fitted[0].reconstruct(seen.select(order), RNG), whole[order], atol=0.01, rtol=0)


def test_what_it_shows_the_edge_is_forgotten(auxiliary, fitted):
    kept = fitted[1]._lines["own"]._encoded
    assert list(kept) == [auxiliary.digest()]


def test_a_step_that_explains_less_is_taken_back(victim, photographs, fitted, monkeypatch):
    attack, seen = fitted[0], seen_by_attacker(victim, photographs)
    observed = attack._laid(seen)
    first = attack._looked_at(attack._first(context_of(observed, (8, 8))))
    astray = first.patches + 0.5 * torch.sign(0.5 - first.patches)
    after = attack._moved(first, astray - first.patches, observed)
    assert torch.equal(after.patches, first.patches)
    assert torch.equal(after.seen, first.seen)


def test_with_the_merge_map_told_merged_payloads_are_descended_too(victim, photographs, auxiliary):
    merge = {"reduction": {"name": "threshold", "thresholds": 0.9}}
    attack = Cascade(stages=1)
    attack.fit(view_of(victim, MAP_TOLD, **merge), auxiliary.select(range(0, 308, 2)), RNG)
    seen, truth = seen_by_attacker(victim, photographs, MAP_TOLD, **merge), photographs.images()
    reached, stages = mean_psnr_db(attack.reconstruct(seen, RNG), truth), attack._stages
    attack._stages = []
    assert len(stages) == 1
    assert reached > mean_psnr_db(attack.reconstruct(seen, RNG), truth) + 0.2


def test_noise_is_looked_at_several_times(victim, auxiliary):
    view = view_of(victim, perturb=[{"name": "gaussian", "strength": 0.4}])
    attack = Cascade(stages=1)
    few = auxiliary.select(range(24))
    attack.fit(view, few, RNG)
    patches = cascade.patches_of(few.images(), view.grid)
    clean = attack._laid(view_of(victim).observe(few))
    near = (attack._looked_at(patches).seen - clean).square().mean()
    once = (attack._laid(view.branch().observe(few, 1)) - clean).square().mean()
    assert near < once / 2


def test_one_image_to_fit_on_is_too_few_to_tell(victim, auxiliary):
    alone = auxiliary.select([0])
    attack = Cascade(stages=1)
    attack.fit(view_of(victim), alone, RNG)
    told = data_limited(None, Cascade, view_of(victim), alone, RNG)
    assert "too few" in told.why
