"""Draws quality over FLOPs and over tokens sent, with what the paper reports beside what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

from leakgauge.benchmarks.studies.curves.points import METHODS, StudyPoint

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#0072b2", "#1b1e23", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#cc79a7")
MARKERS = ("o", "P", "s", "^", "x", "+", "D")


class Claim(NamedTuple):
    """What arXiv 2509.09955 reports for ViT-Base on ImageNet: unmodified accuracy at these shares of the full cost."""

    flops_share: float = 0.70
    tokens_share: float = 0.20


class Panel(NamedTuple):
    """One task: its title, the name of its quality, its points, the unreduced one first, and what decides them."""

    title: str
    quality: str
    points: list[StudyPoint]
    identity: str = ""


def draw_curves(panels: list[Panel], path: Path) -> None:
    """Writes a figure with a row a task: quality over the share of FLOPs, and over the share of tokens sent."""
    figure, grid = plt.subplots(len(panels), 2, figsize=(9.6, 3.7 * len(panels)), dpi=150, squeeze=False, sharey="row")
    for row, panel in zip(grid, panels, strict=True):
        for axes, column, claim, label in (
            (row[0], "flops_share", Claim().flops_share, "share of the unreduced model's FLOPs"),
            (row[1], "tokens_share", Claim().tokens_share, "share of the tokens sent"),
        ):
            _draw_panel(axes, panel, column)
            base = panel.points[0].quality
            axes.plot(claim, base, marker="*", markersize=13, color="none", markeredgecolor="0.1", linestyle="")
            axes.set_xlabel(label)
            axes.set_xlim(0, 1.03)
            axes.grid(color="0.9", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(panel.quality)
        row[0].set_title(panel.title, loc="left", fontsize=9.5)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    star = plt.Line2D([], [], marker="*", markersize=11, color="none", markeredgecolor="0.1", linestyle="")
    figure.legend(
        [*handles, star],
        [*labels, "reported: 2509.09955, ViT-B on ImageNet (its communication cost read as tokens sent)"],
        loc="upper center",
        ncol=4,
        frameon=False,
        fontsize=8,
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.36 / (3.7 * len(panels))))
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)
    plt.close(figure)


def _draw_panel(axes: plt.Axes, panel: Panel, column: str) -> None:
    """Draws one curve a method, each starting at the unreduced model."""
    base = panel.points[0]
    axes.axhline(base.quality, color="0.6", linewidth=0.8, linestyle="--")
    for method, colour, marker in zip(METHODS, COLOURS, MARKERS, strict=True):
        own = [base, *(point for point in panel.points if point.method == method)]
        own.sort(key=lambda point: -float(getattr(point, column)))
        x, y = [getattr(point, column) for point in own], [point.quality for point in own]
        axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.2, label=f"measured: {method}")
        axes.fill_between(
            x, [p.quality_lo for p in own], [p.quality_hi for p in own], color=colour, alpha=0.10, linewidth=0
        )
