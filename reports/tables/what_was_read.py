"""What a run read: images, classes, preprocessing, copies and weights, as run.json holds it under ``read``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leakgauge.reports.analysis.run import LoadedRun
from leakgauge.reports.notation import is_number, number
from leakgauge.reports.tables.table import Grid, Heading, Value, figure, words

NOT_STATED = "The run does not say what was read: it is of a version before 5."
MAX_CLASSES = 60


def _part(run: LoadedRun, *keys: str) -> Mapping[str, Any]:
    """Returns a mapping inside the record, an empty one where there is none: records of others are not trusted."""
    found: Any = run.manifest.get("read")
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def reading_warnings(run: LoadedRun) -> tuple[str, ...]:
    """Returns what a reader must know before believing a number."""
    found = _part(run).get("warnings")
    return tuple(str(text) for text in found) if isinstance(found, list | tuple) else ()


def _counts(counts: Any) -> str:
    if not isinstance(counts, Mapping):
        return "not stated"
    return ", ".join(f"{key} {value}" for key, value in counts.items() if value) or "none"


def _channels(values: Any) -> str:
    return ", ".join(f"{v:g}" for v in values if is_number(v)) if isinstance(values, list | tuple) else "not stated"


def _facts(run: LoadedRun) -> list[tuple[str, str]]:
    read, done = _part(run), _part(run, "preprocessing")
    copies, weights, bare = _part(run, "copies"), _part(run, "weights"), _part(run, "undefended")
    share = done.get("crop_share")
    looked_for = copies.get("looked_for")
    facts = [
        ("Source", read.get("source", "not stated")),
        ("Images by split", _counts(read.get("splits"))),
        (
            "Listed, used",
            f"{read.get('listed') if read.get('listed') is not None else 'not listed'}, {read.get('used')}",
        ),
        ("Skipped, by cause", _counts(read.get("skipped"))),
        ("Folders and links not entered", _counts(read.get("not_entered"))),
        ("Converted while decoding", _counts(read.get("converted"))),
        ("Classes from", read.get("labels_from") or "the task's own labels, if any"),
        ("Image side", f"{done.get('image_px', 'not stated')} px"),
        (
            "Square cut out",
            f"{number(share, 1, scale=100)} % of the shorter side" if is_number(share) else "not stated",
        ),
        ("Interpolation", done.get("interpolation", "not stated")),
        ("Background", done.get("background", "not stated")),
        ("Normalisation", f"mean {_channels(done.get('mean'))}; deviation {_channels(done.get('std'))}"),
        ("Settings from", done.get("source", "not stated")),
        (
            "Copies looked for",
            "; ".join(map(str, looked_for)) if isinstance(looked_for, list | tuple) and looked_for else "not stated",
        ),
        ("Copies found", _counts(copies.get("found"))),
        ("Grouped by", copies.get("grouped_by") or "copies only"),
        ("Victim", weights.get("victim", "not stated")),
        ("Weights", f"{weights.get('sha256', 'not stated')} ({weights.get('source', 'not stated')})"),
    ]
    if bare:
        chance = number(bare.get("chance"), 3) if is_number(bare.get("chance")) else "no meaning here"
        said = f"{bare.get('quality_name')} {number(bare.get('quality'), 3)} on {bare.get('images')} images"
        facts.append(("Without a defense", f"{said}; a constant answer: {chance}"))
    return [(name, str(value)) for name, value in facts]


def reading_grids(run: LoadedRun) -> tuple[Grid, ...]:
    """Returns the facts, and the classes by split where there are any; nothing for runs that do not state them."""
    if not _part(run):
        return ()
    rows: list[list[Value]] = [[words(name), words(text)] for name, text in _facts(run)]
    headings = [Heading("What", numeric=False), Heading("Read", numeric=False)]
    grids = [Grid(f"What {run.label} read", headings, rows, sortable=False)]
    classes = {str(name): of for name, of in _part(run, "classes").items() if isinstance(of, Mapping)}
    if classes:
        splits = list(dict.fromkeys(split for of in classes.values() for split in of))
        shown = list(classes.items())[:MAX_CLASSES]
        table = [[words(name), *(figure(of.get(split), 0) for split in splits)] for name, of in shown]
        more = f", the first {MAX_CLASSES} of {len(classes)}" if len(classes) > MAX_CLASSES else ""
        grids.append(
            Grid(f"Images by class and split{more}", [Heading("Class", numeric=False), *map(Heading, splits)], table)
        )
    return tuple(grids)
