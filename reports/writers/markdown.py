"""The Markdown writer: the summary, the tables and links to the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leakgauge.harness.store.run_folder import RunFolder, write_atomic
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import LoadedRun, load_runs
from leakgauge.reports.analysis.summary import Summary, summarise
from leakgauge.reports.analysis.worst_cases import MARKS_NOTE
from leakgauge.reports.figures.figures import Plot, run_figures, save_plots
from leakgauge.reports.tables.matrix import achieved
from leakgauge.reports.tables.paired import PAIRED_NOTE, paired_grids
from leakgauge.reports.tables.pipe_table import escape, table
from leakgauge.reports.tables.provenance import provenance
from leakgauge.reports.tables.questions import QUESTIONS_NOTE, question_grids
from leakgauge.reports.tables.tables import columns_grid, run_tables
from leakgauge.reports.tables.what_was_read import NOT_STATED, reading_grids
from leakgauge.reports.tables.worst_cases import worst_cases_grid


def _summary(summary: Summary) -> list[str]:
    blocks = [escape(summary.scope)]
    blocks += [f"> **Caution.** {escape(text)}" for text in summary.cautions]
    blocks += [escape(text) for text in summary.baselines]
    for place, here in summary.by_place.items():
        blocks.append(f"Against the baseline, {escape(place)}:")
        blocks.append("\n".join(f"- **{escape(f.point)}** ({f.verdict}): {escape(f.text)}" for f in here))
    return blocks


def _figures(drawn: list[Plot]) -> list[str]:
    blocks = []
    for plot in drawn:
        title = escape(f"{plot.title}. {plot.place}")
        blocks += [f"![{title}](figures/{plot.name}.svg)", f"{title}. {escape(plot.caption)}"]
    return blocks


def _run(run: LoadedRun, out: Path) -> tuple[list[str], list[Path]]:
    rows = point_rows(run)
    sweeps, cuts, drawn = run_figures(run)
    written = save_plots([*sweeps, *cuts, *drawn], out / "figures")
    tables, where_from = run_tables(run, rows), provenance(run)
    command = where_from.command
    fence = "`" * 3
    while fence in command:
        fence += "`"
    blocks = [f"## {escape(run.suite.name)} ({escape(run.label)})"]
    if run.suite.description:
        blocks.append(escape(run.suite.description))
    blocks += ["### Summary", *_summary(summarise(run, rows))]
    blocks += ["### Threat model", table(tables.threat_models), table(tables.attacks)]
    blocks += ["### Operating points", escape(tables.air_time), table(tables.points)]
    blocks += ["### Worst cases", escape(MARKS_NOTE), table(worst_cases_grid(run, rows))]
    if sweeps:
        blocks += ["### Against SNR", *_figures(sweeps)]
    if cuts:
        blocks += ["### By cut layer", *_figures(cuts)]
    blocks.append("### Every cell")
    found = achieved(run)
    blocks += [*map(escape, found.grants), table(found.matrix), table(tables.cells)]
    questions = question_grids(run)
    if questions:
        blocks += ["### Questions", QUESTIONS_NOTE, *map(table, questions)]
    paired = paired_grids(run)
    if paired:
        blocks += ["### Paired comparisons", PAIRED_NOTE, *map(table, paired)]
    blocks += ["### Figures", *_figures(drawn)]
    blocks += ["### What was read", *(map(table, reading_grids(run)) if run.manifest.get("read") else [NOT_STATED])]
    blocks += ["### Provenance", table(where_from.grid), "Reproduce with:", f"{fence}\n{command}\n{fence}"]
    return blocks, written


def write_markdown(runs: Sequence[RunFolder | LoadedRun], out: Path) -> list[Path]:
    """Writes ``out/report.md`` and the figures that it links.

    Raises:
        StoreError: A run cannot be read, or the folder cannot be written.
    """
    blocks = ["# Leakage report"]
    written: list[Path] = []
    loaded = load_runs(runs)
    for run in loaded:
        more, figures = _run(run, out)
        blocks += more
        written += figures
    blocks += ["## Columns", table(columns_grid(loaded))]
    write_atomic(out / "report.md", ("\n\n".join(blocks) + "\n").encode())
    return [out / "report.md", *written]
