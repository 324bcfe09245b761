"""Figures of a search: hypervolume against trials, the shares of each block, and the front beside its baselines."""

from __future__ import annotations

import io
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from leakgauge.harness.errors import StoreError
from leakgauge.harness.search.results.front import Front, FrontPoint, read_front
from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.store.table_file import unguarded
from leakgauge.reports.figures.palette import COLOURS, INK, MUTED, SETTINGS

LABELS = {
    "quality": "task quality (%)",
    "gflops_edge": "edge (GFLOP/image)",
    "gflops_total": "edge and server (GFLOP/image)",
    "tokens": "tokens sent an image",
    "payload_bytes": "payload (byte/image)",
    "channel_uses": "channel uses an image",
    "latency_ms": "latency (ms)",
    "leakage": "leakage by the proxy attack (dB)",
}
_SCALE = {"quality": 100.0}
_LINEAR = frozenset({"quality", "leakage", "latency_ms"})
"""Metrics on a linear axis; costs span decades."""
_FRONT_COLOUR = COLOURS[0]
_OTHER = "#b4bbc4"
_MARKERS = ("s", "^", "D", "v", "P", "X")
_DATELESS: dict[str, Any] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def write_search_figures(folder: Path) -> list[Path]:
    """Draws what a search left in ``folder`` and writes it to ``folder/figures`` as SVG and PNG.

    Raises:
        StoreError: A table of the search is missing or cannot be read.
    """
    front = read_front(folder / "front.json")
    trials, volumes = _table(folder / "trials.csv"), _table(folder / "hypervolume.csv")
    with matplotlib.rc_context(SETTINGS):
        figures = {
            "hypervolume": hypervolume_figure(volumes),
            "shares": shares_figure(trials, front),
            "front": front_figure(trials, front),
        }
        return [
            _save(figure, folder / "figures" / f"{name}.{kind}")
            for name, figure in figures.items()
            for kind in _DATELESS
        ]


def _table(path: Path) -> pd.DataFrame:
    try:
        return unguarded(pd.read_csv(path))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot be read: {error}", where=str(path), hint="run the search again") from error


def _save(figure: Figure, path: Path) -> Path:
    stream, kind = io.BytesIO(), path.suffix[1:]
    figure.savefig(stream, format=kind, dpi=160, metadata=_DATELESS[kind], facecolor="white")
    write_atomic(path, stream.getvalue())
    return path


def hypervolume_figure(volumes: pd.DataFrame) -> Figure:
    """Draws the hypervolume, the share of the reference box that is dominated, after each trial."""
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.step(volumes["trials"], volumes["hypervolume"], where="post", color=_FRONT_COLOUR, linewidth=1.6)
    axes.set_xlabel("trials")
    axes.set_ylabel("hypervolume (share of the reference box)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def shares_figure(trials: pd.DataFrame, front: Front) -> Figure:
    """Draws parallel coordinates: what share of the matches each block merges, a line a point of the front.

    The darker a line, the better its task quality; all other trials are grey.
    """
    figure = Figure(figsize=(7.4, 3.8), layout="constrained")
    axes = figure.subplots()
    names = [str(name) for name in trials]
    columns = sorted((n for n in names if re.fullmatch(r"share_\d+", n)), key=lambda n: int(n.split("_")[1]))
    blocks = range(1, len(columns) + 1)
    for row in trials.loc[trials["front_point"].isna(), columns].to_numpy():
        axes.plot(blocks, row, color=_OTHER, linewidth=0.6, zorder=1)
    qualities = [point.metrics["quality"] for point in front.points]
    norm = matplotlib.colors.Normalize(min(qualities), max(qualities) + 1e-9)
    # Cividis looks alike to readers with and without colour vision; its yellow end is left out on white.
    map_ = matplotlib.colors.LinearSegmentedColormap.from_list("", matplotlib.colormaps["cividis"](range(215, -1, -1)))
    for point in sorted(front.points, key=lambda p: p.metrics["quality"]):
        shares = point.shares or ()
        colour = map_(norm(point.metrics["quality"]))
        axes.plot(range(1, len(shares) + 1), shares, color=colour, linewidth=1.4, marker="o", markersize=3.5, zorder=3)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, map_), ax=axes, format=StrMethodFormatter("{x:.3f}"))
    bar.set_label(f"{front.quality_name} of front points")
    axes.set_xticks(list(blocks))
    axes.set_xlabel("block")
    axes.set_ylabel("share of the matches that merges")
    axes.set_ylim(-0.03, 1.03)
    return figure


def family_of(name: str) -> str:
    """Returns what a baseline's name says before its number: ``tome`` of ``tome_r8``."""
    return re.sub(r"_r?-?[\d.]+$", "", name)


def front_figure(trials: pd.DataFrame, front: Front) -> Figure:
    """Draws the front in every pair of objectives, with all trials and the baselines on the same axes."""
    pairs = list(combinations(front.objectives, 2)) or [(front.objectives[0], front.objectives[0])]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(3.9 * columns + 0.4, 3.5 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (second, first) in zip(panels, pairs, strict=False):
        _panel(axes, trials, front, first, second)
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(8, len(names)))
    return figure


def _panel(axes: Any, trials: pd.DataFrame, front: Front, x_name: str, y_name: str) -> None:
    axes.plot(*_xy(trials, x_name, y_name), "o", color=_OTHER, markersize=3.5, label="trials", zorder=1)
    families: dict[str, list[FrontPoint]] = {}
    for point in front.baselines:
        families.setdefault(family_of(point.name), []).append(point)
    for i, (family, points) in enumerate(families.items()):
        frame = pd.DataFrame([point.metrics for point in points]).sort_values(x_name)
        look = {"color": COLOURS[1 + i % (len(COLOURS) - 1)], "marker": _MARKERS[i % len(_MARKERS)]}
        axes.plot(*_xy(frame, x_name, y_name), **look, markersize=5, linewidth=0.8, label=family, zorder=2)
    measured = pd.DataFrame([point.metrics for point in front.points])
    axes.plot(*_xy(measured, x_name, y_name), "o", color=_FRONT_COLOUR, markersize=5.5, label="front", zorder=4)
    plain = pd.DataFrame([front.undefended])
    axes.plot(*_xy(plain, x_name, y_name), "*", color=INK, markersize=10, label="undefended", zorder=3)
    for name, side in ((x_name, "x"), (y_name, "y")):
        getattr(axes, f"set_{side}label")(LABELS[name])
        if name not in _LINEAR:
            getattr(axes, f"set_{side}scale")("log")
            axis = getattr(axes, f"{side}axis")
            axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axis.set_minor_formatter(StrMethodFormatter("{x:,g}"))
            axis.get_minor_locator().set_params(subs=(2, 5))
            axis.set_tick_params(which="both", labelcolor=MUTED)


def _xy(frame: pd.DataFrame, x_name: str, y_name: str) -> tuple[Any, Any]:
    return tuple(frame[name] * _SCALE.get(name, 1.0) for name in (x_name, y_name))  # type: ignore[return-value]
