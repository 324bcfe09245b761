"""Leakage: which floor it is counted from, which attack it is of, and what a guess that sees nothing reaches.

Whoever picks the best of several guesses for each image knows the original: even guesses that see nothing of it then
lie decibels above any one of them. Floors and attacks are therefore chosen by their means over images, each once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leakgauge.harness.values.seeding import Streams

Values: TypeAlias = NDArray[np.float64]
EXPOSURE = ["operating_point", "channel", "threat_model", "seed"]
"""What all cells of an exposure share."""


def best_on_average(scores: Mapping[str, Values], leaks_when: Literal["higher", "lower"] = "higher") -> str:
    """Returns the name whose mean is best; of equal ones the first by name, empty where nothing is scored.

    Names that are scored on different images are compared on those that they share; where they share none, each by its
    own.

    Args:
        scores: By name (n,) values of the same images, NaN where unscored.
        leaks_when: Which way is better.
    """
    known = {name: scores[name] for name in sorted(scores) if not np.isnan(scores[name]).all()}
    if not known:
        return ""
    table = np.stack(list(known.values()))
    shared = ~np.isnan(table).any(axis=0)
    means = np.nanmean(table[:, shared] if shared.any() else table, axis=1)
    return list(known)[int((means if leaks_when == "higher" else -means).argmax())]


def strongest(rows: pd.DataFrame, score: str, leaks_when: Literal["higher", "lower"] = "higher") -> str:
    """Returns the attack that leaks most by a score on average over images and seeds; empty where nothing is scored.

    Args:
        rows: A row an attack, seed and image.
        score: The column of the score.
        leaks_when: Which way more leaks.
    """
    table = rows.pivot_table(index=["seed", "image"], columns="attack", values=score, dropna=False, observed=True)
    return best_on_average({str(name): table[name].to_numpy(dtype=float) for name in table}, leaks_when)


def unrelated(groups: NDArray[np.int64], streams: Streams) -> NDArray[np.int64] | None:
    """Draws for each image another that has nothing to do with it: a permutation that never stays within a cluster.

    Where one cluster holds more than half of the images there is no such permutation, and images outside it are drawn
    for more than one within.

    Args:
        groups: (n,) cluster of each image.
        streams: Where the draws come from.

    Returns:
        (n,) for each image the number of the other; None where all are of one cluster.
    """
    if len(np.unique(groups)) < 2:
        return None
    rng = streams.numpy()
    order: NDArray[np.int64] = rng.permutation(len(groups)).astype(np.int64)
    for image in range(len(groups)):
        if groups[order[image]] != groups[image]:
            continue
        # One exchange mends an image and spoils no other; there is one as long as no cluster holds more than half.
        free = np.flatnonzero((groups != groups[image]) & (groups[order] != groups[image]))
        if len(free):
            other = rng.choice(free)
            order[image], order[other] = order[other], order[image]
        else:
            order[image] = rng.choice(np.flatnonzero(groups != groups[image]))
    return order


def recounted(images: pd.DataFrame, floors: Collection[str]) -> pd.DataFrame:
    """Returns the rows of images.parquet with leakage above the floor that is best on average in each exposure.

    Runs of schema versions up to 5 counted it from the best floor on each image.

    Args:
        images: The rows.
        floors: Labels of the floors.
    """
    is_floor = images["attack"].isin(floors)
    keys = [*EXPOSURE, "image"]
    # Where an exposure has no floor nothing is known of what leaks.
    best = {place: strongest(rows, "psnr_db") for place, rows in images[is_floor].groupby(EXPOSURE, sort=False)}
    chosen = [best.get(place) for place in images[EXPOSURE].itertuples(index=False, name=None)]
    floor = images[is_floor & (images["attack"] == pd.Series(chosen, index=images.index))]
    known = floor[[*keys, "psnr_db"]].rename(columns={"psnr_db": "floor"}).drop_duplicates(keys)
    above = images[keys].merge(known, on=keys, how="left")["floor"].to_numpy()
    return images.assign(leakage=images["psnr_db"].to_numpy() - above)
