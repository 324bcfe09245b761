"""The tables of a run that asked questions: quality by kind of question, and cost by part of the victim."""

from __future__ import annotations

from typing import Any

from leakgauge.reports.analysis.run import LoadedRun, rows_of
from leakgauge.reports.notation import is_number
from leakgauge.reports.tables.table import Grid, Heading, Value, figure, ranged, words

QUESTIONS_NOTE = (
    "The payload of an image is sent once, however many questions are asked about it. Tower and projector run once an "
    "image, the language model once a question; totals are those of one question. Intervals resample images; changes "
    "are paired with the unmodified victim."
)
_PARTS = ("tower", "projector", "prefill", "decoding")


def kinds_grid(run: LoadedRun) -> Grid | None:
    """Returns quality by kind of question, a row an operating point; None where nothing was asked."""
    rows = rows_of(run.kinds)
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    if not rows:
        return None
    places: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        place = (str(row["operating_point"]), str(row["channel"]), int(row["seed"]))
        places.setdefault(place, {})[str(row["kind"])] = row
    several = len({seed for _, _, seed in places}) > 1
    table: list[list[Value]] = []
    for (point, channel, seed), found in places.items():
        line = [words(point), words(channel, f"seed {seed}" if several else "")]
        for kind in kinds:
            own = found.get(kind)
            line += [figure(None)] * 2 if own is None else _scored(own)
        table.append(line)
    headings = [Heading("Operating point", "", numeric=False), Heading("Channel", "", numeric=False)]
    for kind in kinds:
        headings += [Heading(kind.capitalize(), "% right"), Heading(f"{kind.capitalize()}, change", "points")]
    return Grid(f"Quality by kind of question of {run.label}", headings, table)


def _scored(row: dict[str, Any]) -> list[Value]:
    return [ranged(row, "quality", 1, scale=100), ranged(row, "change", 1, signed=True, scale=100)]


def parts_grid(run: LoadedRun) -> Grid | None:
    """Returns cost by part of the victim, a row an operating point and channel; None where nothing was asked."""
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows_of(run.cells):
        if is_number(row["gflops_prefill"]):
            cells.setdefault((str(row["operating_point"]), str(row["channel"])), row)
    if not cells:
        return None
    base = {channel: row for (point, channel), row in cells.items() if point == run.suite.baseline_point}
    table = []
    for (point, channel), row in cells.items():
        whole = base.get(channel)
        table.append(
            [
                words(point),
                words(channel),
                *(figure(row[f"gflops_{part}"], 4) for part in _PARTS),
                figure(row["gflops_total"], 4),
                figure(_share(row, whole, "gflops_total"), 1, scale=100),
                figure(row["gflops_edge"], 4),
                figure(row["tokens"], 1),
                figure(_share(row, whole, "tokens"), 1, scale=100),
                figure(row["payload_bytes"], 0),
                figure(_share(row, whole, "payload_bytes"), 1, scale=100),
                figure(row["payload_bytes"] / row["questions"], 0),
                figure(row["channel_uses"] / row["questions"], 0),
            ]
        )
    headings = [
        Heading("Operating point", "", numeric=False),
        Heading("Channel", "", numeric=False),
        Heading("Tower", "GFLOP/image"),
        Heading("Projector", "GFLOP/image"),
        Heading("Prefill", "GFLOP/question"),
        Heading("Decoding", "GFLOP/question"),
        Heading("Total", "GFLOP, one question"),
        Heading("Share of baseline", "%"),
        Heading("Edge", "GFLOP/image"),
        Heading("Tokens sent", "per image"),
        Heading("Share of baseline", "%"),
        Heading("Payload", "byte/image"),
        Heading("Share of baseline", "%"),
        Heading("Payload", "byte/question"),
        Heading("Channel uses", "symbol/question"),
    ]
    return Grid(f"Cost by part of {run.label}", headings, table)


def _share(row: dict[str, Any], whole: dict[str, Any] | None, name: str) -> float | None:
    return None if whole is None or not whole[name] else float(row[name]) / float(whole[name])


def question_grids(run: LoadedRun) -> tuple[Grid, ...]:
    """Returns the tables of a run that asked questions; none of another."""
    grids = (kinds_grid(run), parts_grid(run))
    return tuple(grid for grid in grids if grid is not None)
