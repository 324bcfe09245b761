"""Which points of a front dominate which other points, on the evaluation split: paired, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pandas as pd

from leakgauge.harness.scoring.leakage import strongest
from leakgauge.harness.scoring.statistics import Interval, bootstrap_streams, mean_interval
from leakgauge.harness.search.metrics import HIGHER_IS_BETTER
from leakgauge.harness.search.results.front import Front
from leakgauge.harness.store.run_folder import RunFolder

_SETTING = ["channel", "snr_db", "threat_model", "seed"]
_LEAKAGE, _LATENCY = "leakage", "latency_ms"
Row = dict[str, Any]


def image_metrics(store: RunFolder) -> pd.DataFrame:
    """Returns a row an operating point, setting and image: its metrics, with the strongest attack's leakage, in dB.

    The strongest attack is that of the highest mean leakage over the images and seeds of a setting, floors and probes
    left out: who picks another for each image knows the original.
    """
    stated = store.manifest().get("attacks") or {}
    floors = [label for label, entry in stated.items() if entry.get("floor")]
    rows = store.images()
    keys = ["operating_point", *_SETTING, "image"]
    attacked = rows.assign(leakage=rows[_LEAKAGE].where(~rows["attack"].isin(floors)))
    is_strongest = pd.Series(False, index=rows.index)
    places = [key for key in keys if key not in {"seed", "image"}]
    for _, here in attacked.groupby(places, sort=False, dropna=False):
        is_strongest[here.index] = here["attack"] == strongest(here, _LEAKAGE)
    best = attacked.loc[is_strongest, [*keys, _LEAKAGE]]
    return rows.drop_duplicates(keys).drop(columns=_LEAKAGE).merge(best, on=keys, how="left")


def relation(differences: dict[str, Interval]) -> str:
    """Says whether a point dominates another, given its losses minus the other's (below zero is better).

    ``dominates``: on average worse nowhere, and clearly better somewhere; ``clearly dominates``: clearly better in all.
    Clearly means that the 95 % interval of the paired difference excludes zero. The other way round it ``is
    dominated`` or ``is clearly dominated``; else ``neither``. ``unscored`` where a difference is not known.
    """
    found = differences.values()
    if any(d.n == 0 for d in found):
        return "unscored"
    if all(d.hi < 0 for d in found):
        return "clearly dominates"
    if all(d.lo > 0 for d in found):
        return "is clearly dominated"
    if all(d.mean <= 0 for d in found) and any(d.hi < 0 for d in found):
        return "dominates"
    if all(d.mean >= 0 for d in found) and any(d.lo > 0 for d in found):
        return "is dominated"
    return "neither"


def dominance(front: Front, store: RunFolder) -> pd.DataFrame:
    """Compares every point of a front with every baseline, in every setting both were measured in.

    Latency, which no image has of its own, is left out.

    Returns:
        A row a pair: the difference in each objective, point minus baseline in the metric's unit with its interval,
        and the ``relation`` of the point to the baseline.
    """
    objectives = [name for name in front.objectives if name != _LATENCY]
    names = [point.name for point in front.points]
    baselines = ["undefended", *(point.name for point in front.baselines)]
    rows: list[Row] = []
    for setting, here in image_metrics(store).groupby(_SETTING, sort=False, dropna=False):
        points = {str(name): images.set_index("image") for name, images in here.groupby("operating_point", sort=False)}
        seed = int(here["seed"].iloc[0])
        for name, other in _pairs(names, baselines, points):
            differences = _differences(points[name], points[other], objectives, seed)
            row: Row = {"operating_point": name, "other": other, **dict(zip(_SETTING, setting, strict=True))}
            losses = {}
            for objective, interval in differences.items():
                row |= {
                    objective: interval.mean,
                    f"{objective}_lo": interval.lo,
                    f"{objective}_hi": interval.hi,
                }
                losses[objective] = _as_loss(objective, interval)
            rows.append({**row, "relation": relation(losses)})
    return pd.DataFrame(rows)


def _pairs(
    names: Sequence[str], baselines: Sequence[str], points: dict[str, pd.DataFrame]
) -> Iterator[tuple[str, str]]:
    return ((name, other) for name, other in product(names, baselines) if name in points and other in points)


def _differences(point: pd.DataFrame, other: pd.DataFrame, objectives: Sequence[str], seed: int) -> dict[str, Interval]:
    joined = point.merge(other[list(objectives)], left_index=True, right_index=True, suffixes=("", "_other"))
    groups = joined["group"].to_numpy()
    return {
        name: mean_interval((joined[name] - joined[f"{name}_other"]).to_numpy(), groups, bootstrap_streams(seed))
        for name in objectives
    }


def _as_loss(objective: str, difference: Interval) -> Interval:
    if objective not in HIGHER_IS_BETTER:
        return difference
    return difference._replace(mean=-difference.mean, lo=-difference.hi, hi=-difference.lo)
