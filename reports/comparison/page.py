"""The page of several runs: one table, one figure, the same pictures side by side, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment
from markupsafe import Markup

from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import LoadedRun, Row
from leakgauge.reports.comparison.compare import OUTCOMES, Comparison, Outcome, compare, incomparable
from leakgauge.reports.comparison.output import COMPARE_NOTE, comparison_tables
from leakgauge.reports.comparison.overlaid_frontier import overlaid_frontier
from leakgauge.reports.comparison.side_by_side import WorseImage, side_by_side, worse_images
from leakgauge.reports.figures.figures import embedded_svg
from leakgauge.reports.notation import plural
from leakgauge.reports.tables.table import Grid
from leakgauge.reports.writers.gallery import image_order
from leakgauge.reports.writers.page_scripts import policy

_SAID: dict[Outcome, str] = {
    "worse": "leaks more",
    "better": "leaks less",
    "no clear change": "shows no clear change in leakage",
    "identical": "leaks the same on every image",
    "not comparable": "cannot be compared",
}
FEW = 3
"""As many attacks are named in a sentence; of more their number is told."""
STRIP = 3
"""Pictures of every run on the first screen."""
TOLD = ("worse", "better", "not comparable")
"""Outcomes that are shown at once; the others are folded."""


@dataclass(frozen=True)
class RunPair:
    """A run against the first."""

    id: str
    base: str
    new: str
    summary: str
    told: tuple[Grid, ...]
    folded: tuple[Grid, ...]
    notes: tuple[str, ...]
    unlike: str
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
    shared = side_by_side(runs, rows, comparisons)
    scripts = [Markup(environment.get_template("page.js.j2").render())]
    return environment.get_template("comparison.html.j2").render(
        runs=[(run, link) for run, link in zip(runs, links, strict=True)],
        lead=lead(comparisons),
        shared_images=len(set(image_order(runs[0])).intersection(*(image_order(run) for run in runs[1:]))),
        shared=shared,
        shown_originals=next((place.originals[:STRIP] for place in shared if place.entries[0].pictures), ()),
        strip_length=STRIP,
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
        whys = list(dict.fromkeys(row.why for row in leakage if row.outcome == "not comparable"))
        why = f" Not comparable: {whys[0]}{' (and for other reasons)' if len(whys) > 1 else ''}." if whys else ""
        said.append(f"Against {one.base}, {one.new} {told} of {points} that both measured.{why}")
    return said


def unlike(found: Comparison) -> str:
    """Says in a sentence what the two runs did not do alike, so that a change may not be the defense's alone."""
    notes = [note for note in found.notes if not note.startswith(("nothing is comparable", "only in", "threat model"))]
    differing = [note.partition(" differs: ")[0] for note in notes if " differs: " in note]
    differing = list(dict.fromkeys(name for name in differing if name != "the code"))
    differing += ["the code"] if any(note.startswith("the code differs") for note in notes) else []
    only = [note.rpartition(": ")[2] for note in notes if note.startswith("attack only in")]
    said = [f"{', '.join(differing)} {'differs' if len(differing) == 1 else 'differ'}"] if differing else []
    named = plural(len(only), "attack") if len(only) > FEW else f"the attack{'s' * (len(only) > 1)} {', '.join(only)}"
    said += [f"only one of them has {named}"] if only else []
    return f"Between {found.base} and {found.new}, {'; '.join(said)}." if said else ""


def _pair(number: int, base: LoadedRun, new: LoadedRun, found: Comparison) -> RunPair:
    shown = comparison_tables(found)
    return RunPair(
        id=f"pair{number}",
        base=base.label,
        new=new.label,
        summary=shown.summary,
        told=tuple(grid for outcome, grid in shown.grids.items() if outcome in TOLD),
        folded=tuple(grid for outcome, grid in shown.grids.items() if outcome not in TOLD),
        notes=found.notes,
        unlike=unlike(found),
        worse=() if incomparable(base, new) else worse_images(base, new),
    )


def page_name(number: int) -> str:
    """Returns the file of a run's own page beside the common one."""
    return f"run-{number}.html"
