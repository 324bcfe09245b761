"""Cluster-bootstrap intervals: coverage, determinism and degenerate input."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, ttest_1samp

from leakgauge.harness.scoring import statistics
from leakgauge.harness.scoring.statistics import holm, mean_interval, p_above
from leakgauge.harness.values.seeding import Streams

STREAMS = Streams(0, ("test", "bootstrap"))


def clustered(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of mean 0 whose clusters differ in size and share an offset as large as the spread within."""
    sizes = rng.integers(1, 9, clusters)
    groups = np.repeat(np.arange(clusters), sizes)
    return rng.normal(size=clusters)[groups] + rng.normal(size=len(groups)), groups


def coverage(clusters: int, trials: int, *, use_groups: bool) -> float:
    hits = 0
    for trial in range(trials):
        values, groups = clustered(np.random.default_rng((clusters, trial)), clusters)
        interval = mean_interval(values, groups if use_groups else None, STREAMS.child(trial), resamples=600)
        hits += interval.lo <= 0.0 <= interval.hi
    return hits / trials


@pytest.mark.parametrize("clusters", [8, 15, 40])
def test_coverage_of_clustered_values(clusters: int) -> None:
    assert 0.92 <= coverage(clusters, 800, use_groups=True) <= 0.98


def test_ignoring_clusters_covers_too_little() -> None:
    assert coverage(40, 300, use_groups=False) < 0.85


def test_many_independent_values_give_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 1000)
    interval = mean_interval(values, None, STREAMS, resamples=20_000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.lo == pytest.approx(values.mean() - half, abs=0.04 * half)
    assert interval.hi == pytest.approx(values.mean() + half, abs=0.04 * half)


def test_agrees_with_a_plain_loop() -> None:
    values, groups = clustered(np.random.default_rng(2), 12)
    rng = STREAMS.numpy()
    members = [values[groups == g] for g in range(12)]
    means = [np.concatenate([members[i] for i in draw]).mean() for draw in rng.integers(0, 12, (500, 12))]
    tail = statistics._tail(12)
    interval = mean_interval(values, groups, STREAMS, resamples=500)
    assert interval[:3] == pytest.approx((values.mean(), *np.quantile(means, [tail, 1 - tail])))


def test_copies_within_a_cluster_add_no_certainty() -> None:
    values = np.random.default_rng(3).normal(size=30)
    once = mean_interval(values, np.arange(30), STREAMS)
    copied = mean_interval(np.repeat(values, 7), np.repeat(np.arange(30), 7), STREAMS)
    assert copied[:3] == pytest.approx(once[:3])


def test_deterministic_and_addressed_by_stream() -> None:
    values, groups = clustered(np.random.default_rng(4), 20)
    assert mean_interval(values, groups, STREAMS) == mean_interval(values, groups, STREAMS)
    assert mean_interval(values, groups, STREAMS) != mean_interval(values, groups, STREAMS.child("other"))
    assert mean_interval(torch.tensor(values), torch.tensor(groups), STREAMS) == mean_interval(values, groups, STREAMS)


def test_memory_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = clustered(np.random.default_rng(5), 20)
    whole = mean_interval(values, groups, STREAMS)
    monkeypatch.setattr(statistics, "_BLOCK", 500)
    assert mean_interval(values, groups, STREAMS) == pytest.approx(whole)


def test_nan_is_left_out_and_counted() -> None:
    values = [1.0, math.nan, 2.0, 6.0, math.nan]
    groups = [0, 1, 0, 2, 2]
    interval = mean_interval(values, groups, STREAMS)
    assert interval == mean_interval([1.0, 2.0, 6.0], [0, 0, 2], STREAMS)._replace(unscored=2)
    assert (interval.mean, interval.n, interval.unscored) == (3.0, 3, 2)


@pytest.mark.parametrize(
    ("values", "groups", "mean"),
    [([], None, math.nan), ([math.nan], None, math.nan), ([2.0], None, 2.0), ([1.0, 2.0, 6.0], [4, 4, 4], 3.0)],
)
def test_nothing_to_resample_gives_no_bounds(values: list[float], groups: list[int] | None, mean: float) -> None:
    interval = mean_interval(values, groups, STREAMS)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.lo)
    assert math.isnan(interval.hi)


def test_constant_values_have_an_interval_without_width() -> None:
    assert mean_interval(torch.ones(50), None, STREAMS)[:3] == (1.0, 1.0, 1.0)


def test_mismatched_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="groups"):
        mean_interval([1.0, 2.0], [1], STREAMS)


@pytest.mark.parametrize("freedom", [4, 7, 19, 200])
def test_student_quantile(freedom: int) -> None:
    import scipy.stats

    expected = scipy.stats.t.ppf(0.975, freedom)
    assert statistics._student_quantile(1.959964, freedom) == pytest.approx(expected, rel=1e-3)


def test_fast_enough_for_every_cell() -> None:
    values, groups = np.random.default_rng(6).normal(size=600), np.arange(600)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        mean_interval(values, groups, STREAMS)
        seconds.append(time.perf_counter() - start)
    # Takes some 15 ms; the bound leaves room for a busy machine.
    assert min(seconds) < 0.15


def test_one_image_a_cluster_is_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 25)
    for null in (0.0, 0.5):
        expected = ttest_1samp(values, null, alternative="greater").pvalue
        assert p_above(values, np.arange(25), null) == pytest.approx(expected)


def test_copies_of_images_in_a_cluster_prove_nothing_more() -> None:
    values, groups = np.random.default_rng(1).normal(0.3, 1.0, 12), np.arange(12)
    once, four_times = p_above(values, groups), p_above(np.tile(values, 4), np.tile(groups, 4))
    assert four_times == pytest.approx(once)
    assert p_above(np.tile(values, 4), np.arange(48)) < once


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), 4)
    found = [p_above(rng.normal(0, 1, 30)[groups] + rng.normal(0, 0.5, 120), groups) for _ in range(600)]
    assert kstest(found, "uniform").pvalue > 0.01


def test_p_values_without_spread_and_without_clusters() -> None:
    assert p_above([1.0, 1.0, 1.0], [0, 1, 2]) == 0.0
    assert p_above([1.0, 1.0, 1.0], [0, 1, 2], null=1.0) == 1.0
    assert p_above([1.0, math.nan, 1.0], [0, 1, 2], null=2.0) == 1.0
    assert math.isnan(p_above([1.0, 2.0], [5, 5]))
    assert math.isnan(p_above([math.nan, math.nan], [0, 1]))


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    adjusted = holm([math.nan, 0.02, 0.5])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(p_values)) + 1e-12
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
