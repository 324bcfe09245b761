"""The page of several runs: one table, one figure, the same pictures side by side, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment
from markupsafe import Markup

from leakgauge.reports.compare import OUTCOMES, Comparison, Outcome, compare
from leakgauge.reports.compare_output import COMPARE_NOTE, compare_grid, compare_summary
from leakgauge.reports.comparison.overlaid_frontier import overlaid_frontier
from leakgauge.reports.comparison.side_by_side import WorseImage, side_by_side, worse_images
from leakgauge.reports.figures import embedded_svg
from leakgauge.reports.grid import Grid
from leakgauge.reports.loaded import LoadedRun, Row
from leakgauge.reports.notation import plural
from leakgauge.reports.page_scripts import policy
from leakgauge.reports.table import point_rows

_SAID: dict[Outcome, str] = {
    "worse": "leaks more",
    "better": "leaks less",
    "no clear change": "leaks about as much",
    "identical": "leaks the same on every image",
    "not comparable": "cannot be compared",
}
TOLD = ("worse", "better", "not comparable")
"""Outcomes that are shown at once; the others are folded."""


@dataclass(frozen=True)
class Pair:
    """A run against the first."""

    id: str
    base: str
    new: str
    summary: str
    told: tuple[Grid, ...]
    folded: tuple[Grid, ...]
    notes: tuple[str, ...]
    worse: tuple[WorseImage, ...]


def comparison_html(environment: Environment, runs: Sequence[LoadedRun], links: Sequence[str]) -> str:
    """Writes the page.

    Args:
        environment: Where templates are found.
        runs: At least two runs; all others are compared with the first.
        links: The page of each run, relative to this one; empty where there is none.
    """
    rows: list[list[Row]] = [point_rows(run) for run in runs]
    comparisons: list[Comparison | None] = [None, *(compare(runs[0], run) for run in runs[1:])]
    drawn = overlaid_frontier(runs, rows)
    scripts = [Markup(environment.get_template("page.js.j2").render())]
    return environment.get_template("comparison.html.j2").render(
        runs=[(run, link) for run, link in zip(runs, links, strict=True)],
        lead=lead(comparisons),
        shared=side_by_side(runs, rows, comparisons),
        figure=None if drawn is None else Markup(embedded_svg(drawn, "runs")),
        plot=drawn,
        pairs=[
            _pair(number, runs[0], run, comparison)
            for number, (run, comparison) in enumerate(zip(runs, comparisons, strict=True))
            if comparison is not None
        ],
        note=COMPARE_NOTE,
        scripts=scripts,
        policy=policy(scripts),
    )


def lead(comparisons: Sequence[Comparison | None]) -> list[str]:
    """Says in a sentence for each run what changed in leakage, and what cannot be compared."""
    said = []
    for one in comparisons:
        if one is None:
            continue
        leakage = [row for row in one.rows if row.measure.name == "leakage"]
        if not leakage:
            said.append(f"{one.new} shares no operating point with {one.base}.")
            continue
        counts = {outcome: sum(row.outcome == outcome for row in leakage) for outcome in OUTCOMES}
        told = ", ".join(f"{words} at {counts[outcome]}" for outcome, words in _SAID.items() if counts[outcome])
        points = plural(len(leakage), "operating point")
        said.append(f"Against {one.base}, {one.new} {told} of {points} that both measured.")
    return said


def _pair(number: int, base: LoadedRun, new: LoadedRun, found: Comparison) -> Pair:
    grids = {outcome: compare_grid(found, outcome) for outcome in OUTCOMES if found.of(outcome)}
    return Pair(
        id=f"pair{number}",
        base=base.label,
        new=new.label,
        summary=compare_summary(found),
        told=tuple(grid for outcome, grid in grids.items() if outcome in TOLD),
        folded=tuple(grid for outcome, grid in grids.items() if outcome not in TOLD),
        notes=found.notes,
        worse=worse_images(base, new),
    )


def page_name(number: int) -> str:
    """Returns the file of a run's own page beside the common one."""
    return f"run-{number}.html"
