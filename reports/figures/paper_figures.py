"""Figures of a paper's column: drawn at the width that they are printed at, so that type keeps its size."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from pathlib import Path
from typing import Literal, cast

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.analysis.verdicts.point_verdict import bounds_only
from leakgauge.reports.figures.palette import MUTED, SETTINGS, marks
from leakgauge.reports.notation import bounds, is_number, number
from leakgauge.reports.writers.gallery import Picture, gallery

Against = Literal["bytes", "tokens", "flops", "quality"]
_AXES: dict[Against, tuple[str, str, float]] = {
    "bytes": ("payload_bytes", "payload (kB/image)", 1e-3),
    "tokens": ("tokens", "tokens sent (per image)", 1.0),
    "flops": ("gflops_total", "edge and server (GFLOP/image)", 1.0),
    "quality": ("quality", "task quality (%)", 100.0),
}
_INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27}
NARROWEST, WIDEST = 1.5, 20.0
"""Inches; below the one nothing is readable, above the other nothing is a figure."""
POINTS = 7.0
"""Size of the type, in points as printed: papers ask for no less than 6."""
DPI = 300
_SETTINGS = {
    **SETTINGS,
    "font.size": POINTS,
    "axes.labelsize": POINTS,
    "axes.titlesize": POINTS,
    "xtick.labelsize": POINTS - 0.5,
    "ytick.labelsize": POINTS - 0.5,
    "legend.fontsize": POINTS - 0.5,
    "figure.facecolor": "white",
}
_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def inches(width: str) -> float:
    """Reads a width such as ``3.3in``, ``84mm``, ``8.4cm`` or ``240pt`` as inches.

    Raises:
        ConfigError: It is no width, or out of range.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(in|cm|mm|pt)\s*", width)
    if found is None:
        raise ConfigError(f"{width!r} is no width", where="--width", hint="write 3.3in, 84mm, 8.4cm or 240pt")
    size = float(found[1]) * _INCHES[found[2]]
    if not NARROWEST <= size <= WIDEST:
        hint = f"choose between {NARROWEST:g}in and {WIDEST:g}in"
        raise ConfigError(f"{width!r} is out of range", where="--width", hint=hint)
    return size


def setting_of(run: LoadedRun, channel: str | None, threat_model: str | None) -> Setting:
    """Returns the first setting of a run that agrees with what is named.

    Raises:
        ConfigError: There is none.
    """
    for setting in run.settings:
        if channel in {None, setting.channel} and threat_model in {None, setting.threat_model}:
            return setting
    known = "; ".join(f"{setting.channel}, {setting.threat_model}" for setting in run.settings[:4]) or "none"
    named = ", ".join(name for name in (channel, threat_model) if name is not None)
    raise ConfigError(f"has no cells at {named or 'all'}", where=run.label, hint=f"channel, threat model: {known}")


def paper_frontier(run: LoadedRun, setting: Setting, width: float, against: Against = "bytes") -> Figure:
    """Draws leakage against a cost or quality, with intervals and a legend below.

    Args:
        run: The run.
        setting: The channel and threat model.
        width: Width in inches.
        against: What lies on the horizontal axis.

    Raises:
        StoreError: Nothing is scored there.
    """
    name, label, scale = _AXES[against]
    looks = marks([point.name for point in run.suite.operating_points], run.suite.baseline_point)
    rows = [row for row in point_rows(run) if (row["channel"], row["threat_model"]) == tuple(setting)]
    rows = [row for row in rows if is_number(row["strongest_leakage"]) and is_number(row[name])]
    if not rows:
        raise StoreError("no operating point is scored there", where=run.label, hint="name another channel or run")
    columns = max(1, int(width / 1.35))
    height = 0.62 * width + 0.14 * -(-len(rows) // columns)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        handles = []
        for row in rows:
            point = str(row["operating_point"])
            mark = looks[point]
            x = float(row[name]) * scale
            if is_number(row["strongest_leakage_lo"]) and is_number(row["strongest_leakage_hi"]):
                ends = [row["strongest_leakage_lo"], row["strongest_leakage_hi"]]
                axes.plot([x, x], ends, color=mark.colour, linewidth=0.9, zorder=2)
            sure = row["verdict"] == "conclusive"
            handles.append(
                Line2D(
                    [x],
                    [float(row["strongest_leakage"])],
                    marker=mark.marker,
                    color=mark.colour,
                    linestyle="none",
                    markersize=6 if mark.marker == "*" else 4.2,
                    markerfacecolor=mark.colour if sure else "white",
                    markeredgewidth=0.9,
                    label=point,
                    zorder=3,
                )
            )
            axes.add_line(handles[-1])
        axes.axhline(0.0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.autoscale_view()
        # Leakage is read from the best floor up, a cost from nothing.
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        if against != "quality":
            axes.set_xlim(left=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        axes.set_ylabel("leakage (dB)")
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.1, columnspacing=0.8)
    return figure


def _pixels(picture: Picture) -> np.ndarray | None:
    if not picture.uri:
        return None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))))


