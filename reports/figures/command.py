"""The command ``figure``: one figure of a run, at the width that a paper prints it at."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.system import console
from leakgauge.harness.system.files.output_paths import check_file_free
from leakgauge.harness.system.plain_text import plain
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.figures.paper_figures import (
    inches,
    paper_frontier,
    paper_gallery,
    save_figure,
    setting_of,
)

_out = console.output()
ENDINGS = (".pdf", ".svg", ".png")


class Kind(StrEnum):
    """What is drawn."""

    gallery = "gallery"
    frontier = "frontier"


class Against(StrEnum):
    """What leakage is drawn against."""

    bytes = "bytes"
    tokens = "tokens"
    flops = "flops"
    quality = "quality"


def figure(
    kind: Annotated[Kind, typer.Argument(help="Reconstructions, or leakage against what preventing it costs.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    out: Annotated[Path, typer.Option(help="The file to write: .pdf, .svg or .png.")],
    width: Annotated[str, typer.Option(help="Width as printed: 3.3in, 84mm, 8.4cm or 240pt.")] = "3.3in",
    against: Annotated[Against, typer.Option(help="Of the frontier: what lies across.")] = Against.bytes,
    images: Annotated[int, typer.Option(min=1, max=12, help="Of the gallery: how many images.")] = 4,
    channel: Annotated[str | None, typer.Option(help="Channel; by default the first of the run.")] = None,
    threat_model: Annotated[str | None, typer.Option(help="Threat model; by default the first of the run.")] = None,
) -> None:
    """Draws a figure of a run for a paper, in its column's width and with readable type."""
    size = inches(width)
    if out.suffix.lower() not in ENDINGS:
        raise ConfigError(f"cannot write {out.name!r}", where="--out", hint=f"end it in {', '.join(ENDINGS)}")
    check_file_free(out)
    loaded = load_runs([RunFolder.open(run)])[0]
    setting = setting_of(loaded, channel, threat_model)
    if kind is Kind.gallery:
        drawn = paper_gallery(loaded, setting, size, images)
    else:
        drawn = paper_frontier(loaded, setting, size, against.value)
    save_figure(drawn, out)
    _out.print(f"figure: {plain(str(out))}", soft_wrap=True, markup=False)
