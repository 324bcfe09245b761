"""Which way is better: in the objectives that samplers see, in dominance, and for clusters of images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from optuna.study import StudyDirection
from search_spaces import small

from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.search.results.dominance import dominance, image_metrics
from leakgauge.harness.search.results.front import Front, FrontPoint
from leakgauge.harness.search.results.remeasure import _leakages
from leakgauge.harness.suite.schema import OperatingPoint, PluginConfig

HERE = {"channel": "c", "snr_db": float("nan"), "threat_model": "server", "seed": 0}
IMAGES = [f"image {i}" for i in range(24)]


def test_quality_is_raised_and_all_else_is_lowered():
    space = small(objectives=["quality", "gflops_total", "payload_bytes"])
    undefended = {"quality": 0.9, "gflops_total": 1.0, "payload_bytes": 1.0}
    assert Objectives(space, undefended).directions == [
        StudyDirection.MAXIMIZE,
        StudyDirection.MINIMIZE,
        StudyDirection.MINIMIZE,
    ]


def rows_of(point, quality, size, leakage=1.0, attack="ridge", group=None):
    rng = np.random.default_rng(len(point))
    values = {"quality": quality, "payload_bytes": size, "leakage": leakage}
    groups = np.arange(len(IMAGES)) if group is None else group
    # Images of one cluster are alike.
    noisy = {name: mean + 0.01 * rng.normal(size=len(IMAGES))[groups] for name, mean in values.items()}
    return pd.DataFrame({"operating_point": point, **HERE, "attack": attack, "image": IMAGES, "group": groups, **noisy})


def store_of(*frames):
    stated = {"attacks": {"ridge": {"floor": False}, "conv": {"floor": False}, "flat": {"floor": True}}}
    return SimpleNamespace(manifest=lambda: stated, images=lambda: pd.concat(frames, ignore_index=True))


def front_of(*names, objectives=("quality", "payload_bytes")):
    plain = PluginConfig(name="ideal")
    points = tuple(FrontPoint(name=name, channel=plain, metrics={}) for name in names)
    return Front(
        space="s",
        task=PluginConfig(name="photos"),
        defense=PluginConfig(name="split_pipeline"),
        quality_name="accuracy",
        objectives=objectives,
        reference={},
        quality_base=1.0,
        undefended={},
        operating_points=tuple(OperatingPoint(name=name) for name in names),
        points=points,
    )


@pytest.mark.parametrize(
    ("quality", "size", "expected"),
    [
        (0.9, 80, "clearly dominates"),
        (0.3, 80, "neither"),
        (0.9, 120, "neither"),
        (0.3, 120, "is clearly dominated"),
    ],
)
def test_higher_quality_and_fewer_bytes_dominate(quality, size, expected):
    store = store_of(rows_of("undefended", 0.6, 100), rows_of("point", quality, size))
    (row,) = dominance(front_of("point"), store).to_dict("records")
    assert row["relation"] == expected
    assert row["quality"] == pytest.approx(quality - 0.6, abs=0.05)
    assert row["payload_bytes"] == pytest.approx(size - 100, abs=0.1)


def test_the_attack_that_is_strongest_on_average_counts_and_floors_do_not():
    attacks = [rows_of("point", 0.5, 9, leakage, attack) for attack, leakage in (("ridge", 1.0), ("conv", 1.02))]
    attacks[0]["leakage"] += np.tile([0.5, -0.5], len(IMAGES) // 2)
    store = store_of(*attacks, rows_of("point", 0.5, 9, 7.0, "flat"))
    assert (attacks[0]["leakage"] > attacks[1]["leakage"]).any(), "the other does better on some images"
    best = max(attacks, key=lambda rows: rows["leakage"].mean())
    assert image_metrics(store)["leakage"].tolist() == pytest.approx(best["leakage"].tolist())


def test_intervals_resample_clusters():
    clusters = np.arange(len(IMAGES)) // 8
    base, point = (
        rows_of(name, *means, group=clusters) for name, means in (("undefended", (0.6, 9)), ("point", (0.9, 8)))
    )
    store = store_of(base, point)
    (row,) = dominance(front_of("point"), store).to_dict("records")
    difference = (point["quality"] - base["quality"]).to_numpy()
    expected, free = (mean_interval(difference, groups, bootstrap_streams(0)) for groups in (clusters, None))
    assert (row["quality_lo"], row["quality_hi"]) == pytest.approx((expected.lo, expected.hi))
    assert expected.hi - expected.lo > 1.5 * (free.hi - free.lo)
    leak = _leakages(store)["point", "c", "server", 0]
    expected = mean_interval(point["leakage"].to_numpy(), clusters, bootstrap_streams(0))
    assert (leak["measured_leakage_lo"], leak["measured_leakage_hi"]) == pytest.approx((expected.lo, expected.hi))
