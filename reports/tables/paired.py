"""Paired comparisons: operating point against operating point, attack against attack, on the same images."""

from __future__ import annotations

import pandas as pd

from leakgauge.reports.analysis.run import LoadedRun, Setting
from leakgauge.reports.analysis.strongest import Estimate, change, estimate, image_rows, strongest_rows
from leakgauge.reports.notation import bounds
from leakgauge.reports.tables.table import Grid, Heading, Value, figure, words

PAIRED_NOTE = (
    "Differences are taken image by image, with 95 % intervals; positive means that more is rebuilt. "
    "Where the interval includes zero the two cannot be told apart. Intervals are not corrected for how many there are."
)


def _entry(difference: Estimate) -> Value:
    """Writes a signed difference in dB; one whose interval excludes zero is what can be told apart."""
    detail = bounds(difference.lo, difference.hi, 2, signed=True)
    value = figure(difference.mean, 2, signed=True, detail=detail)
    if difference.lo <= 0 <= difference.hi:
        return Value(value.text, value.detail, value.sort, "muted", True)
    return value


def points_paired(run: LoadedRun, setting: Setting) -> Grid | None:
    """Returns row minus column in PSNR of the strongest attack on average, dB; None for under three points.

    What is compared with the baseline alone stands in the table of operating points.
    """
    best = {point: strongest_rows(run, point, setting) for point in run.points_at(setting)}
    best = {point: rows for point, rows in best.items() if rows["psnr_db"].notna().any()}
    if len(best) < 3:
        return None
    seed = run.suite.seeds[0]
    rows = [
        [
            words(point),
            *(
                Value("", "", "", "muted", True) if point == other else _entry(change(own, others, "psnr_db", seed))
                for other, others in best.items()
            ),
        ]
        for point, own in best.items()
    ]
    headings = [Heading("PSNR of", "", numeric=False), *(Heading(f"minus {point}", "dB") for point in best)]
    place = setting.said
    return Grid(f"Strongest attack at each point, row minus column, {place}", headings, rows)


def _attacks_at(run: LoadedRun, point: str, channel: str) -> dict[tuple[str, str], pd.DataFrame]:
    """Returns the scored images of every attack that rebuilds something, by attack and threat model."""
    found = {}
    for setting in run.settings:
        if setting.channel != channel:
            continue
        for cell in run.cells_at(setting, point):
            attack = str(cell["attack"])
            if not run.is_floor(attack) and not run.is_probe(attack) and cell["status"] == "done":
                rows = image_rows(run, point, setting, [attack])
                if rows["psnr_db"].notna().any():
                    found[attack, setting.threat_model] = rows
    return found


def attacks_paired(run: LoadedRun) -> Grid | None:
    """Returns how far every attack stays behind the best one on an operating point, whatever either was granted.

    None where nowhere two attacks meet.
    """
    seed, rows = run.suite.seeds[0], []
    places = dict.fromkeys((s.channel, point) for s in run.settings for point in run.points_at(s))
    for channel, point in places:
        attacks = _attacks_at(run, point, channel)
        if len(attacks) < 2:
            continue
        ranked = sorted(attacks, key=lambda name: -float(attacks[name]["psnr_db"].mean()))
        for name in ranked:
            mean = estimate(attacks[name]["psnr_db"], attacks[name]["group"], seed)
            behind = change(attacks[name], attacks[ranked[0]], "psnr_db", seed)
            rows.append(
                [
                    words(point, channel),
                    words(name[0], name[1]),
                    figure(mean.mean, 2, detail=bounds(mean.lo, mean.hi)),
                    words("best here", tone="good") if name == ranked[0] else _entry(behind),
                ]
            )
    headings = [
        Heading("Operating point", "", numeric=False),
        Heading("Attack", "threat model", numeric=False),
        Heading("PSNR", "dB"),
        Heading("Behind the best", "dB, paired"),
    ]
    return Grid("Attack against attack on the same images", headings, rows) if rows else None


def paired_grids(run: LoadedRun) -> tuple[Grid, ...]:
    """Returns all paired comparisons of a run that has any."""
    return run.once("paired", lambda: _paired_grids(run))


def _paired_grids(run: LoadedRun) -> tuple[Grid, ...]:
    grids = [*(points_paired(run, setting) for setting in run.settings), attacks_paired(run)]
    return tuple(grid for grid in grids if grid is not None)
