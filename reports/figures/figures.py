"""Figures: drawn once for all writers, then embedded as SVG or written as SVG and PDF."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.system.compat import shared_font_subsets
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.figures.against_cut import cut_figure
from leakgauge.reports.figures.against_snr import snr_figure
from leakgauge.reports.figures.curves import learning_figure
from leakgauge.reports.figures.frontier import against_quality, frontier
from leakgauge.reports.figures.palette import GRID, INK, MUTED, SETTINGS, Marker, marks
from leakgauge.reports.figures.spread_figure import leakage_spread
from leakgauge.reports.notation import is_number

_COSTS = (
    ("bandwidth", "payload_bytes", "payload (byte/image)", "payload bytes"),
    ("tokens", "tokens", "tokens sent (per image)", "tokens sent"),
    ("compute", "gflops_total", "edge and server (GFLOP/image)", "computation, edge and server together"),
)
_THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)"}
_BACKGROUND = re.compile(r'<g id="patch_1">.*?</g>', re.DOTALL)
"""What is drawn first in an SVG."""
_DATELESS = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}


@dataclass(frozen=True)
class Plot:
    """A figure with its words.

    Args:
        name: File name without ending.
        title: What it shows.
        place: The channel and threat model that it holds for.
        caption: How to read it, and what could not be drawn.
        figure: The drawing.
        kind: What it is of, by which a page finds its place.
    """

    name: str
    title: str
    place: str
    caption: str
    figure: Figure
    kind: Literal["frontier", "spread", "learning", "other"] = "frontier"

    @cached_property
    def bare_svg(self) -> str:
        """The <svg> element without a background, for a page."""
        return _bare_svg(self.figure, "none")

    @cached_property
    def white_svg(self) -> str:
        """The <svg> element on white: ``bare_svg`` but for its background, which is that of an empty figure."""
        width, height = self.figure.get_size_inches()
        white = _BACKGROUND.search(_bare_svg(Figure((float(width), float(height))), "white"))
        return self.bare_svg if white is None else _BACKGROUND.sub(lambda _: white[0], self.bare_svg, count=1)

    @cached_property
    def pdf(self) -> bytes:
        """The figure on white, as a PDF file."""
        # Constrained layout begins where the last one ended and ends elsewhere in the last digit, so that bytes show
        # what a figure was written as before: whoever asks first, it is SVG.
        _ = self.bare_svg
        return _bytes(self.figure, "pdf", "white")


def _bytes(figure: Figure, kind: str, background: str) -> bytes:
    stream = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(stream, format=kind, metadata=_DATELESS[kind], facecolor=background)
    return stream.getvalue()


def _bare_svg(figure: Figure, background: str) -> str:
    """Returns the <svg> element without dates, comments, metadata or anything fetched from elsewhere."""
    text = _bytes(figure, "svg", background).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"\n\s*\n+", "\n", text)


def embedded_svg(plot: Plot, prefix: str) -> str:
    """Returns a figure for a web page: colours follow the page's theme, ids start with ``prefix``."""
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", plot.bare_svg)  # HTML knows the namespaces of an inline SVG
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for colour, variable in _THEMED.items():
        text = text.replace(colour, variable)
    # The words around the figure name it; its own shapes would only be read out one by one.
    return text.replace("<svg ", f'<svg role="img" aria-labelledby="{prefix}-title" ', 1)


def _slug(*parts: str) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9_.+]+", "-", part).strip("-") for part in parts)


class RunFigures(NamedTuple):
    """Every figure of a run: its numbers against the SNR, by cut layer, and at each setting."""

    against_snr: list[Plot]
    by_cut: list[Plot]
    plots: list[Plot]


def run_figures(run: LoadedRun) -> RunFigures:
    """Draws every figure of a run, once for all writers."""
    return RunFigures(snr_plots(run), cut_plots(run), plots(run))


def plots(run: LoadedRun) -> list[Plot]:
    """Draws leakage, quality and learning at each setting of a run."""
    return list(run.once("plots", lambda: _plots(run, point_rows(run))))


