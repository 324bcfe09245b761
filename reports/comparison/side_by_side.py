"""The same operating points of several runs beside each other: leakage, quality, costs, pictures, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.analysis.strongest import candidates, strongest_rows
from leakgauge.reports.comparison.compare import Compared, Comparison
from leakgauge.reports.notation import UNSCORED, bounds, is_number, number
from leakgauge.reports.tables.table import Tone
from leakgauge.reports.writers.first_screen import LeakageBar, leakage_bar, shown_verdict
from leakgauge.reports.writers.gallery import Picture, PictureFiles, evenly, image_order

PICTURES, WORST = 5, 6
TONES: dict[str, Tone] = {"worse": "bad", "better": "good", "not comparable": "warn"}


class Place(NamedTuple):
    """An operating point over one channel under one threat model."""

    point: str
    setting: Setting


@dataclass(frozen=True)
class Change:
    """How leakage of a place differs from the first run's, in words: the outcome, the difference, why none is told."""

    outcome: str
    tone: Tone
    difference: str
    why: str


@dataclass(frozen=True)
class RunRow:
    """One run's row at a place."""

    run: str
    quality: str
    payload: str
    leakage: str
    interval: str
    bar: LeakageBar | None
    verdict: str
    tone: Tone
    reason: str
    change: Change | None
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Shared:
    """A place and the runs that measured it, in their order."""

    name: str
    where: str
    anchor: str
    originals: tuple[Picture, ...]
    entries: tuple[RunRow, ...]


def _places(runs: Sequence[LoadedRun]) -> list[Place]:
    """Returns all places, those that most runs share first within the order of the runs."""
    found: dict[Place, int] = {}
    for run in runs:
        for setting in run.settings:
            for point in run.points_at(setting):
                place = Place(point, setting)
                found[place] = found.get(place, 0) + 1
    return sorted(found, key=lambda place: -found[place])


def _change(comparison: Comparison | None, place: Place) -> Change | None:
    if comparison is None:
        return None
    where = f"{place.point}, {place.setting.said}"
    rows = [row for row in comparison.rows if row.place == where and row.measure.name == "leakage"]
    if not rows:
        return None
    row: Compared = rows[0]
    told = ""
    if row.difference is not None:
        ends = bounds(row.difference.lo, row.difference.hi, 1, signed=True)
        told = f"{number(row.difference.mean, 1, signed=True)} dB {ends}"
    return Change(row.outcome, TONES.get(row.outcome, "muted"), told, row.why)


def _pictures(run: LoadedRun, place: Place, chosen: Sequence[str]) -> tuple[Picture, ...]:
    """Returns what the strongest attack rebuilds of some images; nothing where the point was not attacked."""
    if not candidates(run, place.point, place.setting):
        return ()
    best = strongest_rows(run, place.point, place.setting)
    return rebuilt(run, best, chosen, place.point)


def rebuilt(run: LoadedRun, best: pd.DataFrame, chosen: Sequence[str], point: str) -> tuple[Picture, ...]:
    """Returns pictures of the strongest attack on some images, ``best`` as ``strongest_rows`` gives it."""
    files, order = PictureFiles.of(run), image_order(run)
    by_image = best[best["seed"] == run.suite.seeds[0]].set_index("image")
    found = []
    for image in chosen:
        row = by_image.loc[image] if image in by_image.index else None
        if row is None or not is_number(row["psnr_db"]) or image not in order:
            found.append(Picture("", "", UNSCORED, ""))
            continue
        score = f"{number(row['psnr_db'])} dB"
        alt = f"image {order.index(image) + 1} rebuilt by {row['attack']} at {point} in {run.label}, {score}"
        uri = files.picture(str(row["cell"]), order.index(image))
        found.append(Picture(uri, alt, score, str(row["attack"])))
    return tuple(found)


def originals(run: LoadedRun, chosen: Sequence[str]) -> tuple[Picture, ...]:
    """Returns the originals of some images, as far as the run stores them."""
    files, order = PictureFiles.of(run), image_order(run)
    places = [order.index(image) if image in order else -1 for image in chosen]
    return tuple(
        Picture(files.picture("originals", place) if place >= 0 else "", f"image {place + 1}, original", "", "")
        for place in places
    )