def _told(rows: list[Row], point: str) -> str:
    row = next((row for row in rows if row["operating_point"] == point), None)
    if row is None or not is_number(row["strongest_leakage"]):
        return ""
    ends = bounds(row["strongest_leakage_lo"], row["strongest_leakage_hi"], 1)
    caveat = "≥ " if bounds_only(row["verdict"], row["reason"]) else ""
    return f"\n{caveat}{number(row['strongest_leakage'], 1)} dB {ends}".rstrip()


def paper_gallery(run: LoadedRun, setting: Setting, width: float, images: int = 4) -> Figure:
    """Draws originals, the best floor and the strongest reconstructions, a row an operating point.

    Beside each stands its mean leakage with its interval, ``≥`` where it is only bounded from below.

    Args:
        run: The run.
        setting: The channel and threat model.
        width: Width in inches.
        images: How many images, evenly spaced.

    Raises:
        StoreError: The run stores no picture.
    """
    found = gallery(run, images)
    place = f"channel {setting.channel}"
    place += f", threat model {setting.threat_model}" if len(run.suite.threat_models) > 1 else ""
    strips = [] if found is None else [strip for strip in found.strips if strip.detail in {"", place}]
    if not any(picture.uri for strip in strips for picture in strip.pictures):
        raise StoreError("stores no picture to show", where=run.label, hint="name a run that finished a cell")
    rows = [row for row in point_rows(run) if (row["channel"], row["threat_model"]) == tuple(setting)]
    count = len(strips[0].pictures)
    words = min(1.05, 0.34 * width)
    side = (width - words) / count
    figure = Figure(figsize=(width, side * len(strips)))
    with matplotlib.rc_context(_SETTINGS):
        for place_, strip in enumerate(strips):
            bottom = 1 - (place_ + 1) / len(strips)
            figure.text(
                (words - 0.05) / width,
                bottom + 0.5 / len(strips),
                textwrap.fill(strip.name, 20) + _told(rows, strip.name),
                ha="right",
                va="center",
                fontsize=POINTS - 1,
                linespacing=1.3,
                parse_math=False,
            )
            for column, picture in enumerate(strip.pictures):
                gap = 0.02
                box = ((words + column * side + gap) / width, bottom + gap / (side * len(strips)))
                axes = figure.add_axes((*box, (side - 2 * gap) / width, (side - 2 * gap) / (side * len(strips))))
                axes.set_axis_off()
                pixels = _pixels(picture)
                if pixels is None:
                    axes.text(0.5, 0.5, "not stored", ha="center", va="center", fontsize=POINTS - 1, color=MUTED)
                else:
                    axes.imshow(pixels, interpolation="nearest")
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Writes a figure as PDF, SVG or PNG, as the file's ending says.

    Raises:
        ConfigError: It has another ending.
        StoreError: It cannot be written.
    """
    kind = out.suffix.lower().lstrip(".")
    if kind not in _METADATA:
        raise ConfigError(f"cannot write {out.name!r}", where="--out", hint="end it in .pdf, .svg or .png")
    stream = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        metadata = cast("dict[str, str]", _METADATA[kind])
        figure.savefig(stream, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
    write_atomic(out, stream.getvalue())
