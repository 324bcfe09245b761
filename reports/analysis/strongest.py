"""The strongest attack per image: for each image and each metric, the attack that leaks most."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from leakgauge.harness.scoring.measures import BUILT_IN
from leakgauge.harness.scoring.statistics import mean_interval
from leakgauge.harness.values.seeding import Streams
from leakgauge.reports.analysis.run import LoadedRun, Setting

LOWER_LEAKS = frozenset(score.name for score in BUILT_IN if score.leaks_when == "lower")
"""Built-in score columns in which a lower value means more leakage."""
PER_IMAGE = ("psnr_db", "ssim", "lpips", "leakage")
KEYS = ["seed", "image"]


class Estimate(NamedTuple):
    """A mean with its 95 % interval; NaN where nothing was scored."""

    mean: float
    lo: float
    hi: float


NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


def estimate(values: pd.Series[float], groups: pd.Series[int], seed: int) -> Estimate:
    """Averages the scored values, with a bootstrap interval over clusters of dependent images.

    The draws are those of cells.csv, so that an attack that is the strongest on every image has one interval, not two.
    """
    interval = mean_interval(values.to_numpy(dtype=float), groups.to_numpy(dtype=int), Streams(seed, ("bootstrap",)))
    return Estimate(interval.mean, interval.lo, interval.hi)


def per_image(run: LoadedRun) -> tuple[str, ...]:
    """Names the scores of which the strongest attack on each image counts: the run's own metrics are among them."""
    return (*PER_IMAGE, *(score.name for score in run.own_scores))


def candidates(run: LoadedRun, point: str, setting: Setting) -> list[str]:
    """Returns the attacks that may rebuild most: no probes, and no floors, which look at nothing that is sent."""
    labels = dict.fromkeys(str(row["attack"]) for row in run.cells_at(setting, point))
    return [a for a in labels if not run.is_probe(a) and not run.is_floor(a)]


def image_rows(run: LoadedRun, point: str, setting: Setting, attacks: list[str] | None = None) -> pd.DataFrame:
    """Returns the per-image rows of an operating point, of some of its attacks."""
    rows = run.images
    chosen = (rows["operating_point"] == point) & (rows["channel"] == setting.channel)
    chosen &= rows["threat_model"] == setting.threat_model
    if attacks is not None:
        chosen &= rows["attack"].isin(attacks)
    return rows[chosen]


def strongest_per_image(run: LoadedRun, point: str, setting: Setting, attacks: list[str] | None = None) -> pd.DataFrame:
    """Finds, for each image, what the strongest attack reaches: of all that may rebuild most, or of those named.

    Each score is the strongest over attacks by that score. ``attack`` and ``cell`` name the attack of the highest PSNR.

    Returns:
        A row a seed and image: seed, image, group, attack, cell, psnr_db, ssim, lpips, leakage, and what the run's own
        metrics score.
    """
    chosen = tuple(candidates(run, point, setting) if attacks is None else attacks)
    key = ("strongest", point, setting, chosen)
    # A copy each, for a data frame can be changed.
    return run.once(key, lambda: _strongest(run, image_rows(run, point, setting, list(chosen)))).copy()


def _strongest(run: LoadedRun, rows: pd.DataFrame) -> pd.DataFrame:
    by_psnr = rows.sort_values(["psnr_db", "attack"], ascending=[False, True], kind="stable", na_position="last")
    winners = by_psnr.drop_duplicates(KEYS)[[*KEYS, "group", "attack", "cell"]]
    grouped = rows.groupby(KEYS, sort=False)
    lower = LOWER_LEAKS | {score.name for score in run.own_scores if score.leaks_when == "lower"}
    scores = {name: grouped[name].agg("min" if name in lower else "max") for name in per_image(run)}
    best = winners.merge(pd.DataFrame(scores).reset_index(), on=KEYS, how="left")
    best.loc[best["psnr_db"].isna(), ["attack", "cell"]] = ""
    return best.sort_values(KEYS, kind="stable").reset_index(drop=True)


def quality_per_image(run: LoadedRun, point: str, setting: Setting) -> pd.DataFrame:
    """Returns the task quality of each image, which no attack changes: seed, image, group, quality."""
    rows = image_rows(run, point, setting).sort_values([*KEYS, "attack"], kind="stable")
    return rows.drop_duplicates(KEYS)[[*KEYS, "group", "quality"]].reset_index(drop=True)


def change(defended: pd.DataFrame, baseline: pd.DataFrame, name: str, seed: int) -> Estimate:
    """Averages the difference in column ``name``, image by image, with its interval."""
    pairs = defended.merge(baseline[[*KEYS, name]], on=KEYS, suffixes=("", "_baseline"))
    return estimate(pairs[name] - pairs[f"{name}_baseline"], pairs["group"], seed)