def common_images(runs: Sequence[LoadedRun]) -> list[str]:
    """Returns images that all runs attacked, evenly spaced; of those of the first run where they share none."""
    order = image_order(runs[0])
    shared = set(order).intersection(*(image_order(run) for run in runs[1:])) or set(order)
    there = [image for image in order if image in shared]
    return [there[place] for place in evenly(len(there), PICTURES)]


def side_by_side(
    runs: Sequence[LoadedRun], rows: Sequence[Sequence[Row]], comparisons: Sequence[Comparison | None]
) -> tuple[Shared, ...]:
    """Returns every place with all runs that measured it.

    Args:
        runs: The runs.
        rows: The operating points of each, as ``point_rows`` gives them.
        comparisons: Each run against the first; None for the first itself.
    """
    scored = [row for own in rows for row in own if is_number(row["strongest_leakage"])]
    ends = [row[f"strongest_leakage{end}"] for row in scored for end in ("", "_hi")]
    widest = max((float(end) for end in ends if is_number(end)), default=0.0)
    chosen = common_images(runs)
    found = []
    for number_, place in enumerate(_places(runs), start=1):
        entries = []
        for run, own, comparison in zip(runs, rows, comparisons, strict=True):
            row = next((row for row in own if _place_of(row) == place), None)
            if row is not None:
                entries.append(_entry(run, row, place, widest, _change(comparison, place), chosen))
        where = place.setting.said
        first = next(run for run in runs if any(run.label == entry.run for entry in entries))
        found.append(Shared(place.point, where, f"place{number_}", originals(first, chosen), tuple(entries)))
    return tuple(found)


def _place_of(row: Row) -> Place:
    return Place(str(row["operating_point"]), Setting(str(row["channel"]), str(row["threat_model"])))


def _entry(
    run: LoadedRun, row: Row, place: Place, widest: float, change: Change | None, chosen: Sequence[str]
) -> RunRow:
    lo, hi = row.get("strongest_leakage_lo"), row.get("strongest_leakage_hi")
    verdict, tone = shown_verdict(row)
    return RunRow(
        run=run.label,
        quality=f"{number(row['quality'], 1, scale=100)} %" if is_number(row["quality"]) else UNSCORED,
        payload=f"{number(row['payload_bytes'], 0)}" if is_number(row["payload_bytes"]) else UNSCORED,
        leakage=f"{number(row['strongest_leakage'], 1)} dB" if is_number(row["strongest_leakage"]) else UNSCORED,
        interval=bounds(lo, hi, 1) if is_number(lo) and is_number(hi) else "",
        bar=leakage_bar(row, widest),
        verdict=verdict,
        tone=tone,
        reason=str(row["reason"]),
        change=change,
        pictures=_pictures(run, place, chosen),
    )


@dataclass(frozen=True)
class WorseImage:
    """An image that leaks more than before: its pictures, and by how much."""

    where: str
    original: Picture
    before: Picture
    after: Picture
    change: str


def worse_images(base: LoadedRun, new: LoadedRun, wanted: int = WORST) -> tuple[WorseImage, ...]:
    """Returns the images whose leakage rose most at an operating point that both runs attacked, the most first."""
    risen: list[tuple[float, Place, str, pd.DataFrame, pd.DataFrame]] = []
    for setting in new.settings:
        for point in new.points_at(setting):
            known = setting in base.settings and point in base.points_at(setting)
            if not known or not (candidates(base, point, setting) and candidates(new, point, setting)):
                continue
            before, after = (strongest_rows(run, point, setting) for run in (base, new))
            pairs = after.merge(before, on=["seed", "image"], suffixes=("", "_before"))
            pairs = pairs[pairs["seed"] == new.suite.seeds[0]]
            rise = (pairs["leakage"] - pairs["leakage_before"]).tolist()  # of what is unscored NaN, above nothing
            risen += [
                (float(value), Place(point, setting), str(image), before, after)
                for value, image in zip(rise, pairs["image"], strict=True)
                if value > 0
            ]
    risen.sort(key=lambda one: (-one[0], one[1].point, one[2]))
    found = []
    for value, place, image, before, after in risen[:wanted]:
        (was,), (now,) = rebuilt(base, before, [image], place.point), rebuilt(new, after, [image], place.point)
        told = f"{number(value, 1, signed=True)} dB"
        found.append(WorseImage(place.point, originals(new, [image])[0], was, now, told))
    return tuple(found)
