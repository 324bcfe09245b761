"""Images of one cluster count once: copies of them make no interval narrower, and no verdict of the gate surer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated_runs import simulated

from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.reports.analysis.difference import paired_difference
from leakgauge.reports.analysis.measures import measure_of, measured
from leakgauge.reports.analysis.strongest import change, estimate
from leakgauge.reports.gate.baseline import baseline_of
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import parse_limits

COPIES = 8
VALUES = pd.Series(np.random.default_rng(0).normal(5.0, 2.0, 12))
COPIED = pd.Series(np.repeat(VALUES.to_numpy(), COPIES))
CLUSTERS = pd.Series(np.repeat(np.arange(12), COPIES))


def as_one_image_a_cluster():
    found = mean_interval(VALUES.to_numpy(), None, bootstrap_streams(0))
    return pytest.approx([found.mean, found.lo, found.hi])


def test_a_report_s_interval():
    assert list(estimate(COPIED, CLUSTERS, 0)) == as_one_image_a_cluster()


def test_a_report_s_paired_change():
    frame = pd.DataFrame({"seed": 0, "image": range(len(COPIED)), "group": CLUSTERS, "psnr_db": COPIED})
    nothing = frame.assign(psnr_db=0.0)
    assert list(change(frame, nothing, "psnr_db", 0)) == as_one_image_a_cluster()


def test_the_gate_s_paired_difference():
    measure = measure_of("leakage")
    few = paired_difference(VALUES * 0, VALUES, pd.Series(range(12)), measure, 4.0)
    many = paired_difference(COPIED * 0, COPIED, CLUSTERS, measure, 4.0)
    assert [many.mean, many.lo, many.hi] == as_one_image_a_cluster()
    assert (many.p_worse, many.p_better) == pytest.approx((few.p_worse, few.p_better))


def clustered(run, size):
    """The same run, ``size`` consecutive images a cluster."""
    return replace(run, images=run.images.assign(group=run.images["group"] // size))


def test_the_gate_s_absolute_limits_and_a_baseline_s_intervals(tmp_path):
    run = clustered(simulated(tmp_path / "run"), 20)
    limits = parse_limits({"absolute": [{"measure": "leakage", "operating_point": "merged", "at_most": 99}]})
    (check,) = judge(run, None, limits).checks
    images = next(one for one in measured(run) if one.point == "merged").images
    expected = mean_interval(images["leakage"].to_numpy(), images["group"].to_numpy(), bootstrap_streams(0))
    assert (check.lo, check.hi) == pytest.approx((expected.lo, expected.hi))
    recorded = next(p for p in baseline_of(run).points if p.operating_point == "merged").measures["leakage"]
    assert (recorded.lo, recorded.hi) == pytest.approx((expected.lo, expected.hi), abs=1e-3)
    free = mean_interval(images["leakage"].to_numpy(), None, bootstrap_streams(0))
    assert abs(free.lo - expected.lo) > 0.1
