"""The strongest attack: the one that leaks most on average over the scored images, of those that were run."""

from __future__ import annotations

from typing import Literal, NamedTuple

import pandas as pd

from leakgauge.harness.scoring.leakage import strongest
from leakgauge.harness.scoring.measures import BUILT_IN
from leakgauge.harness.scoring.statistics import mean_interval
from leakgauge.harness.values.columns import PERMUTED
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

    The draws are those of cells.csv, so that the strongest attack's interval is that of its cell.
    """
    interval = mean_interval(values.to_numpy(dtype=float), groups.to_numpy(dtype=int), Streams(seed, ("bootstrap",)))
    return Estimate(interval.mean, interval.lo, interval.hi)


def per_image(run: LoadedRun) -> tuple[str, ...]:
    """Names the scores of which a strongest attack counts: the run's own metrics are among them."""
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


def strongest_rows(run: LoadedRun, point: str, setting: Setting, attacks: list[str] | None = None) -> pd.DataFrame:
    """Returns what the strongest attack reaches on each image: of all that may rebuild most, or of those named.

    It is one attack for all images and seeds, since nobody who lacks the originals can tell on which of them another
    does better. PSNR and leakage are of the attack whose mean PSNR is best, every other score is of the attack that is
    best on average by that score; attacks are compared on the images that all of them were scored on.

    Returns:
        A row a seed and image: seed, image, group, attack and cell (by PSNR), psnr_db, ssim, lpips, leakage, what the
        run's own metrics score, and beside them ``oracle_leakage``, that of the best attack on this very image, and
        ``blind_leakage``, that of the best of as many guesses that see nothing of it.
    """
    chosen = tuple(candidates(run, point, setting) if attacks is None else attacks)
    key = ("strongest", point, setting, chosen)
    # A copy each, for a data frame can be changed.
    return run.once(key, lambda: _strongest(run, image_rows(run, point, setting, list(chosen)))).copy()


def _strongest(run: LoadedRun, rows: pd.DataFrame) -> pd.DataFrame:
    best = rows.drop_duplicates(KEYS)[[*KEYS, "group"]]
    headline = rows[rows["attack"] == strongest(rows, "psnr_db")]
    best = best.merge(headline[[*KEYS, "attack", "cell", "psnr_db", "leakage"]], on=KEYS, how="left")
    best.loc[best["psnr_db"].isna(), ["attack", "cell"]] = ""
    for name in (name for name in per_image(run) if name not in best):
        of_score = rows[rows["attack"] == strongest(rows, name, _leaks_when(run, name))]
        best = best.merge(of_score[[*KEYS, name]], on=KEYS, how="left")
    grouped = rows.groupby(KEYS, sort=False)
    # What a floor reaches is the same for all attacks.
    floor = (rows["psnr_db"] - rows["leakage"]).groupby([rows[key] for key in KEYS]).max()
    beside = {"oracle_leakage": grouped["leakage"].max(), "blind_leakage": grouped[PERMUTED.name].max() - floor}
    best = best.merge(pd.DataFrame(beside).reset_index(), on=KEYS, how="left")
    return best.sort_values(KEYS, kind="stable").reset_index(drop=True)


def _leaks_when(run: LoadedRun, name: str) -> Literal["higher", "lower"]:
    lower = LOWER_LEAKS | {score.name for score in run.own_scores if score.leaks_when == "lower"}
    return "lower" if name in lower else "higher"


def share_of_images(run: LoadedRun, point: str, setting: Setting) -> float:
    """Returns on which share of the images no attack has a higher PSNR than the strongest; NaN where none is scored."""
    rows = image_rows(run, point, setting, candidates(run, point, setting))
    best = strongest_rows(run, point, setting)
    most = best[KEYS].merge(rows.groupby(KEYS)["psnr_db"].max().reset_index(), on=KEYS, how="left")["psnr_db"]
    scored = best["psnr_db"].notna()
    return float((best["psnr_db"] >= most)[scored].mean()) if scored.any() else float("nan")


def quality_per_image(run: LoadedRun, point: str, setting: Setting) -> pd.DataFrame:
    """Returns the task quality of each image, which no attack changes: seed, image, group, quality."""
    rows = image_rows(run, point, setting).sort_values([*KEYS, "attack"], kind="stable")
    return rows.drop_duplicates(KEYS)[[*KEYS, "group", "quality"]].reset_index(drop=True)


def change(defended: pd.DataFrame, baseline: pd.DataFrame, name: str, seed: int) -> Estimate:
    """Averages the difference in column ``name``, image by image, with its interval."""
    pairs = defended.merge(baseline[[*KEYS, name]], on=KEYS, suffixes=("", "_baseline"))
    return estimate(pairs[name] - pairs[f"{name}_baseline"], pairs["group"], seed)
