"""Leakage of several runs in one figure: a colour a run, a marker an operating point."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leakgauge.reports.analysis.run import LoadedRun, Row
from leakgauge.reports.figures.figures import Plot
from leakgauge.reports.figures.palette import COLOURS, INK, MARKERS, MUTED, SETTINGS
from leakgauge.reports.notation import is_number

_AXES = (
    ("payload_bytes", "payload (kB/image)", 1e-3),
    ("quality", "task quality (%)", 100.0),
)


def overlaid_frontier(runs: Sequence[LoadedRun], rows: Sequence[Sequence[Row]]) -> Plot | None:
    """Draws leakage against bytes and against quality; None where nothing is scored.

    Args:
        runs: The runs.
        rows: The operating points of each, as ``point_rows`` gives them.
    """
    scored = [[row for row in own if is_number(row["strongest_leakage"])] for own in rows]
    if not any(scored):
        return None
    points = list(dict.fromkeys(str(row["operating_point"]) for own in scored for row in own))
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        for axes, (name, label, scale) in zip(figure.subplots(1, 2, sharey=True), _AXES, strict=True):
            for colour, own in zip(_colours(len(runs)), scored, strict=True):
                for row in own:
                    _draw(axes, row, float(row[name]) * scale, colour, points)
            axes.axhline(0.0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            axes.set_xlabel(label)
            if name != "quality":
                axes.set_xlim(left=0.0)
        figure.axes[0].set_ylabel("leakage (dB above the best blind guess)")
        figure.legend(handles=_legend(runs, points), loc="outside lower center", ncols=4)
    caption = "Lower is better. A hollow marker leaks at least so much. Vertical lines are 95 % intervals."
    return Plot("runs", "Leakage and what it costs, all runs", "", caption, figure)


def _colours(count: int) -> list[str]:
    return [(INK, *COLOURS)[number % (1 + len(COLOURS))] for number in range(count)]


def _marker(points: Sequence[str], point: str) -> str:
    return MARKERS[points.index(point) % len(MARKERS)]


def _draw(axes: matplotlib.axes.Axes, row: Row, x: float, colour: str, points: Sequence[str]) -> None:
    y, lo, hi = (float(row[f"strongest_leakage{end}"]) for end in ("", "_lo", "_hi"))
    axes.plot([x, x], [lo, hi], color=colour, linewidth=1.1, zorder=2)
    axes.plot(
        [x],
        [y],
        marker=_marker(points, str(row["operating_point"])),
        markersize=6.5,
        linestyle="none",
        color=colour,
        markerfacecolor=colour if row["verdict"] == "conclusive" else "none",
        markeredgewidth=1.3,
        zorder=3,
    )


def _legend(runs: Sequence[LoadedRun], points: Sequence[str]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=colour, linewidth=3, label=run.label)
        for colour, run in zip(_colours(len(runs)), runs, strict=True)
    ]
    return lines + [
        Line2D([], [], color=MUTED, marker=_marker(points, point), linestyle="none", label=point) for point in points
    ]
