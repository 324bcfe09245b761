"""Quality, leakage and channel uses against the server's SNR: a line an operating point and path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from leakgauge.harness.suite.schema import Suite
from leakgauge.reports.analysis.run import Row
from leakgauge.reports.figures.palette import INK, MUTED, Marker
from leakgauge.reports.notation import is_number

MIN_SNRS = 3
"""Fewer SNRs than this make no curve."""
_STYLES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.2, 1.6)), (0, (5, 2, 1.2, 2)))
_PANELS = (
    ("strongest_leakage", 1.0, "leakage\n(dB above best floor)"),
    ("quality", 100.0, "task quality (%)"),
    ("channel_uses", 1.0, "channel uses\n(symbol/image)"),
)
_BESIDE = 0.009
"""Share of the axis by which lines are set side by side, so that their intervals stay apart."""
_LOG_FROM = 8.0
"""Channel uses that differ by this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class SnrLine:
    """One operating point over one path, its rows in order of SNR."""

    point: str
    path: str
    rows: tuple[Row, ...]


def paths(suite: Suite) -> dict[str, str]:
    """Names each channel's path by its label: the plug-in, with its options beside the SNR where several differ."""
    plugins = {channel.label: channel.plugin for channel in suite.channels}
    bare = {
        label: {key: value for key, value in plugin.options.items() if key != "snr_db"}
        for label, plugin in plugins.items()
    }
    named: dict[str, str] = {}
    for label, plugin in plugins.items():
        alike = [bare[other] for other, of in plugins.items() if of.name == plugin.name]
        rest = [f"{key} {value}" for key, value in bare[label].items()]
        several = any(other != bare[label] for other in alike)
        named[label] = f"{plugin.name} ({', '.join(rest) or 'no options'})" if several else plugin.name
    return named


def snr_lines(suite: Suite, rows: Sequence[Row], threat_model: str) -> list[SnrLine]:
    """Groups operating-point rows of a threat model into lines; empty unless one of them has ``MIN_SNRS`` SNRs."""
    path_of = paths(suite)
    grouped: dict[tuple[str, str], dict[float, Row]] = {}
    for row in rows:
        path = path_of.get(str(row["channel"]))
        if row["threat_model"] == threat_model and path is not None and is_number(row["snr_db"]):
            # One row an SNR: channels that differ in nothing that a path is named by are told apart elsewhere.
            grouped.setdefault((str(row["operating_point"]), path), {}).setdefault(float(row["snr_db"]), row)
    lines = [SnrLine(*key, tuple(by_snr[snr] for snr in sorted(by_snr))) for key, by_snr in grouped.items()]
    return lines if any(len(line.rows) >= MIN_SNRS for line in lines) else []


def _draw(axes: Any, line: SnrLine, shift: float, panel: tuple[str, float, str], mark: Marker, style: Any) -> bool:
    """Draws one line of a panel; returns whether every row of it could be drawn."""
    name, scale, _ = panel
    scored = [row for row in line.rows if is_number(row[name])]
    xs = [float(row["snr_db"]) + shift for row in scored]
    ys = [float(row[name]) * scale for row in scored]
    axes.plot(xs, ys, color=mark.colour, linewidth=1.3, linestyle=style, zorder=2)
    for x, y, row in zip(xs, ys, scored, strict=True):
        ends = [float(row[key]) * scale for key in (f"{name}_lo", f"{name}_hi") if is_number(row.get(key))]
        if len(ends) == 2:
            axes.plot([x, x], ends, color=mark.colour, linewidth=1.0, zorder=2)
        axes.plot(
            [x],
            [y],
            marker=mark.marker,
            markersize=8 if mark.marker == "*" else 5.5,
            linestyle="none",
            color=mark.colour,
            markerfacecolor=mark.colour if row["verdict"] == "conclusive" else "none",
            markeredgewidth=1.2,
            zorder=3,
        )
    return len(scored) == len(line.rows)


def _legend(figure: Figure, lines: Sequence[SnrLine], styles: dict[str, Any], marks: dict[str, Marker]) -> None:
    """Shows points by colour and marker, paths by line style."""
    points = dict.fromkeys(line.point for line in lines)
    handles = [
        Line2D([], [], color=marks[p].colour, marker=marks[p].marker, markersize=6, linewidth=1.3, label=p)
        for p in points
    ]
    handles += [Line2D([], [], color=INK, linewidth=1.3, linestyle=styles[p], label=f"path {p}") for p in styles]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))


def against_snr(lines: Sequence[SnrLine], marks: dict[str, Marker]) -> tuple[Figure, list[str]]:
    """Draws leakage, quality and channel uses over the server's SNR.

    Args:
        lines: What ``snr_lines`` returned; not empty.
        marks: How each operating point is drawn.

    Returns:
        The figure, and the lines of which something is unscored and therefore missing.
    """
    figure = Figure(figsize=(7.4, 7.8), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 2]})
    paths_here = list(dict.fromkeys(line.path for line in lines))
    styles = {path: _STYLES[i % len(_STYLES)] for i, path in enumerate(paths_here)}
    snrs = [float(row["snr_db"]) for line in lines for row in line.rows]
    step = _BESIDE * (max(snrs) - min(snrs))
    missing: dict[str, None] = {}
    for axes, panel in zip(panels, _PANELS, strict=True):
        for index, line in enumerate(lines):
            # Channel uses have no intervals that could cover one another.
            shift = 0.0 if panel[0] == "channel_uses" else (index - (len(lines) - 1) / 2) * step
            if not _draw(axes, line, shift, panel, marks[line.point], styles[line.path]):
                missing[f"{line.point} over {line.path}"] = None
        axes.set_ylabel(panel[2])
        axes.margins(y=0.1)
    panels[0].axhline(0.0, color=MUTED, linewidth=1.0, zorder=1)
    _uses_axis(panels[2], [float(row["channel_uses"]) for line in lines for row in line.rows])
    panels[2].set_xticks(sorted(set(snrs)))
    panels[2].xaxis.set_major_formatter("{x:g}")
    panels[2].set_xlabel("SNR of the server's channel, Es/N0 (dB)")
    _legend(figure, lines, styles, marks)
    return figure, list(missing)


def _uses_axis(axes: Any, values: Sequence[float]) -> None:
    """Scales the axis of channel uses so that cheap and dear paths can both be read."""
    used = [value for value in values if is_number(value) and value > 0]
    if used and max(used) >= _LOG_FROM * min(used):
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def snr_figure(
    suite: Suite, rows: Sequence[Row], threat_model: str, marks: dict[str, Marker]
) -> tuple[Figure, list[str]] | None:
    """Draws ``against_snr`` of a threat model; None where too few SNRs were run under it."""
    lines = snr_lines(suite, rows, threat_model)
    return against_snr(lines, marks) if lines else None
