"""The HTML writer: one self-contained page, which loads nothing and works from disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from leakgauge.harness.store.run_folder import RunFolder, write_atomic
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import LoadedRun, load_runs
from leakgauge.reports.analysis.summary import Summary, summarise
from leakgauge.reports.analysis.worst_cases import MARKS_NOTE
from leakgauge.reports.comparison.page import comparison_html, page_name
from leakgauge.reports.figures.figures import Plot, embedded_svg, run_figures
from leakgauge.reports.tables.costs import COSTS_NOTE, Costs, costs
from leakgauge.reports.tables.matrix import Achieved, achieved
from leakgauge.reports.tables.paired import PAIRED_NOTE, paired_grids
from leakgauge.reports.tables.provenance import RunProvenance, provenance
from leakgauge.reports.tables.questions import QUESTIONS_NOTE, question_grids
from leakgauge.reports.tables.table import Grid, parts
from leakgauge.reports.tables.tables import RunTables, columns_grid, run_tables
from leakgauge.reports.tables.what_was_read import NOT_STATED, reading_grids
from leakgauge.reports.tables.worst_cases import worst_cases_grid
from leakgauge.reports.writers.explorer import explorer_data, sheets_of
from leakgauge.reports.writers.first_screen import PICTURES, FirstScreen, first_screen
from leakgauge.reports.writers.gallery import Gallery, PictureFiles, extreme_cases, gallery
from leakgauge.reports.writers.interactive_frontier import frontier_data
from leakgauge.reports.writers.page_scripts import page_json, policy, vega_script
from leakgauge.reports.writers.picture_sheets import QUALITY, Sheets

PAPER_COLUMNS = 9
"""As many columns of a table stand beside each other on a printed page."""


@dataclass(frozen=True)
class Drawing:
    """A figure as the template embeds it."""

    id: str
    plot: Plot
    svg: Markup


@dataclass(frozen=True)
class RunPage:
    """What the template shows of one run."""

    id: str
    run: LoadedRun
    screen: FirstScreen
    frontier: Markup
    summary: Summary
    tables: RunTables
    worst: Grid
    achieved: Achieved
    paired: tuple[Grid, ...]
    questions: tuple[Grid, ...]
    gallery: Gallery | None
    extremes: Gallery | None
    sheets: Sheets | None
    explorer: Markup | None
    snr_drawings: tuple[Drawing, ...]
    cut_drawings: tuple[Drawing, ...]
    drawings: tuple[Drawing, ...]
    costs: Costs
    reading: tuple[Grid, ...]
    provenance: RunProvenance

    def drawn(self, kind: str) -> list[Drawing]:
        """The figures of a kind, in order."""
        return [drawing for drawing in self.drawings if drawing.plot.kind == kind]

    def placed(self, kind: str) -> dict[str, list[Drawing]]:
        """The figures of a kind by the channel and threat model that they hold for, in order."""
        found: dict[str, list[Drawing]] = {}
        for drawing in self.drawn(kind):
            found.setdefault(drawing.plot.place, []).append(drawing)
        return found


def _drawings(drawn: list[Plot], prefix: str) -> tuple[Drawing, ...]:
    # matplotlib escapes every label that it writes into an SVG.
    return tuple(
        Drawing(f"{prefix}{index}", plot, Markup(embedded_svg(plot, f"{prefix}{index}")))
        for index, plot in enumerate(drawn, start=1)
    )


def _page(run: LoadedRun, number: int, beside: Executor) -> RunPage:
    rows = point_rows(run)
    key = f"run{number}"
    screen = first_screen(run, rows, key)
    usual, extremes = gallery(run, PICTURES, embedded=False), extreme_cases(run, embedded=False)
    pending = beside.submit(sheets_of, run, (usual, extremes))
    drawn = run_figures(run)
    snr_drawings = _drawings(drawn.against_snr, f"{key}-snr")
    cut_drawings = _drawings(drawn.by_cut, f"{key}-cut")
    drawings = _drawings(drawn.plots, f"{key}-figure")
    sheets = pending.result()
    explorer = explorer_data(run, screen, sheets)
    return RunPage(
        id=key,
        run=run,
        screen=screen,
        frontier=page_json(frontier_data(run, rows, screen)),
        summary=summarise(run, rows),
        tables=run_tables(run, rows),
        worst=worst_cases_grid(run, rows),
        achieved=achieved(run),
        paired=paired_grids(run),
        questions=question_grids(run),
        gallery=usual,
        extremes=extremes,
        sheets=sheets,
        explorer=None if explorer is None else page_json(explorer),
        snr_drawings=snr_drawings,
        cut_drawings=cut_drawings,
        drawings=drawings,
        costs=costs(run, rows),
        reading=reading_grids(run),
        provenance=provenance(run),
    )


def environment() -> Environment:
    """Returns where the templates of all pages are found; what stands in them is escaped."""
    found = Environment(
        loader=PackageLoader("leakgauge.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.globals |= {"parts": parts, "paper_columns": PAPER_COLUMNS}
    return found


def write_html(runs: Sequence[RunFolder | LoadedRun], out: Path) -> list[Path]:
    """Writes ``out/index.html``; of several runs a common page, and a page of its own for each.

    Args:
        runs: The runs to report on.
        out: The folder to write to.

    Returns:
        The paths written.

    Raises:
        StoreError: A run cannot be read, or the folder cannot be written.
    """
    loaded = load_runs(runs)
    templates = environment()
    if len(loaded) == 1:
        pages = {"index.html": _run_html(templates, loaded[0])}
    else:
        names = [page_name(number) for number in range(1, len(loaded) + 1)]
        pages = {"index.html": comparison_html(templates, loaded, names)}
        pages |= {name: _run_html(templates, run) for name, run in zip(names, loaded, strict=True)}
    for name, text in pages.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in pages]


def _run_html(templates: Environment, run: LoadedRun) -> str:
    own = (
        templates.get_template(name).render() for name in ("page.js.j2", "parts/frontier.js.j2", "parts/explorer.js.j2")
    )
    with ThreadPoolExecutor(max_workers=1) as beside:
        # Bundling scripts and coding pictures take seconds of compiled code, which leaves Python to the figures.
        library = beside.submit(vega_script)
        page = _page(run, 1, beside)
    PictureFiles.of(run).forget()
    scripts = [Markup(text) for text in (library.result(), *own) if text]
    return templates.get_template("report.html.j2").render(
        pages=[page],
        scripts=scripts,
        policy=policy(scripts),
        sheet_quality=QUALITY,
        columns=columns_grid([run]),
        marks_note=MARKS_NOTE,
        costs_note=COSTS_NOTE,
        paired_note=PAIRED_NOTE,
        questions_note=QUESTIONS_NOTE,
        not_read=NOT_STATED,
    )
