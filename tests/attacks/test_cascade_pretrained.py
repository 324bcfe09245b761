"""The cascade that starts from shipped weights: for whom they are, what they never saw, and what they are worth."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from photo_views import MERGE, RNG, WHITE_BOX, few_images, seen_by_attacker, view_of

from leakgauge.attacks import cascade_merged
from leakgauge.attacks.cascade_merged import CascadeMerged
from leakgauge.attacks.cascade_pretrained import CascadePretrained
from leakgauge.attacks.training.loop import mean_psnr_db
from leakgauge.attacks.training.pretrained_places import FOLDER, NAME, for_maps, pretrained_places, record_of
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.measurement.convergence import Gradients, unconverged
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import CurvePoint, LearningCurve, convergence_failure

CUT = {"cut": 3}


@pytest.fixture(scope="module")
def auxiliary() -> ImageSet:
    return few_images()


def test_the_weights_are_small_and_their_record_names_the_victim(victim):
    record = json.loads((FOLDER / f"{NAME}.training.json").read_text(encoding="utf-8"))
    assert record["victim"] == victim.weights_hash
    assert record["curve"][-1]["threshold_0.90"] > record["curve"][0]["threshold_0.90"]
    assert (FOLDER / f"{NAME}.safetensors").stat().st_size < 8e6


def test_no_part_of_a_cluster_was_learned_from_where_maps_are_fitted(auxiliary):
    kept = for_maps(auxiliary)
    groups = auxiliary.groups
    assert not set(groups[kept].tolist()) & set(groups[~kept].tolist())
    assert 0.15 < float(kept.float().mean()) < 0.35
    # Whatever part of the images is granted, the same ones are kept.
    rows = torch.arange(0, len(auxiliary), 3)
    assert torch.equal(for_maps(auxiliary.select(rows)), kept[rows])


def test_fine_tuning_and_maps_keep_to_their_images(victim, auxiliary, monkeypatch):
    learned, descended = [], []

    def train(network, view, images, *args, split, **rest):
        learned.extend(split.train.tolist())

    monkeypatch.setattr(cascade_merged, "train", train)
    monkeypatch.setattr(
        CascadeMerged, "_descend", lambda self, view, images, seen, rng: descended.extend(images.groups.tolist())
    )
    CascadePretrained().fit(view_of(victim, WHITE_BOX, **MERGE, **CUT), auxiliary, RNG)
    kept = for_maps(auxiliary)
    assert not bool(kept[learned].any())
    assert set(descended) == set(auxiliary.groups[kept].tolist())


def test_another_victim_is_refused_by_name(victim):
    other = replace(victim, weights_hash="f" * 16)
    with pytest.raises(ConfigError, match="this is ffffffffffffffff -- use cascade_merged"):
        pretrained_places(view_of(other, WHITE_BOX, **MERGE, **CUT), few_images())


@pytest.mark.parametrize("cut", [2, 4])
def test_another_cut_of_the_victim_is_refused(victim, auxiliary, cut):
    with pytest.raises(ConfigError, match="trained for cut 3, this victim is cut elsewhere -- use cascade_merged"):
        pretrained_places(view_of(victim, WHITE_BOX, **MERGE, cut=cut), auxiliary)


@pytest.mark.parametrize("steps", [100, 600])
def test_no_length_of_fine_tuning_makes_it_conclusive(steps):
    flat = LearningCurve(steps, [CurvePoint(step, 0.1, 25.0) for step in range(steps // 5, steps + 1, steps // 5)])
    flat.compare(CurvePoint(steps // 2, 0.1, 25.0), CurvePoint(steps // 4, 0.1, 25.0))
    assert convergence_failure(flat, 100) is None
    said = unconverged(CascadePretrained(steps), flat, Gradients(), lambda: None)
    assert said is not None
    assert said.why
    assert said.could_gain_db is None


def test_too_few_images_are_refused(victim, auxiliary):
    with pytest.raises(ConfigError, match="too few"):
        CascadePretrained().fit(view_of(victim, WHITE_BOX, **MERGE, **CUT), auxiliary.select([0]), RNG)


def test_it_starts_far_ahead_of_one_that_trains_its_own(victim, auxiliary, photographs):
    truth, reached = photographs.images(), []
    seen = seen_by_attacker(victim, photographs, WHITE_BOX, **MERGE, **CUT)
    for attack in (CascadePretrained(steps=8, stages=1, double_check=False), CascadeMerged(steps=40, stages=1)):
        attack.fit(view_of(victim, WHITE_BOX, **MERGE, **CUT), auxiliary, RNG)
        reached.append(mean_psnr_db(attack.reconstruct(seen, RNG), truth))
    assert record_of()["steps"] > 1000
    assert reached[0] > reached[1] + 1
