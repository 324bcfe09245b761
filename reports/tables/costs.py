"""What an operating point costs, taken apart: bytes into values and what goes with them, FLOPs into edge and server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.notation import UNSCORED, is_number, number
from leakgauge.reports.tables.table import Grid, Heading, Value, figure, words

_STAGES = (
    ("gflops_tower", "Vision tower"),
    ("gflops_projector", "Projector"),
    ("gflops_prefill", "Prefill"),
    ("gflops_decoding", "Decoding"),
)
"""What a vision-language model's operations are made of; other tasks leave them unscored."""

COSTS_NOTE = (
    "Means over images. Side information is what the receiver needs beside the values: a fixed header, sizes, "
    "positions, tables of a code. FLOPs count merging too."
)


@dataclass(frozen=True)
class Segment:
    """A part of a bar: what it stands for, how wide it is in per cent of the widest bar, its value in words."""

    name: str
    width: float
    text: str


@dataclass(frozen=True)
class Bars:
    """The two bars of an operating point, and what they come to."""

    name: str
    detail: str
    payload: tuple[Segment, ...]
    payload_total: str
    flops: tuple[Segment, ...]
    flops_total: str


@dataclass(frozen=True)
class Costs:
    """The cost breakdown of a run: bars to see, a table to read."""

    bars: tuple[Bars, ...]
    table: Grid


def _rest(whole: float, part: float) -> float:
    """Returns what is left of a whole, never below zero for the sake of a rounding; NaN where either is unscored."""
    return max(whole - part, 0.0) if is_number(whole) and is_number(part) else float("nan")


def _stages(run: LoadedRun, row: Row) -> dict[str, float]:
    """Returns the mean operations of each stage over the cells of an operating point, without those unscored."""
    cells = run.cells_at(Setting(row["channel"], row["threat_model"]), str(row["operating_point"]))
    found = {}
    for name, _ in _STAGES:
        values = [float(cell[name]) for cell in cells if is_number(cell.get(name))]
        if values:
            found[name] = fmean(values)
    return found


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Leaves out what costs the same at the same operating point: threat models change no cost, channels few."""
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row["operating_point"], *(row[name] for name in ("payload_bytes", "side_bytes", "gflops_total")))
        found.setdefault(tuple(repr(part) for part in key), row)
    return list(found.values())


def _segments(names: Sequence[str], values: Sequence[float], widest: float, digits: int) -> tuple[Segment, ...]:
    return tuple(
        Segment(name, round(100 * value / widest, 2), number(value, digits))
        for name, value in zip(names, values, strict=True)
        if is_number(value) and widest > 0
    )


def _bars(row: Row, several: bool, widest: tuple[float, float]) -> Bars:
    side, edge = row["side_bytes"], row["gflops_edge"]
    payload = (_rest(row["payload_bytes"], side), side)
    flops = (edge, _rest(row["gflops_total"], edge))
    told = [number(row[name], digits) for name, digits in (("payload_bytes", 0), ("gflops_total", 3))]
    return Bars(
        name=str(row["operating_point"]),
        detail=f"channel {row['channel']}" if several else "",
        payload=_segments(("values", "header and side information"), payload, widest[0], 0),
        payload_total=told[0] if told[0] == UNSCORED else f"{told[0]} byte",
        flops=_segments(("edge", "server"), flops, widest[1], 3),
        flops_total=told[1] if told[1] == UNSCORED else f"{told[1]} GFLOP",
    )


def costs(run: LoadedRun, rows: Sequence[Row]) -> Costs:
    """Takes apart what operating points cost.

    Args:
        run: The run.
        rows: Its operating points, as ``leakgauge.reports.analysis.operating_points.point_rows`` gives them.
    """
    shown = _distinct(rows)
    several = len({row["channel"] for row in shown}) > 1
    ends = ([float(row[name]) for row in shown if is_number(row[name])] for name in ("payload_bytes", "gflops_total"))
    bytes_most, flops_most = (max(values, default=0.0) for values in ends)
    stages = [_stages(run, row) for row in shown]
    known = [(name, heading) for name, heading in _STAGES if any(name in stage for stage in stages)]
    headings = [
        Heading("Operating point", "", numeric=False),
        Heading("Payload", "byte/image"),
        Heading("Values", "byte/image"),
        Heading("Header and side information", "byte/image"),
        Heading("FLOPs", "GFLOP/image"),
        Heading("Edge", "GFLOP/image"),
        Heading("Server", "GFLOP/image"),
        *(Heading(heading, "GFLOP/image") for _, heading in known),
    ]
    table: list[list[Value]] = [
        [
            words(row["operating_point"], f"channel {row['channel']}" if several else ""),
            figure(row["payload_bytes"], 0),
            figure(_rest(row["payload_bytes"], row["side_bytes"]), 0),
            figure(row["side_bytes"], 0),
            figure(row["gflops_total"], 3),
            figure(row["gflops_edge"], 3),
            figure(_rest(row["gflops_total"], row["gflops_edge"]), 3),
            *(figure(stage.get(name), 3) for name, _ in known),
        ]
        for row, stage in zip(shown, stages, strict=True)
    ]
    return Costs(
        tuple(_bars(row, several, (bytes_most, flops_most)) for row in shown),
        Grid(f"What the operating points of {run.label} cost", headings, table),
    )
