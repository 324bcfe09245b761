"""Prints what was read: a table for ``validate``, a line and the warnings for ``run``."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from leakgauge.harness.contracts.reading import Reading

SHOWN_CLASSES = 20


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in counts.items() if value) or "none"


def _rows(reading: Reading) -> list[tuple[str, str]]:
    done, bare, copies = reading.preprocessing, reading.undefended, reading.copies
    sums = {name: sum(of.values()) for name, of in reading.classes.items()}
    shown = dict(list(sums.items())[:SHOWN_CLASSES])
    more = f", and {len(sums) - len(shown)} more" if len(sums) > len(shown) else ""
    share = "not stated" if done.crop_share is None else f"{100 * done.crop_share:g} % of the shorter side"
    rows = [
        ("source", reading.source),
        ("splits", _counts(reading.splits)),
        ("classes", f"{len(sums)}: {_counts(shown)}{more}" if sums else "no labels"),
        ("classes from", reading.labels_from or "the task"),
        ("listed, used", f"{'not listed' if reading.listed is None else reading.listed}, {reading.used}"),
        ("skipped", _counts(reading.skipped)),
        ("not entered", _counts(reading.not_entered)),
        ("converted", _counts(reading.converted)),
        ("images", f"{done.image_px} px, square of {share}, {done.interpolation}, background {done.background}"),
        ("normalised", f"mean {_channels(done.mean)}; deviation {_channels(done.std)}; {done.source}"),
        ("copies looked for", "; ".join(copies.looked_for) or "not stated"),
        ("copies found", _counts(copies.found) + (f"; grouped by {copies.grouped_by}" if copies.grouped_by else "")),
        ("victim", f"{reading.weights.victim}, weights {reading.weights.sha256} ({reading.weights.source})"),
    ]
    if bare is not None:
        chance = "" if bare.chance is None else f"; a constant answer reaches {bare.chance:.3f}"
        rows.append(("undefended", f"{bare.quality_name} {bare.quality:.3f} on {bare.images} images{chance}"))
    return rows


def _channels(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def print_reading(reading: Reading, console: Console) -> None:
    """Prints the whole record, and its warnings after it."""
    table = Table(title="what was read", title_justify="left", show_header=False, box=None)
    for name, text in _rows(reading):
        table.add_row(name, Text(text))
    console.print(table)
    print_warnings(reading, console)


def print_warnings(reading: Reading, console: Console) -> None:
    """Prints what must be known before a number is believed."""
    for text in reading.all_warnings():
        console.print(f"WARNING: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_line(reading: Reading, console: Console) -> None:
    """Prints in a line what was read, and the warnings."""
    skipped = sum(reading.skipped.values())
    classes = f"{len(reading.classes)} classes" if reading.classes else "no labels"
    said = f"read: {reading.used} images, {classes}, {skipped} skipped; `validate` shows all"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    print_warnings(reading, console)
