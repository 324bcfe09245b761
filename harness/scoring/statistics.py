"""Bootstrap intervals that respect dependence between images.

Crops from one region, or frames from one scene, are alike: treated as independent they would make an interval too
narrow. Whole clusters of such images are resampled instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr
from torch import Tensor

from leakgauge.harness.values.seeding import Streams

CONFIDENCE = 0.95
"""Nominal coverage of the intervals."""

_BLOCK = 2_000_000  # cluster draws held at once, which bounds memory at some 50 MB


class Interval(NamedTuple):
    """A mean with its 95 % interval, in the unit of the values.

    ``n`` values were averaged; ``unscored`` were NaN and left out. ``lo`` and ``hi`` are NaN where one cluster or fewer
    than two values leave nothing to resample.
    """

    mean: float
    lo: float
    hi: float
    n: int
    unscored: int


def mean_interval(
    values: Tensor | npt.ArrayLike,
    groups: Tensor | npt.ArrayLike | None,
    streams: Streams,
    resamples: int = 2000,
) -> Interval:
    """Returns the mean of per-image values with a cluster-bootstrap interval.

    Clusters are drawn with replacement; a resampled mean is the ratio of summed values to summed counts, since
    clusters differ in size. The interval lies between percentiles of these means, at the levels that make up for few
    clusters (Hesterberg 2015, "expanded percentile"): plain percentiles cover 81 % with 5 clusters and 91 % with 20.
    Where all values are equal the interval has no width, whatever n: it knows no spread that the values do not show.

    Args:
        values: (n,) per-image values; NaN is unscored.
        groups: (n,) cluster of each image, or None where every image is its own.
        streams: Where the draws come from; equal streams give equal intervals.
        resamples: Number of resampled means.

    Returns:
        The interval.
    """
    scores = _array(values).astype(np.float64)
    clusters = np.arange(len(scores)) if groups is None else _array(groups)
    if scores.ndim != 1 or clusters.shape != scores.shape:
        raise ValueError(f"values {scores.shape} and groups {clusters.shape} must both be (n,)")
    scored = ~np.isnan(scores)
    unscored = int((~scored).sum())
    scores, clusters = scores[scored], clusters[scored]
    if not len(scores):
        return Interval(math.nan, math.nan, math.nan, 0, unscored)
    mean = float(scores.mean())
    _, member = np.unique(clusters, return_inverse=True)
    counts = np.bincount(member).astype(np.float64)
    if len(counts) < 2:
        return Interval(mean, math.nan, math.nan, len(scores), unscored)
    sums = np.bincount(member, weights=scores).astype(np.float64)
    ends = cluster_interval(len(counts), lambda drawn: _resampled_means(sums, counts, drawn), streams, resamples)
    return Interval(mean, *ends, len(scores), unscored)


class Resampled(NamedTuple):
    """A percentile of per-image values with what resampling makes of it.

    Attributes:
        value: The percentile of all values; NaN where none is scored.
        draws: (resamples,) the percentile of each resample; empty where one cluster or fewer than two values are left.
        clusters: How many clusters were resampled.
    """

    value: float
    draws: npt.NDArray[np.float64]
    clusters: int


def resampled_percentile(
    values: npt.ArrayLike, groups: npt.ArrayLike, percentile: float, streams: Streams, resamples: int = 4000
) -> Resampled:
    """Resamples a percentile of per-image values over whole clusters.

    The percentile is the smallest value that at least ``percentile`` per cent of the values do not exceed: that of one
    image, never between two. Equal streams and groups draw equal clusters, so that draws of two series of the same
    images may be subtracted from each other.

    Args:
        values: (n,) per-image values; NaN is unscored and left out.
        groups: (n,) cluster of each image.
        percentile: Above 0, up to 100.
        streams: Where the draws come from.
        resamples: Number of draws.
    """
    scores, clusters = _array(values).astype(np.float64), _array(groups)
    scored = ~np.isnan(scores)
    order = np.argsort(scores[scored], kind="stable")
    ordered = scores[scored][order]
    member = np.unique(clusters[scored][order], return_inverse=True)[1]
    if not len(ordered):
        return Resampled(math.nan, np.empty(0), 0)
    count, share = int(member.max()) + 1, percentile / 100 - 1e-12
    value = float(ordered[math.ceil(share * len(ordered)) - 1])
    if count < 2:
        return Resampled(value, np.empty(0), count)
    found = []
    for block in drawn_clusters(count, streams.numpy(), resamples):
        times = np.zeros((len(block), count))
        np.add.at(times, (np.arange(len(block))[:, None], block), 1.0)
        below = times[:, member].cumsum(axis=1)
        found.append(ordered[(below >= share * below[:, -1:]).argmax(axis=1)])
    return Resampled(value, np.concatenate(found), count)


def p_above(values: npt.ArrayLike, groups: npt.ArrayLike, null: float = 0.0) -> float:
    """Returns the one-sided p-value that the mean of per-image values exceeds ``null``.

    Student's t with the standard error of a ratio of cluster sums (Cochran 1977, equation 2.39), which unlike resampled
    means resolves small values, as a correction for many comparisons needs. Where all values are equal there is no
    spread to doubt: 0 above ``null``, else 1. NaN values are left out; NaN where fewer than two clusters are left.

    Args:
        values: (n,) per-image values.
        groups: (n,) cluster of each image.
        null: The mean under the null hypothesis, in the unit of the values.
    """
    scores, clusters = _array(values).astype(np.float64), _array(groups)
    scored = ~np.isnan(scores)
    scores, member = scores[scored], np.unique(clusters[scored], return_inverse=True)[1]
    count = int(member.max()) + 1 if len(member) else 0
    if count < 2:
        return math.nan
    residuals = np.bincount(member, weights=scores - scores.mean())
    error = math.sqrt(count / (count - 1) * float((residuals**2).sum())) / len(scores)
    if error < 1e-12 * max(1.0, abs(float(scores.mean()))):
        return 0.0 if scores.mean() > null else 1.0
    # The upper tail, as scipy.stats takes it, which itself takes a second to import.
    return float(stdtr(count - 1, (null - scores.mean()) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number, so that 5 % bounds the chance of even one false finding (Holm 1979).

    NaN stays NaN and does not count.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        adjusted[i] = least
    return adjusted


def bootstrap_streams(seed: int) -> Streams:
    """Returns the stream that all intervals of a run are drawn from, so that they share their draws."""
    return Streams(seed, ("bootstrap",))


def cluster_interval(
    clusters: int,
    statistic: Callable[[Iterator[npt.NDArray[np.int64]]], npt.NDArray[np.float64]],
    streams: Streams,
    resamples: int,
) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of a statistic, by resampling clusters.

    Args:
        clusters: How many there are, at least 2.
        statistic: Of resamples as ``drawn_clusters`` yields them, each that is scored.
        streams: Where the draws come from.
        resamples: Number of draws.
    """
    return expanded_percentiles(statistic(drawn_clusters(clusters, streams.numpy(), resamples)), clusters)


