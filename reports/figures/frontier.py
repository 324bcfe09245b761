"""Leakage and task quality against what a payload or the computation costs, and against each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import StrMethodFormatter
from matplotlib.transforms import Bbox

from leakgauge.reports.analysis.run import Row
from leakgauge.reports.figures.palette import INK, MUTED, Marker
from leakgauge.reports.notation import is_number

_SIDES = ((7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 8, "center", "bottom"), (0, -8, "center", "top"))
_DIAGONALS = ((6, 7, "left", "bottom"), (6, -7, "left", "top"), (-6, 7, "right", "bottom"), (-6, -7, "right", "top"))
_FAR = ((12, 16, "left", "bottom"), (12, -16, "left", "top"), (-12, 16, "right", "bottom"), (-12, -16, "right", "top"))
_NEAR_SHARE = 0.018
"""Points closer than this share of the axis are drawn side by side, so that their intervals stay apart."""


def _beside(xs: list[float]) -> list[float]:
    """Moves points of nearly the same x apart a little, for the eye; the order of points is kept."""
    span = (max(xs) - min(xs)) or max(abs(x) for x in xs) or 1.0
    near = _NEAR_SHARE * span
    order = sorted(range(len(xs)), key=lambda i: (xs[i], i))
    moved = list(xs)
    cluster: list[int] = []
    for index in [*order, -1]:
        if cluster and (index < 0 or xs[index] - xs[cluster[0]] > near):
            for place, member in enumerate(cluster):
                moved[member] = xs[cluster[0]] + (place - (len(cluster) - 1) / 2) * near
            cluster = []
        cluster.append(index)
    return moved


class Label(NamedTuple):
    """A point that wants its name beside it; ``lo`` and ``hi`` equal ``y`` where there is no interval."""

    name: str
    x: float
    y: float
    lo: float
    hi: float
    verdict: str = "conclusive"


def _draw(axes: Any, label: Label, mark: Marker, filled: bool) -> None:
    axes.plot([label.x, label.x], [label.lo, label.hi], color=mark.colour, linewidth=1.2, zorder=2)
    axes.plot(
        [label.x],
        [label.y],
        marker=mark.marker,
        markersize=9 if mark.marker == "*" else 6.5,
        linestyle="none",
        color=mark.colour,
        markerfacecolor=mark.colour if filled else "none",
        markeredgewidth=1.3,
        zorder=3,
    )


def _overlap(box: Any, others: list[Any]) -> float:
    total = 0.0
    for other in others:
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        total += max(width, 0.0) * max(height, 0.0)
    return total


def _outside(box: Any, frame: Any) -> float:
    over = max(frame.x0 - box.x0, 0.0) + max(box.x1 - frame.x1, 0.0)
    return 20.0 * float(over + max(frame.y0 - box.y0, 0.0) + max(box.y1 - frame.y1, 0.0))


def _strayed(box: Any, own: Any, others: list[Any]) -> float:
    """Returns what a label costs that lies nearer to another's marker than to its own."""

    def away(centre: Any) -> float:
        dx = max(box.x0 - centre[0], 0.0, centre[0] - box.x1)
        dy = max(box.y0 - centre[1], 0.0, centre[1] - box.y1)
        return float((dx * dx + dy * dy) ** 0.5)

    nearest = min(map(away, others), default=float("inf"))
    return 10.0 * max(away(own) - nearest, 0.0)


