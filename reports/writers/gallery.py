"""The gallery: originals beside what the strongest attack rebuilds at every operating point."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from leakgauge.harness.errors import StoreError
from leakgauge.harness.scoring.leakage import strongest
from leakgauge.reports.analysis.run import LoadedRun, Setting
from leakgauge.reports.analysis.strongest import candidates, image_rows, strongest_rows
from leakgauge.reports.notation import UNSCORED, is_number, number

Draw = Callable[[str, int], str]
"""Returns a picture, by its sheet and its place there, as a data URI."""

LEAST_CONTRAST = 10.0
"""Standard deviation of pixel values, of 255: below it the mean colour alone reaches 28 dB of PSNR."""

KEPT_BYTES = 2**28
"""What the sheets of a run may take in memory, in bytes: all pictures of a large run at once would not fit."""


@dataclass(frozen=True)
class Picture:
    """One picture: data URI (empty where it is not stored), words for those who cannot see it, caption.

    ``cell`` and ``index`` say which it is among those that the run stores: place ``index`` of the sheet ``cell``.
    """

    uri: str
    alt: str
    score: str
    attack: str
    cell: str = ""
    index: int = -1


@dataclass(frozen=True)
class Strip:
    """A row of the gallery: name, place, a picture an image."""

    name: str
    detail: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """The gallery of a run; ``width`` is how wide a picture is shown, in CSS pixels."""

    headings: tuple[str, ...]
    strips: tuple[Strip, ...]
    width: int


def data_uri(image: NDArray[np.uint8]) -> str:
    """Returns an image (H, W, 3) as a PNG data URI."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def evenly(count: int, wanted: int) -> list[int]:
    """Returns up to ``wanted`` positions spread evenly over ``range(count)``."""
    wanted = min(wanted, count)
    return [int((2 * i + 1) * count / (2 * wanted)) for i in range(wanted)]


class PictureFiles:
    """Reads the sheets of a run, each once, as far as ``KEPT_BYTES`` holds them; ``of`` gives all readers the same.

    On each are ``count`` images of ``height`` by ``width`` pixels.
    """

    def __init__(self, run: LoadedRun) -> None:
        self._run = run
        self._sheets: dict[str, NDArray[np.uint8] | None] = {}
        shape = run.task.get("image_shape") or (3, 0, 0)
        self.height, self.width = int(shape[1]), int(shape[2])
        self.count = int(run.task.get("evaluation_images") or 0)
        self._most = KEPT_BYTES // max(1, self.count * self.height * self.width * 3)

    @classmethod
    def of(cls, run: LoadedRun) -> PictureFiles:
        """Returns the reader of a run."""
        return run.once("pictures", lambda: cls(run))

    def sheet(self, key: str) -> NDArray[np.uint8] | None:
        """Returns a sheet (N, H, W, 3), or None where the run does not store it."""
        if key in self._sheets:
            return self._sheets[key]
        try:
            found = self._run.folder.read_images(key, self.count, self.height, self.width)
        except StoreError:
            found = None
        if found is None or len(self._sheets) < self._most:
            self._sheets[key] = found
        return found

    def forget(self) -> None:
        """Lets go of the sheets in memory, as whoever has shown a run does: a report may be of many."""
        self._sheets.clear()

    def picture(self, key: str, index: int) -> str:
        """Returns image ``index`` of a sheet as a data URI; empty where the run does not store it."""
        found = self.sheet(key)
        return "" if found is None else data_uri(found[index])


def image_order(run: LoadedRun) -> list[str]:
    """Returns the evaluation images in the order of the sheets."""
    for cell in run.cells.loc[run.cells["status"] == "done", "cell"]:
        return [str(image) for image in run.images.loc[run.images["cell"] == cell, "image"]]
    return []


def _no_picture(key: str, index: int) -> str:
    """Stands for ``PictureFiles.picture`` where a page shows pictures by other means."""
    return ""


def _strip(draw: Draw, best: pd.DataFrame, chosen: dict[int, str], words: tuple[str, str]) -> Strip:
    """Builds a row from ``best``: one row an image, with image, cell, attack, psnr_db."""
    by_image = best.set_index("image")
    pictures: list[Picture] = []
    for index, image in chosen.items():
        row = by_image.loc[image] if image in by_image.index else None
        if row is None or not is_number(row["psnr_db"]):
            pictures.append(Picture("", "", UNSCORED, ""))
            continue
        attack = str(row["attack"])
        score = f"{number(row['psnr_db'])} dB"
        alt = f"image {index + 1} rebuilt by {attack} at {words[0]}, {score}"
        pictures.append(Picture(draw(str(row["cell"]), index), alt, score, attack, str(row["cell"]), index))
    return Strip(*words, tuple(pictures))


