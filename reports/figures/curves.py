"""Learning curves: how each attack learned against every operating point."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.figures.palette import Marker

_COLUMNS = 2
_LEAST_SPAN_DB = 1.0
"""The least height of a panel: below it a difference is noise, and would look like progress."""


def curves_at(run: LoadedRun, setting: Setting) -> dict[str, list[tuple[Row, LearningCurve]]]:
    """Reads the learning curves of a setting, by attack; those that do not train, and probes, are left out."""
    found: dict[str, list[tuple[Row, LearningCurve]]] = {}
    for cell in run.cells_at(setting):
        # What a probe learns is not measured in dB of PSNR.
        drawn = cell["cell"] and not run.is_probe(str(cell["attack"]))
        curve = run.folder.read_curve(str(cell["cell"])) if drawn else None
        if curve is not None and curve.points:
            found.setdefault(str(cell["attack"]), []).append((cell, curve))
    return found


def _panel(axes: Any, attack: str, curves: list[tuple[Row, LearningCurve]], marks: dict[str, Marker]) -> None:
    for cell, curve in curves:
        mark = marks[str(cell["operating_point"])]
        axes.plot(
            [p.step for p in curve.points],
            [p.heldout_psnr_db for p in curve.points],
            color=mark.colour,
            linewidth=1.3,
            linestyle="solid" if cell["verdict"] == "conclusive" else (0, (3, 2)),
            marker=mark.marker,
            markersize=4.5,
            markevery=[len(curve.points) - 1],
        )
    axes.set_title(attack)
    axes.set_xlim(left=0)
    _readable(axes)


def _readable(axes: Any) -> None:
    """Writes whole numbers at the ticks, and keeps a curve that hardly moves from filling its panel."""
    low, high = axes.get_ylim()
    if high - low < _LEAST_SPAN_DB:
        middle = (low + high) / 2
        axes.set_ylim(middle - _LEAST_SPAN_DB / 2, middle + _LEAST_SPAN_DB / 2)
    axes.ticklabel_format(axis="both", style="plain", useOffset=False)


def learning_curves(
    curves: dict[str, list[tuple[Row, LearningCurve]]], marks: dict[str, Marker], points: list[str]
) -> Figure:
    """Draws a panel an attack, a line an operating point; a dashed line marks an inconclusive cell."""
    columns = min(_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(7.4, 2.5 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in list(grid.flat)[len(curves) :]:
        axes.set_visible(False)
    for axes, (attack, lines) in zip(grid.flat, curves.items(), strict=False):
        _panel(axes, attack, lines, marks)
    figure.supxlabel("optimiser steps", fontsize=9)
    figure.supylabel("held-out PSNR (dB)", fontsize=9)
    shown = {str(cell["operating_point"]) for lines in curves.values() for cell, _ in lines}
    handles = [
        Line2D([], [], color=marks[p].colour, marker=marks[p].marker, markersize=5, linewidth=1.3, label=p)
        for p in points
        if p in shown
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    return figure


def learning_figure(run: LoadedRun, setting: Setting, marks: dict[str, Marker], points: list[str]) -> Figure | None:
    """Draws ``learning_curves`` of a setting; None where nothing trained in it."""
    curves = curves_at(run, setting)
    return learning_curves(curves, marks, points) if curves else None
