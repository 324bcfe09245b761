"""How leakage is spread over images: the empirical distribution of every operating point."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from leakgauge.reports.analysis.run import LoadedRun, Setting
from leakgauge.reports.analysis.strongest import strongest_rows
from leakgauge.reports.analysis.worst_cases import PERCENTILE, ecdf
from leakgauge.reports.figures.palette import MUTED, Marker


def leakage_spread(run: LoadedRun, setting: Setting, marks: dict[str, Marker]) -> Figure | None:
    """Draws the share of images that leak at least so much, a line an operating point; None where nothing is scored.

    A line far to the right at its foot gives some images away, whatever its mean. Dotted stands the share that leaks
    more than the 95th percentile.
    """
    drawn = []
    for point in run.points_at(setting):
        values, shares = ecdf(strongest_rows(run, point, setting)["leakage"])
        if len(values):
            drawn.append((point, values, shares))
    if not drawn:
        return None
    figure = Figure(figsize=(7.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for point, values, shares in drawn:
        mark = marks[point]
        # At a value stands the share of images that leak as much or more: itself included.
        at_least = [1.0, *(1.0 - shares[:-1])]
        axes.step(values, at_least, where="pre", color=mark.colour, linewidth=1.4)
        axes.plot(
            values,
            at_least,
            linestyle="none",
            marker=mark.marker,
            color=mark.colour,
            markersize=5,
            markevery=(0.08, 0.23),
            label=point,
        )
    axes.axvline(0.0, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    axes.axhline(1 - PERCENTILE / 100, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    axes.set_ylim(0.0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("leakage (dB above best floor)")
    axes.set_ylabel("images that leak at least this")
    figure.legend(loc="outside upper center", ncols=min(4, len(drawn)))
    return figure