def _floors(run: LoadedRun, setting: Setting, seed: int) -> pd.DataFrame | None:
    """Returns the rows of the floor that is best on average at the baseline, or None where there is no floor."""
    floors = [attack for attack in run.attacks if run.is_floor(attack)]
    rows = image_rows(run, run.suite.baseline_point, setting, floors)
    rows = rows[rows["seed"] == seed]
    if rows.empty:
        return None
    return rows[rows["attack"] == strongest(rows, "psnr_db")]


def gallery(run: LoadedRun, wanted: int = 6, *, embedded: bool = True) -> Gallery | None:
    """Builds the gallery from evenly spaced evaluation images and the suite's first seed.

    Args:
        run: The run.
        wanted: How many images to show.
        embedded: Whether pictures have a data URI.

    Returns:
        The gallery, or None where no cell is done.
    """
    order = image_order(run)
    places = evenly(len(order), wanted)
    headings = {place: f"Image {place + 1}" for place in places}
    return _pictures(run, order, headings, embedded) if order else None


def extreme_cases(run: LoadedRun, wanted: int = 3, *, embedded: bool = True) -> Gallery | None:
    """Builds a gallery of the images that the strongest attack rebuilds best, and of those it rebuilds worst.

    By PSNR above the best floor, on average over all operating points but the baseline, in the first channel and threat
    model that show any. Images that are hardly more than one colour are left out while there are enough others: a grey
    square rebuilt as a grey square shows nobody what leaks.

    Args:
        run: The run.
        wanted: How many images to show of either kind.
        embedded: Whether pictures have a data URI.

    Returns:
        The gallery, or None where there are not so many images.
    """
    order = image_order(run)
    for setting in run.settings:
        # Where nothing but floors was run nothing leaks most.
        points = [p for p in run.points_at(setting) if candidates(run, p, setting)]
        defended = [p for p in points if p != run.suite.baseline_point] or points
        best = [strongest_rows(run, point, setting) for point in defended]
        if not best:
            continue
        mean = _with_content(run, order, pd.concat(best).groupby("image")["leakage"].mean().reindex(order).dropna())
        if len(mean) < 2 * wanted:
            return None
        ranked = [order.index(str(image)) for image in mean.sort_values(kind="stable").index]
        chosen = {place: f"Leaks most: image {place + 1}" for place in reversed(ranked[-wanted:])}
        chosen |= {place: f"Leaks least: image {place + 1}" for place in ranked[:wanted]}
        return _pictures(run, order, chosen, embedded)
    return None


def _with_content(run: LoadedRun, order: list[str], ranked: pd.Series[float]) -> pd.Series[float]:
    """Leaves out images of less contrast than ``LEAST_CONTRAST``; where originals are not stored, none."""
    sheet = PictureFiles.of(run).sheet("originals")
    if sheet is None:
        return ranked
    contrast = {image: float(sheet[place].std()) for place, image in enumerate(order)}
    return ranked[[contrast[str(image)] >= LEAST_CONTRAST for image in ranked.index]]


def _pictures(run: LoadedRun, order: list[str], headings: dict[int, str], embedded: bool = True) -> Gallery:
    """Builds a gallery of the images at some places of ``order``, each under its heading."""
    chosen = {place: order[place] for place in headings}
    files = PictureFiles.of(run)
    draw = files.picture if embedded else _no_picture
    originals = tuple(
        Picture(draw("originals", index), f"image {index + 1}, original", "original", "", "originals", index)
        for index in chosen
    )
    strips = [Strip("Original", "", originals)]
    seed = run.suite.seeds[0]
    for setting in run.settings:
        detail = f"channel {setting.channel}"
        if len(run.suite.threat_models) > 1:
            detail += f", threat model {setting.threat_model}"
        floor = _floors(run, setting, seed)
        if floor is not None:
            strips.append(_strip(draw, floor, chosen, ("Best floor", detail)))
        for point in run.points_at(setting):
            if not candidates(run, point, setting):
                continue  # nothing that paints a picture of what was sent
            best = strongest_rows(run, point, setting)
            strips.append(_strip(draw, best[best["seed"] == seed], chosen, (point, detail)))
    return Gallery(tuple(headings.values()), tuple(strips), max(104, min(files.width, 160)))
