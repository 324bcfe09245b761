"""Worst cases as numbers: how leakage is spread over images, and how many reconstructions pass for recognisable.

A mean hides the image that is given away whole. Of each operating point are told the 95th percentile of leakage, and
the share of images that score past a mark of recognisability.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leakgauge.harness.values.columns import Column
from leakgauge.reports.analysis.strongest import Estimate, estimate

PERCENTILE = 95


class Mark(NamedTuple):
    """From which score on a reconstruction counts as recognisable.

    Attributes:
        score: A score, of the attack that is best at it on average.
        leaks_when: Which way more is given away.
        at: The mark, which counts as reached by what equals it.
    """

    score: str
    leaks_when: Literal["higher", "lower"]
    at: float

    @property
    def column(self) -> str:
        """The column of the share of images at or past the mark."""
        return f"recognisable_{self.score}"

    @property
    def sign(self) -> str:
        """The mark as it is read: ``SSIM ≥ 0.5``."""
        return f"{self.score.upper()} {'≥' if self.leaks_when == 'higher' else '≤'} {self.at:g}"

    def reached(self, values: pd.Series[float]) -> pd.Series[float]:
        """Returns 1 where a value reaches the mark, 0 where it does not, NaN where it is unscored."""
        past = values >= self.at if self.leaks_when == "higher" else values <= self.at
        return past.astype(float).where(values.notna())


MARKS = (Mark("ssim", "higher", 0.5), Mark("lpips", "lower", 0.3))
"""Assumed, no measurement: people agree only weakly with such scores (Sun et al. 2023, arXiv 2309.13038)."""

MARKS_NOTE = (
    f"Recognisable is what reaches {' or '.join(mark.sign for mark in MARKS)}. These marks are assumed: what people "
    "recognise follows such scores only weakly (Sun et al. 2023, arXiv 2309.13038), so that shares compare operating "
    "points and promise nobody that an image is safe. Re-identification needs no mark: the original is the nearest of "
    "the gallery, or is not."
)

WORST_COLUMNS: tuple[Column, ...] = (
    Column(
        "leakage_p95",
        "float",
        "dB",
        f"{PERCENTILE}th percentile over images of the strongest attack's leakage; no interval",
    ),
    *(
        Column(name, "float", "0..1", meaning)
        for mark in MARKS
        for meaning in [
            f"share of images that reach {mark.sign}, an assumed mark; of the attack with the best mean {mark.score}"
        ]
        for name, meaning in (
            (mark.column, meaning),
            (f"{mark.column}_lo", f"lower end of the 95 % bootstrap interval of {mark.column}"),
            (f"{mark.column}_hi", f"upper end of the 95 % bootstrap interval of {mark.column}"),
        )
    ),
)
"""Columns of the operating-point table."""


def leakage_percentile(leakage: pd.Series[float], percentile: float = PERCENTILE) -> float:
    """Returns the smallest leakage that at least ``percentile`` per cent of the scored images do not exceed.

    It is the leakage of one of the images, never between two of them; NaN where none is scored.
    """
    values = leakage.dropna().to_numpy(dtype=float)
    return float(np.percentile(values, percentile, method="inverted_cdf")) if len(values) else math.nan


def recognisable(best: pd.DataFrame, mark: Mark, seed: int) -> Estimate:
    """Returns the share of the scored images that reach a mark, with its interval.

    Args:
        best: A row an image with ``group`` and scores, from ``analysis.strongest.strongest_rows``.
        mark: The mark.
        seed: The suite's first seed, which the interval is drawn from.
    """
    return estimate(mark.reached(best[mark.score]), best["group"], seed)


def worst_cases(best: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Returns the values of ``WORST_COLUMNS`` of an operating point; arguments as for ``recognisable``."""
    row: dict[str, Any] = {"leakage_p95": leakage_percentile(best["leakage"])}
    for mark in MARKS:
        share = recognisable(best, mark, seed)
        row |= {mark.column: share.mean, f"{mark.column}_lo": share.lo, f"{mark.column}_hi": share.hi}
    return row


def ecdf(values: pd.Series[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the empirical distribution of the scored values: they themselves, rising, and the share at or below each.

    Of equal values only the last is kept, so that every value has one share; both are empty where nothing is scored.
    """
    ordered: NDArray[np.float64] = np.sort(values.dropna().to_numpy(dtype=np.float64))
    distinct: NDArray[np.float64] = np.unique(ordered)
    shares: NDArray[np.float64] = np.searchsorted(ordered, distinct, side="right") / max(len(ordered), 1)
    return distinct, shares