def _plots(run: LoadedRun, rows: list[Row]) -> list[Plot]:
    points = [p.name for p in run.suite.operating_points]
    looks = marks(points, run.suite.baseline_point)
    drawn: list[Plot] = []
    with matplotlib.rc_context(SETTINGS):
        for setting in run.settings:
            here = [r for r in rows if (r["channel"], r["threat_model"]) == tuple(setting)]
            place = f"Channel {setting.channel}, threat model {setting.threat_model}"
            for kind, column, label, spoken in _COSTS:
                figure, missing = frontier(here, column, label, looks)
                caption = (
                    "Above: leakage of the strongest attack. Below: task quality. "
                    "Bars are 95 % intervals; a hollow marker is an operating point that is inconclusive or a lower "
                    "bound. Markers of nearly equal cost are set side by side."
                )
                caption += f" Not drawn, because unscored: {', '.join(missing)}." if missing else ""
                name = _slug(run.label, kind, setting.channel, setting.threat_model)
                drawn.append(Plot(name, f"Leakage and quality against {spoken}", place, caption, figure))
            if any(is_number(row["strongest_leakage"]) and is_number(row["quality"]) for row in here):
                figure, missing = against_quality(here, looks)
                caption = (
                    "Leakage of the strongest attack. Lines are 95 % intervals, of leakage upright and "
                    "of quality across; the same images stand behind every point, so that differences are surer than "
                    "the intervals suggest. A hollow marker is an operating point that is inconclusive or "
                    "a lower bound."
                )
                caption += f" Not drawn, because unscored: {', '.join(missing)}." if missing else ""
                name = _slug(run.label, "quality", setting.channel, setting.threat_model)
                drawn.append(Plot(name, "Leakage against quality", place, caption, figure))
            drawn += _spread(run, setting, looks, place)
            learning = learning_figure(run, setting, looks, points)
            if learning is not None:
                caption = (
                    "PSNR on the attacker's own held-out images while each attack trains, a line an operating point. "
                    "Dashed: the cell is inconclusive or a lower bound."
                )
                name = _slug(run.label, "learning", setting.channel, setting.threat_model)
                drawn.append(Plot(name, "Learning curves", place, caption, learning, "learning"))
    return drawn


def _spread(run: LoadedRun, setting: Setting, looks: dict[str, Marker], place: str) -> list[Plot]:
    figure = leakage_spread(run, setting, looks)
    if figure is None:
        return []
    caption = (
        "Share of images of which the strongest attack rebuilds at least so much above the best floor. What lies below "
        "the dotted line are the worst 5 %: a mean says nothing of them. The dashed line is the best floor."
    )
    name = _slug(run.label, "spread", setting.channel, setting.threat_model)
    return [Plot(name, "How leakage is spread over images", place, caption, figure, "spread")]


def snr_plots(run: LoadedRun) -> list[Plot]:
    """Draws how a run's numbers move with the SNR, a figure a threat model; none where too few SNRs were run."""
    return list(run.once("plots against SNR", lambda: _snr_plots(run, point_rows(run))))


def _snr_plots(run: LoadedRun, rows: list[Row]) -> list[Plot]:
    looks = marks([p.name for p in run.suite.operating_points], run.suite.baseline_point)
    drawn: list[Plot] = []
    with matplotlib.rc_context(SETTINGS):
        for model in run.suite.threat_models:
            against = snr_figure(run.suite, rows, model.name, looks)
            if against is None:
                continue
            figure, missing = against
            place = f"Threat model {model.name}"
            caption = (
                "From above: leakage of the strongest attack, zero being the best floor; task quality; "
                "complex symbols sent an image. Colour and marker tell the operating point, the line the path: the "
                "channel plug-in. Bars are 95 % intervals, set side by side; a hollow marker is an operating "
                "point that is inconclusive or a lower bound."
            )
            if model.channel is not None:
                caption += f" The eavesdropper hears its own channel throughout, {model.channel}."
            caption += f" In part unscored: {', '.join(missing)}." if missing else ""
            name = _slug(run.label, "snr", model.name)
            drawn.append(Plot(name, "Leakage, quality and channel uses against SNR", place, caption, figure, "other"))
    return drawn


def cut_plots(run: LoadedRun) -> list[Plot]:
    """Draws how a run's numbers move with the cut layer, a figure a setting; none where only one cut was run."""
    return list(run.once("plots by cut", lambda: _cut_plots(run, point_rows(run))))


def _cut_plots(run: LoadedRun, rows: list[Row]) -> list[Plot]:
    drawn: list[Plot] = []
    with matplotlib.rc_context(SETTINGS):
        for setting in run.settings:
            by_cut = cut_figure(run.suite, rows, setting)
            if by_cut is None:
                continue
            figure, missing = by_cut
            caption = (
                "From above: leakage of the strongest attack, zero being the best floor; task quality; "
                "operations on the edge. A line joins operating points that differ in nothing but the cut. Bars are "
                "95 % intervals; a hollow marker is an operating point that is inconclusive or a lower bound."
            )
            caption += f" In part unscored: {', '.join(missing)}." if missing else ""
            place = f"Channel {setting.channel}, threat model {setting.threat_model}"
            name = _slug(run.label, "cut", setting.channel, setting.threat_model)
            drawn.append(
                Plot(name, "Leakage, quality and edge computation by cut layer", place, caption, figure, "other")
            )
    return drawn


def save_plots(drawn: list[Plot], folder: Path) -> list[Path]:
    """Writes figures as SVG and PDF, and returns the paths."""
    header = '<?xml version="1.0" encoding="utf-8"?>\n'
    written: list[Path] = []
    with shared_font_subsets():
        for plot in drawn:
            for kind, data in (("svg", (header + plot.white_svg).encode()), ("pdf", plot.pdf)):
                path = folder / f"{plot.name}.{kind}"
                write_atomic(path, data)
                written.append(path)
    return written
