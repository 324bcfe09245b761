"""The difference between two runs in one measure: paired, image by image, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval, p_above
from leakgauge.reports.measures import Measure


@dataclass(frozen=True)
class Difference:
    """A paired difference, new minus base, in the unit of the measure.

    Args:
        mean: Mean over the images that both scored.
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
