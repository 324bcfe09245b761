"""The image explorer: any image as any attack rebuilds it at any operating point, beside any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.analysis.strongest import candidates, image_rows, strongest_rows
from leakgauge.reports.notation import is_number
from leakgauge.reports.writers.first_screen import FirstScreen
from leakgauge.reports.writers.gallery import Gallery, image_order
from leakgauge.reports.writers.interactive_frontier import STRONGEST
from leakgauge.reports.writers.picture_sheets import Sheets, picture_sheets

_SCORES = (("psnr_db", 2), ("ssim", 3), ("lpips", 3), ("leakage", 2))


def sheets_of(run: LoadedRun, galleries: Sequence[Gallery | None]) -> Sheets | None:
    """Builds the sheets of a run's reconstructions, with the images of galleries; None where nothing is stored."""
    done = run.cells[(run.cells["status"] == "done") & (run.cells["seed"] == run.suite.seeds[0])]
    cells = [str(row.cell) for row in done.itertuples() if not run.is_probe(str(row.attack))]
    first = [picture.index for shown in galleries if shown is not None for picture in shown.strips[0].pictures]
    return picture_sheets(run, cells, first)


def _scores(rows: pd.DataFrame, images: list[str]) -> dict[str, list[float | None]]:
    """Returns what each of the images scores, None where it is unscored."""
    by_image = rows.drop_duplicates("image").set_index("image")
    found: dict[str, list[float | None]] = {}
    for name, digits in _SCORES:
        values = by_image[name].reindex(images).tolist()
        found[name] = [round(float(value), digits) if is_number(value) else None for value in values]
    return found


def _strongest(best: pd.DataFrame, images: list[str], names: list[str]) -> list[int]:
    attacks = best.drop_duplicates("image").set_index("image")["attack"].reindex(images)
    return [names.index(attack) if attack in names else -1 for attack in attacks]


def _at(run: LoadedRun, point: str, setting: Setting, images: list[str], sheets: Sheets) -> Row | None:
    """Returns an operating point: its attacks with their sheet and scores, and by image the number of the strongest.

    It is -1 where that one is unscored.
    """
    seed = run.suite.seeds[0]
    attacks: list[dict[str, Any]] = []
    rebuilding = [a for a in candidates(run, point, setting) if not run.is_floor(a)]
    labels = dict.fromkeys(str(cell["attack"]) for cell in run.cells_at(setting, point))
    for attack in (*rebuilding, *(label for label in labels if run.is_floor(label))):
        rows = image_rows(run, point, setting, [attack])
        rows = rows[rows["seed"] == seed]
        if rows.empty:
            continue
        cell = str(rows["cell"].iloc[0])
        stored = list(sheets.uris)
        attacks.append(
            {
                "name": attack,
                "floor": run.is_floor(attack),
                "sheet": stored.index(cell) if cell in stored else None,
                **_scores(rows, images),
            }
        )
    if not attacks:
        return None
    names = [str(entry["name"]) for entry in attacks]
    best = strongest_rows(run, point, setting) if rebuilding else pd.DataFrame()
    strongest = _strongest(best[best["seed"] == seed], images, names) if rebuilding else [-1] * len(images)
    return {"name": point, "attacks": attacks, "strongest": strongest}


def explorer_data(run: LoadedRun, screen: FirstScreen, sheets: Sheets | None) -> dict[str, Any] | None:
    """Returns what the page's script shows pictures by; None where the run stores no picture.

    Args:
        run: The run.
        screen: Its first screen, in whose order settings and operating points are offered.
        sheets: Its pictures, which the page holds as the styles ``sheet0``, ``sheet1`` and so on, in their order.
    """
    if sheets is None or "originals" not in sheets.uris:
        return None
    order = image_order(run)
    if not order:  # nothing was measured yet
        return None
    images = [order[place] for place in sheets.images]
    settings = []
    for part in screen.parts:
        setting = Setting(part.channel, part.threat_model)
        points = [_at(run, line.name, setting, images, sheets) for line in part.lines]
        settings.append({"name": part.place, "points": [point for point in points if point is not None]})
    return {
        "images": [place + 1 for place in sheets.images],
        "of": len(order),
        "settings": [setting for setting in settings if setting["points"]],
        "original": list(sheets.uris).index("originals"),
        "strongest": STRONGEST,
    }
