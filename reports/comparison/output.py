"""What a comparison leaves behind: Markdown to read, CSV to go on with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.store.table_file import guarded_csv
from leakgauge.reports.comparison.compare import OUTCOMES, Compared, Comparison, Outcome
from leakgauge.reports.notation import bounds, plural
from leakgauge.reports.tables.pipe_table import escape, table
from leakgauge.reports.tables.table import Grid, Heading, Tone, Value, figure, words

COMPARE_NOTE = (
    "Differences are new minus base, image by image, with 95 % intervals. A difference is called better or worse where "
    "its p-value, adjusted for all comparisons together (Holm), is below 5 %; more leakage is worse."
)
_LEAST_P = 0.0001
"""Smaller p-values are not told apart: no normal approximation is that good."""
_TONES: dict[Outcome, Tone] = {
    "worse": "bad",
    "better": "good",
    "no clear change": "",
    "identical": "muted",
    "not comparable": "warn",
}


def compare_grid(comparison: Comparison, outcome: Outcome | None = None) -> Grid:
    """Returns the rows of a comparison, or those of one outcome, as a table."""
    rows = comparison.rows if outcome is None else comparison.of(outcome)
    names = ("Outcome", "Where", "Measure")
    headings = [Heading(name, numeric=False) for name in names]
    headings += [Heading("Base"), Heading("New"), Heading("Change"), Heading("p"), Heading("Why", numeric=False)]
    caption = f"{comparison.new} against {comparison.base}" + (f": {outcome}" if outcome else "")
    return Grid(caption, headings, [_shown(row) for row in rows])


def _shown(row: Compared) -> list[Value]:
    digits, change = max(0, row.measure.digits - 1), row.difference
    return [
        Value(row.outcome, "", row.outcome, _TONES[row.outcome]),
        words(row.place),
        words(row.measure.name, row.measure.unit),
        figure(row.base, digits),
        figure(row.new, digits),
        figure(None)
        if change is None
        else figure(change.mean, digits, signed=True, detail=bounds(change.lo, change.hi, digits, signed=True)),
        _p_value(row.p),
        words(row.why),
    ]


def _p_value(p: float) -> Value:
    if math.isnan(p):
        return Value("", numeric=True)
    return figure(p, 4) if p >= _LEAST_P else Value(f"< {_LEAST_P:g}", "", repr(p), "", True)


def compare_summary(comparison: Comparison) -> str:
    """Says in a line what was found."""
    found = ", ".join(f"{len(comparison.of(outcome))} {outcome}" for outcome in OUTCOMES)
    return f"{plural(len(comparison.rows), 'comparison')}: {found}"


class ComparisonTables(NamedTuple):
    """A comparison as pages show it: what was found in a line, and the rows of each outcome that there is."""

    summary: str
    grids: dict[Outcome, Grid]


def comparison_tables(comparison: Comparison) -> ComparisonTables:
    """Returns the tables of a comparison, worst first."""
    grids = {outcome: compare_grid(comparison, outcome) for outcome in OUTCOMES if comparison.of(outcome)}
    return ComparisonTables(compare_summary(comparison), grids)


def compare_markdown(comparison: Comparison) -> str:
    """Writes the comparison, worst first."""
    shown = comparison_tables(comparison)
    blocks = [f"# {escape(comparison.new)} against {escape(comparison.base)}", shown.summary]
    blocks.append(COMPARE_NOTE)
    blocks += ["\n".join(f"- {escape(note)}" for note in comparison.notes)] if comparison.notes else []
    blocks += [table(grid) for grid in shown.grids.values()]
    return "\n\n".join(blocks) + "\n"


def compare_frame(comparison: Comparison) -> pd.DataFrame:
    """Returns the rows as a data frame; NaN is unscored."""
    return pd.DataFrame(
        [
            {
                "where": row.place,
                "measure": row.measure.name,
                "unit": row.measure.unit,
                "outcome": row.outcome,
                "base": row.base,
                "new": row.new,
                "change": math.nan if row.difference is None else row.difference.mean,
                "change_lo": math.nan if row.difference is None else row.difference.lo,
                "change_hi": math.nan if row.difference is None else row.difference.hi,
                "images": 0 if row.difference is None else row.difference.n,
                "p_adjusted": row.p,
                "why": row.why,
            }
            for row in comparison.rows
        ]
    )


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison as ``compare --json`` prints it: the columns of comparison.csv, and the notes."""
    rows = compare_frame(comparison).to_dict("records")
    return {"base": comparison.base, "new": comparison.new, "notes": comparison.notes, "rows": rows}


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Writes comparison.md and comparison.csv.

    Raises:
        StoreError: The folder cannot be written.
    """
    frame = guarded_csv(compare_frame(comparison), "NaN")
    files = {"comparison.md": compare_markdown(comparison).encode(), "comparison.csv": frame}
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files]
