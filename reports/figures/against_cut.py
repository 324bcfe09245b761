"""Leakage and cost by cut layer: a line a family of operating points that differ in nothing but where they are cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from leakgauge.harness.suite.schema import Suite
from leakgauge.reports.analysis.run import Row, Setting
from leakgauge.reports.figures.palette import COLOURS, INK, MARKERS, MUTED, Marker
from leakgauge.reports.notation import is_number

MIN_CUTS = 2
"""A single cut makes no curve."""
_PANELS = (
    ("strongest_leakage", 1.0, "leakage\n(dB above best floor)"),
    ("quality", 100.0, "task quality (%)"),
    ("gflops_edge", 1.0, "edge computation\n(GFLOP/image)"),
)


@dataclass(frozen=True)
class CutLine:
    """Operating points of one family, by rising cut.

    Args:
        name: What the names of its points have in common.
        cuts: Their numbers of edge blocks.
        rows: Their rows of the operating-point table.
    """

    name: str
    cuts: tuple[int, ...]
    rows: tuple[Row, ...]


def _common(names: Sequence[str]) -> str:
    """Returns what names begin with alike, without the separator and the word that the cut is told by."""
    shortest = min(names, key=len)
    length = next((i for i, c in enumerate(shortest) if any(n[i] != c for n in names)), len(shortest))
    # Cuts 10 and 12 share a digit, which belongs to neither name.
    common = shortest[:length]
    common = common if common == shortest else common.rstrip("0123456789")
    return common.rstrip("_-. ").removesuffix("cut").rstrip("_-. ") or shortest


def cut_lines(suite: Suite, rows: Sequence[Row], setting: Setting) -> list[CutLine]:
    """Groups the operating points of a setting; empty where no family has ``MIN_CUTS`` cuts."""
    options = {p.name: {**suite.defense.options, **p.options} for p in suite.operating_points}
    families: dict[str, dict[int, Row]] = {}
    for row in rows:
        stated = options.get(str(row["operating_point"]), {})
        cut = stated.get("cut")
        if (row["channel"], row["threat_model"]) != tuple(setting) or not isinstance(cut, int):
            continue
        rest = {key: value for key, value in stated.items() if key != "cut"}
        families.setdefault(json.dumps(rest, sort_keys=True, default=str), {})[int(cut)] = row
    found = []
    for by_cut in families.values():
        if len(by_cut) >= MIN_CUTS:
            cuts = tuple(sorted(by_cut))
            members = tuple(by_cut[cut] for cut in cuts)
            found.append(CutLine(_common([str(row["operating_point"]) for row in members]), cuts, members))
    return found


def _draw(axes: Any, line: CutLine, name: str, scale: float, look: Marker, shift: float) -> bool:
    """Draws one line of a panel; returns whether every row of it could be drawn."""
    scored = [(cut + shift, row) for cut, row in zip(line.cuts, line.rows, strict=True) if is_number(row[name])]
    axes.plot([x for x, _ in scored], [float(row[name]) * scale for _, row in scored], color=look.colour, linewidth=1.3)
    for x, row in scored:
        ends = [float(row[key]) * scale for key in (f"{name}_lo", f"{name}_hi") if is_number(row.get(key))]
        if len(ends) == 2:
            axes.plot([x, x], ends, color=look.colour, linewidth=1.0)
        fill = look.colour if row["verdict"] == "conclusive" else "none"
        axes.plot(
            [x],
            [float(row[name]) * scale],
            marker=look.marker,
            markersize=6,
            linestyle="none",
            color=look.colour,
            markerfacecolor=fill,
            zorder=3,
        )
    return len(scored) == len(line.rows)


def against_cut(lines: Sequence[CutLine]) -> tuple[Figure, list[str]]:
    """Draws leakage, quality and edge computation over the number of edge blocks.

    Args:
        lines: What ``cut_lines`` returned; not empty.

    Returns:
        The figure, and the families of which something is unscored and therefore missing.
    """
    figure = Figure(figsize=(7.4, 6.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 2]})
    looks = [
        Marker(INK if i == 0 else COLOURS[(i - 1) % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(len(lines))
    ]
    missing: dict[str, None] = {}
    for axes, (name, scale, label) in zip(panels, _PANELS, strict=True):
        for index, (line, look) in enumerate(zip(lines, looks, strict=True)):
            shift = 0.0 if name == "gflops_edge" else (index - (len(lines) - 1) / 2) * 0.05
            if not _draw(axes, line, name, scale, look, shift):
                missing[line.name] = None
        axes.set_ylabel(label)
        axes.margins(y=0.1)
    panels[0].axhline(0.0, color=MUTED, linewidth=1.0, zorder=1)
    panels[2].set_ylim(bottom=0)
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[2].set_xlabel("cut: blocks on the edge")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, markersize=6, linewidth=1.3, label=line.name)
        for line, look in zip(lines, looks, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    return figure, list(missing)


def cut_figure(suite: Suite, rows: Sequence[Row], setting: Setting) -> tuple[Figure, list[str]] | None:
    """Draws ``against_cut`` of a setting; None where too few cuts were run in it."""
    lines = cut_lines(suite, rows, setting)
    return against_cut(lines) if lines else None
