"""Colours, markers and matplotlib settings of every figure: colour-blind safe, and never colour alone."""

from __future__ import annotations

from typing import Any, NamedTuple

INK = "#1b1e23"
MUTED = "#5d6671"
GRID = "#d5dae0"
# Okabe and Ito's palette; its yellow is left out because it fades on white, its black stands for the baseline.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "leakgauge",
    "pdf.fonttype": 42,
}


class Marker(NamedTuple):
    """How an operating point is drawn everywhere in a report."""

    colour: str
    marker: str


def marks(points: list[str], baseline: str) -> dict[str, Marker]:
    """Gives each operating point a colour and a marker that no other of the first 42 shares; the baseline is ink."""
    found = {baseline: Marker(INK, "*")}
    for index, point in enumerate(p for p in points if p != baseline):
        found[point] = Marker(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])
    return found