def drawn_clusters(clusters: int, rng: np.random.Generator, resamples: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yields (r, clusters) numbers of clusters drawn with replacement, block by block: ``resamples`` rows in all."""
    block = max(1, _BLOCK // clusters)
    for start in range(0, resamples, block):
        yield rng.integers(0, clusters, size=(min(block, resamples - start), clusters))


def expanded_percentiles(resampled: npt.NDArray[np.float64], clusters: int) -> tuple[float, float]:
    """Returns the ends of the 95 % interval, given (resamples,) values of the resampled statistic."""
    tail = _tail(clusters)
    lo, hi = np.quantile(resampled, [tail, 1.0 - tail])
    return float(lo), float(hi)


def _array(column: Tensor | npt.ArrayLike) -> npt.NDArray[np.generic]:
    return np.asarray(column.detach().cpu() if isinstance(column, Tensor) else column)


def _resampled_means(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], drawn: Iterator[npt.NDArray[np.int64]]
) -> npt.NDArray[np.float64]:
    """Returns (resamples,) means of the clusters drawn, given each cluster's sum and count (G,)."""
    return np.concatenate([sums[block].sum(axis=1) / counts[block].sum(axis=1) for block in drawn])


def _tail(clusters: int) -> float:
    """Returns the percentile level (0..0.5) below the interval for this many clusters.

    Percentiles of resampled means behave like a normal interval with the biased standard deviation; a Student interval
    with the unbiased one, expressed as a percentile, mends both. Tends to 2.5 % as clusters grow.
    """
    normal = NormalDist()
    t = _student_quantile(normal.inv_cdf(0.5 + CONFIDENCE / 2), clusters - 1)
    return normal.cdf(-t * math.sqrt(clusters / (clusters - 1)))


def _student_quantile(z: float, freedom: int) -> float:
    """Returns Student's quantile at the normal quantile z: Abramowitz and Stegun 26.7.5, within .1 % from 4 degrees."""
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
