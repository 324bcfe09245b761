"""The table of worst cases: what the mean of leakage hides, by operating point."""

from __future__ import annotations

from leakgauge.reports.analysis.run import LoadedRun, Row
from leakgauge.reports.analysis.worst_cases import MARKS, PERCENTILE
from leakgauge.reports.tables.table import Grid, Heading, Value, figure, ranged, words


def worst_cases_grid(run: LoadedRun, rows: list[Row]) -> Grid:
    """Returns mean and percentile of leakage, what the best attack on each image reaches, and recognisable shares.

    Args:
        run: The run.
        rows: Its operating points, from ``leakgauge.reports.analysis.operating_points.point_rows``.
    """
    settings = {(row["channel"], row["threat_model"]) for row in rows}
    headings = [
        Heading("Operating point", numeric=False),
        *([Heading("Channel and threat model", numeric=False)] if len(settings) > 1 else []),
        Heading("Mean leakage", "dB above floor"),
        Heading(f"{PERCENTILE}th percentile", "dB above floor"),
        Heading("Picked by image", "dB above floor"),
        Heading("Blind guesses, picked by image", "dB above floor"),
        *(Heading("Recognisable", f"% of images, {mark.sign}") for mark in MARKS),
        Heading("Re-identified by judge", "% of images"),
        Heading("Images", "scored"),
    ]
    table: list[list[Value]] = []
    for row in rows:
        place = f"{row['channel']}, {row['threat_model']}"
        table.append(
            [
                words(row["operating_point"], "baseline" if row["baseline"] == "yes" else ""),
                *([words(place)] if len(settings) > 1 else []),
                ranged(row, "strongest_leakage", 2),
                figure(row["leakage_p95"], 2),
                ranged(row, "oracle_leakage", 2),
                ranged(row, "blind_leakage", 2),
                *(ranged(row, mark.column, 1, scale=100) for mark in MARKS),
                ranged(row, "judge_reid_top1", 1, scale=100),
                figure(int(row["n"]), 0),
            ]
        )
    return Grid(f"Worst cases of {run.label}", headings, table)
