"""The cascade on merged payloads: how tokens are laid, who learns from which images, and what it rebuilds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from photo_views import MERGE, RNG, WHITE_BOX, few_images, seen_by_attacker, view_of

from leakgauge.attacks import cascade_merged
from leakgauge.attacks.cascade import Cascade
from leakgauge.attacks.cascade_merged import CascadeMerged
from leakgauge.attacks.networks.set_network import SeekingNetwork
from leakgauge.attacks.training.context_features import Scaling, laid
from leakgauge.attacks.training.layout import token_statistics
from leakgauge.attacks.training.loop import mean_psnr_db
from leakgauge.attacks.training.soft_places import soft_places, softly_laid
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation

SHORT = {"steps": 120, "width": 48, "double_check": False}


@pytest.fixture(scope="module")
def auxiliary() -> ImageSet:
    return few_images()


@pytest.fixture(scope="module")
def watched(victim, auxiliary) -> Observation:
    """What the attacker sees of 24 own images, with their merge maps."""
    return view_of(victim, WHITE_BOX, **MERGE).trace(auxiliary.select(range(24)))


def network_for(seen: Observation) -> SeekingNetwork:
    torch.manual_seed(0)
    return SeekingNetwork(*token_statistics(seen), (3, 64, 64), (8, 8), width=16, layers=1, heads=2)


def without_map(seen: Observation, **changes: object) -> Observation:
    kept = {"sizes": seen.sizes, "prefix": seen.prefix, "ordered": True, **changes}
    return Observation(seen.tokens, seen.lengths, kept["prefix"], seen.grid, kept["sizes"], ordered=kept["ordered"])


def test_tokens_go_to_as_many_patches_as_they_stand_for(watched):
    seen = without_map(watched)
    places = soft_places(network_for(watched), seen)  # (B, N, L)
    sizes, _ = seen.as_batch().with_tokens(seen.sizes.float()[:, None]).padded(places.shape[2])
    sizes[:, : seen.prefix] = 0
    torch.testing.assert_close(places.sum(dim=1), sizes[..., 0], atol=0.05, rtol=0.01)
    torch.testing.assert_close(places.sum(dim=2), torch.ones(24, 64), atol=1e-3, rtol=0)


def test_without_sizes_every_patch_gets_one_token_in_all(watched):
    places = soft_places(network_for(watched), without_map(watched, sizes=None))
    torch.testing.assert_close(places.sum(dim=2), torch.ones(24, 64), atol=1e-5, rtol=0)
    mask = watched.as_batch().padded(places.shape[2])[1]
    assert float(places[~mask[:, None].expand_as(places)].abs().max()) < 1e-6, "nothing is laid from padding"


class Claims:
    """Stands for a network whose positions all but refuse the first token."""

    mean = torch.zeros(1)

    def place(self, observations: Observation) -> SimpleNamespace:
        logits = torch.zeros(len(observations), 64, int(observations.lengths.max()))
        logits[..., 0] = -20.0
        return SimpleNamespace(logits=logits)


def test_protected_tokens_that_cannot_be_told_apart_are_not_forced_on_patches():
    # A protected token and 63 others of which one stands for two patches, the order withheld.
    sizes = torch.cat([torch.ones(63), torch.tensor([2])]).long()
    seen = Observation(torch.zeros(64, 1), torch.tensor([64]), 0, (8, 8), sizes, ordered=False)
    places = soft_places(Claims(), seen)
    torch.testing.assert_close(places.sum(dim=2), torch.ones(1, 64), atol=1e-3, rtol=0)
    assert float(places[..., 0].sum()) < 0.05


def test_certain_places_lay_what_the_map_tells(watched):
    length = int(watched.lengths.max())
    certain = torch.nn.functional.one_hot(watched.merge_map, length).float()
    scaling = Scaling.of(watched)
    torch.testing.assert_close(softly_laid(watched, certain, scaling), laid(watched, scaling))


def test_a_set_of_withheld_order_gets_the_same_places_in_any_order(watched):
    network, seen = network_for(watched), without_map(watched, prefix=0, ordered=False)
    one = seen.select([0])
    order = torch.randperm(len(one.tokens), generator=RNG.child("order").torch())
    turned = Observation(one.tokens[order], one.lengths, 0, one.grid, one.sizes[order], ordered=False)
    torch.testing.assert_close(soft_places(network, turned), soft_places(network, one)[:, :, order], atol=1e-4, rtol=0)


def test_places_and_maps_are_learned_from_clusters_of_their_own():
    pixels, groups = torch.zeros(40, 3, 4, 4, dtype=torch.uint8), torch.arange(40) // 4
    parts = CascadeMerged()._parts(ImageSet(pixels, tuple(map(str, range(40))), None, groups), RNG)
    assert sorted([*parts.train.tolist(), *parts.heldout.tolist()]) == list(range(40))
    assert not set(groups[parts.train].tolist()) & set(groups[parts.heldout].tolist())
    assert len(parts.heldout) == 8


def test_maps_see_only_images_that_the_places_did_not(victim, auxiliary, monkeypatch):
    learned, descended = [], []
    real = CascadeMerged._descend

    def watch(self, view, images, seen, rng):
        descended.extend(images.ids)
        real(self, view, images, seen, rng)

    def train(network, view, images, *args, split, **rest):
        learned.extend(images.ids[row] for row in split.train.tolist())

    monkeypatch.setattr(CascadeMerged, "_descend", watch)
    monkeypatch.setattr(cascade_merged, "train", train)
    CascadeMerged(stages=1).fit(view_of(victim, WHITE_BOX, **MERGE), auxiliary.select(range(80)), RNG)
    assert learned
    assert descended
    assert not set(learned) & set(descended)


@pytest.fixture(scope="module")
def fitted(victim, auxiliary) -> CascadeMerged:
    attack = CascadeMerged(**SHORT)
    attack.fit(view_of(victim, WHITE_BOX, **MERGE), auxiliary, RNG)
    return attack


def test_it_rebuilds_more_than_a_cascade_that_trusts_the_layout(victim, auxiliary, photographs, fitted):
    naive = Cascade(stages=1)
    naive.fit(view_of(victim, WHITE_BOX, **MERGE), auxiliary, RNG)
    seen, truth = seen_by_attacker(victim, photographs, WHITE_BOX, **MERGE), photographs.images()
    rebuilt = mean_psnr_db(fitted.reconstruct(seen, RNG), truth)
    assert rebuilt > mean_psnr_db(naive.reconstruct(seen, RNG), truth) + 0.5
    fitted_stages, fitted._stages = fitted._stages, []
    first = mean_psnr_db(fitted.reconstruct(seen, RNG), truth)
    fitted._stages = fitted_stages
    assert rebuilt >= first - 0.05


def test_it_uses_a_map_that_is_told(victim, photographs, fitted):
    told = ThreatModel(victim="white-box", knows={"merge_map": True})
    truth = photographs.images()
    blind, sighted = (seen_by_attacker(victim, photographs, model, **MERGE) for model in (WHITE_BOX, told))
    gain = mean_psnr_db(fitted.reconstruct(sighted, RNG), truth) - mean_psnr_db(fitted.reconstruct(blind, RNG), truth)
    assert gain > 0.5


def test_payloads_of_withheld_order_and_sizes_are_taken(victim, auxiliary, photographs):
    blind = ThreatModel(victim="white-box", knows={"sizes": False, "order": False})
    attack = CascadeMerged(steps=6, width=16, layers=1, stages=1)
    attack.fit(view_of(victim, blind, **MERGE), auxiliary.select(range(100)), RNG)
    rebuilt = attack.reconstruct(seen_by_attacker(victim, photographs, blind, **MERGE), RNG)
    assert rebuilt.shape == (32, 3, 64, 64)
    assert float(rebuilt.std()) > 0


def test_dropped_patches_are_nobody_s(victim, auxiliary, photographs):
    drop = {"reduction": {"name": "random_drop", "match": {"name": "threshold", "thresholds": 0.9}}}
    attack = CascadeMerged(steps=6, width=16, layers=1, stages=1)
    attack.fit(view_of(victim, WHITE_BOX, **drop), auxiliary.select(range(100)), RNG)
    assert torch.isfinite(attack.reconstruct(seen_by_attacker(victim, photographs, WHITE_BOX, **drop), RNG)).all()


def test_heads_that_do_not_part_the_width_are_refused():
    with pytest.raises(ConfigError, match="write width: 52"):
        CascadeMerged(width=50, heads=4)
