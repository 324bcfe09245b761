"""The difference between two runs in one measure: paired, image by image, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leakgauge.harness.scoring.statistics import (
    Interval,
    bootstrap_streams,
    expanded_percentiles,
    mean_interval,
    p_above,
    resampled_percentile,
)
from leakgauge.reports.analysis.measures import Measure


@dataclass(frozen=True)
class Difference:
    """A paired difference, new minus base, in the unit of the measure.

    Args:
        mean: Mean over the images that both scored; of a percentile the new one minus the base's.
        lo: Lower end of the 95 % interval.
        hi: Upper end.
        n: Images that both scored.
        unscored: Images that one of them, or both, did not score.
        p_worse: One-sided p-value that the new run is worse.
        p_better: One-sided p-value that it is better.
    """

    mean: float
    lo: float
    hi: float
    n: int
    unscored: int
    p_worse: float
    p_better: float

    @property
    def p(self) -> float:
        """The two-sided p-value."""
        return min(1.0, 2 * min(self.p_worse, self.p_better))


def paired_difference(
    base: pd.Series[float], new: pd.Series[float], groups: pd.Series[int], measure: Measure, limit: float = 0.0
) -> Difference:
    """Compares two series of values by image.

    Args:
        base: Values of the base, indexed by image.
        new: Values of the new run.
        groups: Cluster of each image of the new run.
        measure: What is compared.
        limit: By how much ``new`` may be worse before ``p_worse`` counts it, in the unit of the measure, 0 or more.

    Returns:
        The difference over the images that both hold.
    """
    both = pd.DataFrame({"base": base, "new": new, "group": groups}).reindex(
        [image for image in new.index if image in base.index]
    )
    change = (both["new"] - both["base"]).to_numpy(dtype=np.float64)
    group = both["group"].to_numpy(dtype=np.int64)
    if measure.percentile is not None:
        return _of_percentiles(both.dropna(), measure, limit, int(np.isnan(change).sum()))
    interval = mean_interval(change, group, bootstrap_streams(0))
    return Difference(
        interval.mean,
        interval.lo,
        interval.hi,
        interval.n,
        interval.unscored,
        p_above(measure.sign * change, group, limit),
        p_above(-measure.sign * change, group),
    )


def _of_percentiles(both: pd.DataFrame, measure: Measure, limit: float, unscored: int) -> Difference:
    """Compares a percentile of ``new`` with that of ``base``, both of the same resampled images.

    The p-values are shares of resamples, none below one in their number: no tail is known beyond what was drawn.
    """
    assert measure.percentile is not None
    base, new = (
        resampled_percentile(both[name], both["group"], measure.percentile, bootstrap_streams(0))
        for name in ("base", "new")
    )
    change, draws = new.value - base.value, measure.sign * (new.draws - base.draws)
    if not len(draws):
        return Difference(change, np.nan, np.nan, len(both), unscored, np.nan, np.nan)
    lo, hi = expanded_percentiles(new.draws - base.draws, new.clusters)
    worse, better = ((1 + int((ends <= at).sum())) / (1 + len(draws)) for ends, at in ((draws, limit), (-draws, 0.0)))
    return Difference(change, lo, hi, len(both), unscored, min(worse, 1.0), min(better, 1.0))


def interval_over(values: pd.Series[float], groups: pd.Series[int], measure: Measure) -> Interval:
    """Returns what a measure is over images, with its 95 % interval over clusters of them."""
    if measure.percentile is None:
        return mean_interval(values.to_numpy(), groups.to_numpy(), bootstrap_streams(0))
    found = resampled_percentile(values, groups, measure.percentile, bootstrap_streams(0))
    lo, hi = expanded_percentiles(found.draws, found.clusters) if len(found.draws) else (np.nan, np.nan)
    scored = int(values.notna().sum())
    return Interval(found.value, lo, hi, scored, len(values) - scored)


def images_for(percentile: int) -> int:
    """Returns how many independent images can bound a percentile from above at all, at 97.5 %.

    With fewer, all of them lie below it with a chance above 2.5 %, and no interval over them says how high it may be.
    """
    return math.ceil(math.log(0.025) / math.log(percentile / 100))
