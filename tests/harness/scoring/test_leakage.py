"""Leakage: one floor and one attack, each best on average, and what a guess that sees nothing reaches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from leakgauge.harness.scoring.leakage import best_on_average, recounted, unrelated
from leakgauge.harness.values.seeding import Streams

NAN = float("nan")


def test_the_best_mean_counts_and_of_equal_ones_the_first_by_name():
    scores = {"b": np.array([1.0, 3]), "a": np.array([2.0, 2]), "c": np.array([5.0, -9])}
    assert best_on_average(scores) == "a"
    assert best_on_average(scores, "lower") == "c"
    assert best_on_average({}) == best_on_average({"a": np.array([NAN, NAN])}) == ""


def test_names_are_compared_on_the_images_that_all_were_scored_on():
    scores = {"few": np.array([NAN, 9.0]), "all": np.array([1.0, 10.0]), "none": np.array([NAN, NAN])}
    assert best_on_average(scores) == "all"
    assert best_on_average({"one": np.array([NAN, 9.0]), "two": np.array([10.0, NAN])}) == "two"


@pytest.mark.parametrize("sizes", [[1] * 9, [4, 4], [2, 3, 5], [1, 1, 2], [5, 1, 1, 1, 2], [7, 70, 43, 30]])
def test_each_image_is_paired_once_with_one_of_another_cluster(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    others = [unrelated(groups, Streams(seed, ("others",))) for seed in range(20)]
    for found in others:
        assert sorted(found) == list(range(len(groups)))
        assert (groups[found] != groups).all()
    assert len({tuple(found) for found in others}) > 1
    assert others[0].tolist() == unrelated(groups, Streams(0, ("others",))).tolist()


def test_a_cluster_of_more_than_half_is_paired_with_others_more_than_once():
    groups = np.array([0, 0, 0, 0, 1, 2])
    found = unrelated(groups, Streams(0, ("others",)))
    assert (groups[found] != groups).all()
    assert unrelated(np.zeros(5, dtype=int), Streams(0, ("others",))) is None


def rows(attack, psnr_db, seed=0, leakage=0.0):
    place = {"operating_point": "p", "channel": "c", "threat_model": "server", "seed": seed, "attack": attack}
    return [{**place, "image": str(i), "psnr_db": value, "leakage": leakage} for i, value in enumerate(psnr_db)]


def test_leakage_counted_by_image_is_counted_anew_from_one_floor_an_exposure():
    told = rows("low", [8.0, 13]) + rows("high", [12.0, 10]) + rows("x", [20.0, 20])
    told += rows("low", [9.0, 9], 1) + rows("high", [1.0, 9], 1) + rows("x", [20.0, 21], 1) + rows("x", [20.0], 2)
    found = recounted(pd.DataFrame(told), ["low", "high"])
    of = {name: here["leakage"].tolist() for name, here in found.groupby(["attack", "seed"])}
    assert of["x", 0] == [8, 10]
    assert of["low", 0] == [-4, 3]
    assert of["high", 0] == [0, 0]
    assert of["x", 1] == [11, 12]
    assert np.isnan(of["x", 2]).all(), "no floor, no leakage"
    assert found["psnr_db"].tolist() == [row["psnr_db"] for row in told]
