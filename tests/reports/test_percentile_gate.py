"""The 95th percentile of leakage in compare, baseline and gate: it catches what a mean hides."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated_runs import simulated

from leakgauge.harness.errors import StoreError
from leakgauge.harness.scoring.statistics import bootstrap_streams, resampled_percentile
from leakgauge.reports.analysis.difference import images_for, interval_over, paired_difference
from leakgauge.reports.analysis.measures import measure_of
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.gate.baseline import baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import parse_limits

P95 = measure_of("leakage_p95")
LIMITS = {"worse_by": {"leakage": 0.5, "leakage_p95": 1.0}}


def given_away(run, share=0.15, by=9.0):
    """The same run, where a share of the images of ``merged`` leaks much more."""
    images = run.images.copy()
    order = images["image"].map({image: i for i, image in enumerate(sorted(images["image"].unique()))})
    few = order % round(1 / share) == 0
    here = few & (images["operating_point"] == "merged") & (images["attack"] != "flat")
    images.loc[here, "leakage"] += by
    return replace(run, images=images)


def checked(gate, point="merged", name="leakage_p95"):
    (found,) = [c for c in gate.checks if c.measure and c.measure.name == name and c.place.startswith(point)]
    return found


def test_a_resampled_percentile_is_that_of_an_image_and_resamples_clusters():
    values = np.arange(1.0, 101.0)
    found = resampled_percentile(values, np.arange(100), 95, bootstrap_streams(0))
    assert found.value == 95
    assert set(found.draws) <= set(values)
    assert 88 <= np.quantile(found.draws, 0.025) < 95 < np.quantile(found.draws, 0.975) <= 100
    copies = resampled_percentile(np.repeat(values, 7), np.repeat(np.arange(100), 7), 95, bootstrap_streams(0))
    assert np.array_equal(copies.draws, found.draws)
    assert not len(resampled_percentile(values, np.zeros(100), 95, bootstrap_streams(0)).draws)
    assert np.isnan(resampled_percentile([np.nan], [0], 95, bootstrap_streams(0)).value)


def test_its_interval_covers_as_often_as_it_says():
    """95 % nominal: the 95th percentile of a standard normal lies within at least 88 % of 200 intervals."""
    within = 0
    for seed in range(200):
        values = pd.Series(np.random.default_rng(seed).normal(size=150))
        found = interval_over(values, pd.Series(range(150)), P95)
        within += found.lo <= 1.645 <= found.hi
    assert 176 <= within <= 199


def test_a_paired_percentile_compares_the_same_resampled_images():
    values = pd.Series(np.random.default_rng(0).normal(5, 2, 100))
    groups = pd.Series(range(100))
    same = paired_difference(values, values, groups, P95)
    assert (same.mean, same.lo, same.hi, same.p) == (0, 0, 0, 1)
    shifted = paired_difference(values, values + 2, groups, P95, limit=1.0)
    assert (shifted.mean, shifted.lo, shifted.hi) == pytest.approx((2, 2, 2))
    assert shifted.p_worse < 0.001


def test_the_gate_catches_images_given_away_that_the_mean_would_let_pass(tmp_path):
    run = simulated(tmp_path / "a", n=200)
    base = baseline_of(run)
    worse = given_away(run)
    limits = {"worse_by": {"leakage": 3.0, "leakage_p95": 1.0}}
    assert checked(judge(worse, base, parse_limits(limits))).outcome == "exceeds"
    assert checked(judge(worse, base, parse_limits(limits)), name="leakage").outcome == "pass"
    assert checked(judge(run, base, parse_limits(limits))).outcome == "pass"
    row = next(r for r in compare(run, worse).rows if r.measure == P95 and r.place.startswith("merged"))
    assert row.outcome == "worse"


def test_too_few_images_bound_no_percentile_but_show_a_rise(tmp_path):
    assert images_for(95) == 72
    run = simulated(tmp_path / "a", n=60)
    check = checked(judge(run, baseline_of(run), parse_limits(LIMITS)))
    assert check.outcome == "cannot tell"
    assert check.images_needed == 72
    most = {"absolute": [{"measure": "leakage_p95", "operating_point": "merged", "at_most": 99}]}
    assert checked(judge(run, None, parse_limits(most))).outcome == "cannot tell"
    least = {"absolute": [{"measure": "leakage_p95", "operating_point": "merged", "at_most": 1}]}
    assert checked(judge(run, None, parse_limits(least))).outcome == "exceeds"


def test_without_a_limit_it_is_recorded_and_not_judged(tmp_path):
    run = simulated(tmp_path / "a", n=100)
    gate = judge(given_away(run, by=0.1), baseline_of(run), parse_limits({}))
    assert not any(check.measure == P95 for check in gate.checks)


@pytest.mark.parametrize("version", [1, 2])
def test_a_baseline_that_took_another_attack_on_each_image_is_refused(tmp_path, version):
    write_baseline(baseline_of(simulated(tmp_path / "a")), tmp_path / "b.json")
    old = json.loads((tmp_path / "b.json").read_text())
    assert old["schema_version"] == 3
    (tmp_path / "b.json").write_text(json.dumps({**old, "schema_version": version}))
    with pytest.raises(StoreError, match="picked attack and floor by image") as caught:
        read_baseline(tmp_path / "b.json")
    assert "write it again" in caught.value.hint


def test_a_baseline_whose_percentile_is_not_that_of_its_images_is_refused(tmp_path):
    run = simulated(tmp_path / "a", n=100)
    write_baseline(baseline_of(run), tmp_path / "b.json")
    data = json.loads((tmp_path / "b.json").read_text())
    data["points"][0]["measures"]["leakage_p95"]["mean"] += 1
    (tmp_path / "b.json").write_text(json.dumps(data))
    with pytest.raises(StoreError, match="leakage_p95"):
        read_baseline(tmp_path / "b.json")