def _label(figure: Figure, axes: Any, labels: list[Label], *, floor: bool = False) -> None:
    """Writes each point's name where it covers least: no marker, no interval, not the line of the floor."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)  # moves the axes as a drawing would, which would also paint them
    taken: list[Any] = []
    for _, x, y, lo, hi, _ in labels:
        (px, py), (_, low), (_, high) = (axes.transData.transform((x, v)) for v in (y, lo, hi))
        taken += [Bbox([[px - 5, py - 5], [px + 5, py + 5]]), Bbox([[px - 1, low], [px + 1, high]])]
    frame = axes.get_window_extent(renderer)
    if floor:
        level = axes.transData.transform((0.0, 0.0))[1]
        taken.append(Bbox([[frame.x0, level - 2], [frame.x1, level + 2]]))
    centres = [axes.transData.transform((x, y)) for _, x, y, *_ in labels]
    for place, (name, x, y, _, _, verdict) in enumerate(labels):
        others = [*centres[:place], *centres[place + 1 :]]
        tried = []
        for rank, (dx, dy, ha, va) in enumerate((*_SIDES, *_DIAGONALS, *_FAR)):
            leader = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5}
            text = axes.annotate(
                f"{name} (lower bound)" if verdict == "lower bound" else name,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=8,
                color=INK,
                arrowprops=leader if (dx, dy, ha, va) in _FAR else None,
                in_layout=False,
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # the words alone, without the leader
            cost = _overlap(box, taken) + _outside(box, frame) + _strayed(box, centres[place], others)
            tried.append((cost + rank, rank, text, box))
        best = min(tried, key=lambda entry: entry[:2])
        for entry in tried:
            if entry is not best:
                entry[2].remove()
        taken.append(best[3])


def _panel(
    axes: Any, placed: list[tuple[Row, float]], name: str, scale: float, marks: dict[str, Marker]
) -> list[Label]:
    """Draws one panel and returns the labels that it still needs."""
    labels: list[Label] = []
    for row, x in placed:
        if is_number(row[name]):
            keys = (name, f"{name}_lo", f"{name}_hi")
            y, lo, hi = (float(row[key] if is_number(row[key]) else row[name]) * scale for key in keys)
            label = Label(str(row["operating_point"]), x, y, lo, hi, str(row["verdict"]))
            _draw(axes, label, marks[label.name], filled=row["verdict"] == "conclusive")
            labels.append(label)
    axes.margins(x=0.12, y=0.14)
    return labels


def _nothing(axes: Any) -> None:
    """Says that a panel has nothing to show, lest its empty frame pass for zero."""
    axes.annotate("unscored", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=MUTED)
    axes.set_yticks([])


def _floor_line(axes: Any) -> None:
    axes.axhline(0.0, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        "best floor",
        (1.0, 0.0),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=MUTED,
    )


def frontier(rows: list[Row], x_name: str, x_label: str, marks: dict[str, Marker]) -> tuple[Figure, list[str]]:
    """Draws leakage over quality, sharing the cost axis.

    Args:
        rows: Operating points of one setting.
        x_name: Column of the cost.
        x_label: Its axis label.
        marks: How each operating point is drawn.

    Returns:
        The figure, and the operating points that at least one panel cannot show.
    """
    figure = Figure(figsize=(7.4, 6.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
    known = [row for row in rows if is_number(row[x_name])]
    xs = _beside([float(row[x_name]) for row in known]) if known else []
    placed = list(zip(known, xs, strict=True))
    panels = [
        (top, _panel(top, placed, "strongest_leakage", 1.0, marks)),
        (bottom, _panel(bottom, placed, "quality", 100.0, marks)),
    ]
    if panels[0][1]:
        _floor_line(top)
    else:
        _nothing(top)
    top.set_ylabel("leakage (dB above best floor)")
    bottom.set_ylabel("task quality (%)")
    bottom.set_xlabel(x_label)
    bottom.set_xlim(left=0.0)  # a cost of half the length is half the cost
    bottom.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    for axes, labels in panels:
        _label(figure, axes, labels, floor=axes is top and bool(labels))
    shown = [{label.name for label in labels} for _, labels in panels]
    missing = [p for p in (str(row["operating_point"]) for row in rows) if not all(p in names for names in shown)]
    return figure, missing


def against_quality(rows: list[Row], marks: dict[str, Marker]) -> tuple[Figure, list[str]]:
    """Draws leakage against task quality, both with their intervals.

    Args:
        rows: Operating points of one setting.
        marks: How each operating point is drawn.

    Returns:
        The figure, and the operating points that it cannot show.
    """
    figure = Figure(figsize=(7.4, 4.4), layout="constrained")
    axes = figure.subplots()
    known = [row for row in rows if is_number(row["quality"]) and is_number(row["strongest_leakage"])]
    xs = [100.0 * float(row["quality"]) for row in known]
    labels = _panel(axes, list(zip(known, xs, strict=True)), "strongest_leakage", 1.0, marks)
    for row, label in zip(known, labels, strict=True):
        ends = [100.0 * float(row[key]) for key in ("quality_lo", "quality_hi") if is_number(row[key])]
        if len(ends) == 2:
            axes.plot(ends, [label.y, label.y], color=marks[label.name].colour, linewidth=0.6, alpha=0.5, zorder=1)
    if labels:
        _floor_line(axes)
    else:
        _nothing(axes)
    axes.set_xlabel("task quality (%)")
    axes.set_ylabel("leakage (dB above best floor)")
    _label(figure, axes, labels, floor=bool(labels))
    shown = {label.name for label in labels}
    return figure, [name for name in (str(row["operating_point"]) for row in rows) if name not in shown]
