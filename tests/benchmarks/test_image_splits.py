"""Dividing images: order, counts, clusters; and matching folders with the classes of a head."""

import pytest

from leakgauge.benchmarks.tasks.own_images.head_classes import match_head
from leakgauge.benchmarks.tasks.own_images.image_splits import assign, split_counts, stratified_order
from leakgauge.harness.errors import DataError


def test_clusters_stay_whole_and_the_last_resort_is_to_cut_one():
    clusters = [[0, 1, 2], [3], [4], [5, 6]]
    assert assign(clusters, {"a": 2, "b": 5}) == {"a": [3, 4], "b": [0, 1, 2, 5, 6]}
    assert assign([[0, 1, 2]], {"a": 1}) == {"a": [0]}
    with pytest.raises(DataError, match="0 images are left for 'b'"):
        assign([[0, 1, 2]], {"a": 1, "b": 1})


def test_every_stretch_of_the_order_is_balanced():
    labels = [0] * 60 + [1] * 30
    order = [i for cluster in stratified_order([f"id{k}" for k in range(90)], labels) for i in cluster]
    assert sorted(order) == list(range(90))
    for start in range(0, 90, 9):
        assert sum(labels[i] for i in order[start : start + 9]) == pytest.approx(3, abs=1)


def test_shares_of_the_probe():
    assert split_counts(100, {}, probe=True) == {
        "victim": 25,
        "evaluation": 15,
        "search": 7,
        "calibration": 7,
        "attacker": 46,
    }


def test_imagenet_names_are_known():
    assert match_head(["n01440764", "n01443537"], 1000) == [0, 1]
    assert match_head(["Goldfish", "tench", "great_white_shark"], 1000) == [1, 0, 2]
    assert match_head(["goldfish", "no such thing"], 1000) is None
    assert match_head(["crane", "goldfish"], 1000) is None  # the bird or the machine
    assert match_head(["goldfish", "n01443537"], 1000) is None
    assert match_head(["goldfish", "tench"], 10) is None
    assert match_head(["0", "2"], 3) == [0, 2]
    assert match_head(["0", "3"], 3) is None
    assert match_head(["0"], 0) is None
