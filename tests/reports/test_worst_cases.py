"""Worst cases: percentile, shares past the marks, the distribution; unscored images count nowhere."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import simulated

from leakgauge.reports.analysis.operating_points import POINT_COLUMNS, point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.analysis.strongest import strongest_rows
from leakgauge.reports.analysis.worst_cases import (
    MARKS,
    MARKS_NOTE,
    WORST_COLUMNS,
    ecdf,
    leakage_percentile,
    worst_cases,
)
from leakgauge.reports.gate.baseline import baseline_of
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits

NAN = float("nan")


def scored(**columns):
    count = len(next(iter(columns.values())))
    given_ = {"leakage": [0.0] * count, "ssim": [0.0] * count, "lpips": [1.0] * count, "group": list(range(count))}
    return pd.DataFrame({**given_, **columns})


def test_percentile_is_an_image_and_not_between_two():
    assert leakage_percentile(pd.Series([float(i) for i in range(1, 101)])) == 95
    assert leakage_percentile(pd.Series([1.0, 9.0])) == 9
    assert leakage_percentile(pd.Series([NAN, 4.0, NAN])) == 4
    assert math.isnan(leakage_percentile(pd.Series([NAN])))
    assert math.isnan(leakage_percentile(pd.Series([], dtype=float)))


def test_a_mark_is_reached_by_what_equals_it_and_in_its_own_direction():
    by_score = {mark.score: mark for mark in MARKS}
    ssim, lpips = by_score["ssim"], by_score["lpips"]
    assert list(ssim.reached(pd.Series([ssim.at, ssim.at - 1e-9, 1.0]))) == [1, 0, 1]
    assert list(lpips.reached(pd.Series([lpips.at, lpips.at + 1e-9, 0.0]))) == [1, 0, 1]


def test_unscored_images_are_not_counted_as_unrecognisable():
    row = worst_cases(scored(ssim=[0.9, 0.1, NAN, NAN]), seed=0)
    assert row["recognisable_ssim"] == 0.5
    nothing = worst_cases(scored(ssim=[NAN, NAN], leakage=[NAN, NAN]), seed=0)
    assert math.isnan(nothing["recognisable_ssim"])
    assert math.isnan(nothing["leakage_p95"])


def test_one_image_given_away_shows_in_the_percentile_and_not_in_the_mean():
    leakage = pd.Series([0.0] * 18 + [20.0, 20.0])
    assert leakage.mean() == 2
    assert leakage_percentile(leakage) == 20


def test_every_operating_point_tells_its_worst_cases(tmp_path):
    run = simulated(tmp_path / "run")
    rows = point_rows(run)
    names = [column.name for column in WORST_COLUMNS]
    assert set(names) <= {column.name for column in POINT_COLUMNS}
    setting = run.settings[0]
    for row in rows:
        best = strongest_rows(run, row["operating_point"], setting)
        assert row["leakage_p95"] == leakage_percentile(best["leakage"])
        assert row["leakage_p95"] >= row["strongest_leakage"] or best["leakage"].nunique() == 1
        share = (best["ssim"] >= 0.5).mean()
        assert row["recognisable_ssim"] == pytest.approx(share)
        assert row["recognisable_ssim_lo"] <= share <= row["recognisable_ssim_hi"]


def test_the_note_states_every_mark_and_that_it_is_assumed():
    assert all(mark.sign in MARKS_NOTE for mark in MARKS)
    assert "assumed" in MARKS_NOTE


@given(st.lists(st.one_of(st.just(NAN), st.floats(-50, 50)), max_size=60))
def test_distribution_rises_to_one_and_counts_what_is_scored(values):
    xs, shares = ecdf(pd.Series(values, dtype=float))
    known = [value for value in values if not math.isnan(value)]
    assert len(xs) == len(shares) == len(set(known))
    assert np.all(np.diff(xs) > 0)
    assert np.all(np.diff(shares) > 0)
    if known:
        assert shares[-1] == 1
        for x, share in zip(xs, shares, strict=True):
            assert share == pytest.approx(sum(value <= x for value in known) / len(known))


def test_shares_past_a_mark_are_measures_of_the_gate_and_baseline(make_run, tmp_path):
    run = load_runs([make_run(tmp_path / "run")])[0]
    rows = {(row["operating_point"], row["channel"]): row for row in point_rows(run)}
    recorded = {(one.operating_point, one.channel): one.measures for one in baseline_of(run, ()).points}
    for key, measures in recorded.items():
        for mark in MARKS:
            assert measures[mark.column].mean == pytest.approx(rows[key][mark.column], abs=1e-4)
    most = {"minimum_images": 2, "lower_bounds": "judge", "inconclusive": "judge"}
    for at_most, outcome in ((1.0, "pass"), (-0.01, "exceeds")):
        limit = {"measure": MARKS[0].column, "operating_point": "plain", "at_most": at_most}
        (check,) = judge(run, None, Limits.model_validate({**most, "absolute": [limit]})).checks
        assert check.outcome == outcome
