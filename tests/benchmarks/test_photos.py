"""The embedded task: splits that share no pixel, and a victim as accurate as its record says."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from leakgauge.benchmarks.tasks.photo_crops.attributes import brightness, detail
from leakgauge.benchmarks.tasks.photo_crops.crops import (
    CLASSES,
    GUARD_PX,
    PHOTOGRAPHS,
    SCENES,
    cut_crops,
    lit_side,
    tiles,
)
from leakgauge.benchmarks.tasks.photo_crops.photos import Photos, crop_set
from leakgauge.benchmarks.victims.photos_vit import WEIGHTS
from leakgauge.harness.errors import DataError
from leakgauge.harness.measurement.near_duplicates import check_disjoint
from leakgauge.harness.scoring.attributes import informed_guess
from leakgauge.harness.values.images import SPLITS, ImageSet
from leakgauge.harness.values.seeding import Streams

VICTIMS = Path(__file__).parents[2] / "benchmarks" / "victims"


def test_there_are_enough_photographs_and_crops():
    assert len(PHOTOGRAPHS) >= 12
    assert len(crop_set("attacker")) >= 6000
    assert len(crop_set("evaluation")) >= 500
    for split in SPLITS:
        counts = torch.bincount(crop_set(split).labels, minlength=len(CLASSES))
        assert int(counts.min()) == int(counts.max()), "classes are balanced"
        assert len(set(crop_set(split).ids)) == len(crop_set(split))


def test_tiles_are_apart_by_the_guard_band():
    for one, other in combinations(tiles(), 2):
        if one.photograph == other.photograph:
            rows = max(one.top, other.top) - min(one.top + one.height, other.top + other.height)
            columns = max(one.left, other.left) - min(one.left + one.width, other.left + other.width)
            assert max(rows, columns) >= GUARD_PX


def test_splits_are_disjoint_by_tile_and_content():
    groups = {split: set(crop_set(split).groups.tolist()) for split in SPLITS}
    contents = {split: set(crop_set(split).ids) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not groups[one] & groups[other]
        assert not contents[one] & contents[other]


@pytest.mark.slow
def test_splits_are_disjoint_by_likeness():
    check_disjoint({split: crop_set(split) for split in SPLITS})


def test_labels_say_scene_and_lit_side():
    for split in ("evaluation", "attacker"):
        images = crop_set(split)
        for i in range(0, len(images), 37):
            label = int(images.labels[i])
            assert lit_side(images.pixels[i].permute(1, 2, 0).numpy()) == label % 4
            scene = tiles()[int(images.groups[i])].photograph
            assert CLASSES[label].startswith(SCENES[scene] + "/")


def test_crops_are_the_same_every_time():
    one, other = (cut_crops("search", 1, Streams(5), augment=True) for _ in range(2))
    assert all(np.array_equal(a.pixels, b.pixels) and a.label == b.label for a, b in zip(one, other, strict=True))


def test_evaluation_crops_are_the_photographs_own_pixels():
    from leakgauge.benchmarks.tasks.photo_crops.crops import load_photograph

    crop = cut_crops("evaluation", 1, Streams(0), augment=False)[0]
    tile = tiles()[crop.tile]
    area = load_photograph(PHOTOGRAPHS[tile.photograph])[tile.top : tile.top + tile.height, tile.left :][
        :, : tile.width
    ]
    windows = np.lib.stride_tricks.sliding_window_view(area, (64, 64, 3))[..., 0, :, :, :]
    turned = [np.rot90(crop.pixels.transpose(1, 2, 0), k) for k in range(4)]
    assert any((windows == candidate).all(axis=(2, 3, 4)).any() for candidate in turned)


def test_the_victim_is_as_accurate_as_recorded(victim):
    record = json.loads((VICTIMS / WEIGHTS).with_suffix(".training.json").read_text())
    assert record["weights_hash"] == victim.weights_hash
    assert record["curve"][-1]["search_accuracy"] >= record["curve"][0]["search_accuracy"]
    assert (VICTIMS / WEIGHTS).stat().st_size <= 8_000_000
    task, images = Photos(), crop_set("evaluation")
    with torch.no_grad():
        output = torch.cat([victim.predict(b.images()) for b in images.batches(64)])
    accuracy = float(task.quality(output, task.target(images)).mean())
    # One image in 560 may fall the other way on another machine's arithmetic.
    assert accuracy == pytest.approx(record["evaluation_accuracy"], abs=2.5 / 560)
    assert accuracy > 0.8


def test_attributes_are_balanced_in_every_scene_and_not_given_away_by_the_class():
    task = Photos()
    public, images = crop_set("attacker"), crop_set("evaluation")
    scenes = public.labels // 4
    for name, values in task.attributes(public).items():
        assert values.dtype == torch.int64
        assert set(values.tolist()) == {0, 1}
        shares = torch.stack([values[scenes == scene].float().mean() for scene in range(len(SCENES))])
        assert (shares - 0.5).abs().max() < 0.005, (name, shares)
        assert 0.3 < task.attributes(images)[name].float().mean() < 0.7
    # What a guess by the class reaches on the evaluation crops is near one half.
    for name, known in task.attributes(public).items():
        guess = informed_guess(known, public.labels, task.attributes(images)[name], images.labels, 2)
        assert guess.accuracy < 0.6, name
        assert guess.auc < 0.6, name


def test_attributes_measure_what_they_say():
    images = crop_set("evaluation")
    found = Photos().attributes(images)
    assert sorted(found) == ["brightness", "detail"]
    gray = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
    for i in (0, 111, 333):
        pixels = images.pixels[i].double()
        assert float(brightness(images.pixels[i : i + 1])) == pytest.approx(float(pixels.mean()) * 3 * 64 * 64)
        luminance = (pixels * gray).sum(dim=0)
        kernel = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=torch.float64)
        edges = torch.nn.functional.conv2d(luminance[None, None], kernel[None, None]).abs().sum()
        assert float(detail(images.pixels[i : i + 1])) == pytest.approx(1000 * float(edges))


def test_attributes_depend_on_nothing_but_the_crop():
    task, images = Photos(), crop_set("evaluation").select(range(0, 560, 40))
    together = task.attributes(images)
    alone = [task.attributes(images.select([i])) for i in range(len(images))]
    turned = ImageSet(images.pixels.rot90(1, (2, 3)), images.ids, images.labels)
    for name, values in together.items():
        assert [int(one[name]) for one in alone] == values.tolist()
        assert torch.equal(task.attributes(turned)[name], values)
        assert torch.equal(task.attributes(images)[name], values)


def test_attributes_of_crops_without_a_class_are_refused():
    images = crop_set("evaluation").select([0])
    with pytest.raises(DataError, match="carry no class"):
        Photos().attributes(ImageSet(images.pixels, images.ids))


def test_the_shifted_domain_shares_nothing_with_the_photographs():
    shifted = Photos().shifted()
    assert len(set(shifted.ids)) == len(shifted) == 1200
    assert shifted.labels is None
    assert abs(float(shifted.pixels.float().mean()) - float(crop_set("attacker").pixels.float().mean())) > 1
    check_disjoint({"shifted": shifted, "evaluation": crop_set("evaluation")})
