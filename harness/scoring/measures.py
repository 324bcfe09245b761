"""One table of what reconstructions are scored by: name, unit, direction, digits and heading of every score.

The built-in scores stand here; a run's own, those of third-party metrics, stand in its run.json, so that whoever reads
the run needs no plug-in. Columns of cells.csv and images.parquet, and what console, reports, gate and comparison show,
are derived from both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from leakgauge.harness.contracts.metric import Metric
from leakgauge.harness.errors import PluginError, StoreError
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS, SCORE_NAMES, Column

COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TAKEN = {column.name for column in (*CELL_COLUMNS, *IMAGE_COLUMNS)} - set(SCORE_NAMES)
_RESERVED = ("strongest_", "oracle_", "blind_", "judge_", "probe", "attribute")
MOST_DIGITS = 9


class Score(NamedTuple):
    """A score of reconstructions.

    Attributes:
        name: Column name.
        unit: Its unit, empty for none.
        leaks_when: Which way more is given away.
        heading: What tables call it.
        digits: Decimals that it is shown with; of a percentage, those of the percentage.
        percent: Whether it is a share shown as a percentage.
        meaning: What it is, in a line.
    """

    name: str
    unit: str
    leaks_when: Literal["higher", "lower"]
    heading: str
    digits: int
    percent: bool = False
    meaning: str = ""

    @property
    def scale(self) -> float:
        """What it is multiplied with to be shown."""
        return 100.0 if self.percent else 1.0

    @property
    def column(self) -> Column:
        """Its column."""
        return Column(self.name, "float", self.unit, self.meaning or self.heading)

    @property
    def cell_columns(self) -> tuple[Column, ...]:
        """Its columns in cells.csv: the mean, and both ends of its interval."""
        ends = (("lo", "lower"), ("hi", "upper"))
        meaning = "end of the 95 % bootstrap interval of"
        return (
            self.column,
            *(Column(f"{self.name}_{e}", "float", self.unit, f"{w} {meaning} {self.name}") for e, w in ends),
        )


BUILT_IN = (
    Score("psnr_db", "dB", "higher", "PSNR", 2),
    Score("ssim", "", "higher", "SSIM", 3),
    Score("lpips", "", "lower", "LPIPS", 3),
    Score("reid_top1", "0..1", "higher", "Re-identified by victim", 1, percent=True),
    Score("label_agreement", "0..1", "higher", "Same answer", 1, percent=True),
    Score("judge_reid_top1", "0..1", "higher", "Re-identified by judge", 1, percent=True),
    Score("judge_agreement", "0..1", "higher", "Agreement by judge", 3),
)


def check_metrics(metrics: Iterable[Metric]) -> None:
    """Checks that every metric can have a column of its own.

    Raises:
        PluginError: A name is no column name, is taken, or occurs twice, or a direction is none.
    """
    seen: set[str] = set()
    for metric in metrics:
        name, where = metric.name, f"metric {metric.name!r}"
        ends = {name, f"{name}_lo", f"{name}_hi"}
        if name not in SCORE_NAMES and (not COLUMN_NAME.fullmatch(str(name)) or str(name).startswith(_RESERVED)):
            hint = f"lower-case letters, digits and _, at most 40, not starting with {', '.join(_RESERVED)}"
            raise PluginError("its name can be no column", where=where, hint=hint)
        if ends & _TAKEN and name not in SCORE_NAMES:
            raise PluginError("its name is that of another column", where=where, hint="give it another `name`")
        if name in seen:
            raise PluginError("the suite names it twice", where=where, hint="a metric has one column: name it once")
        if metric.leaks_when not in ("higher", "lower"):
            raise PluginError(f"leaks_when = {metric.leaks_when!r}", where=where, hint="write higher or lower")
        seen.add(name)


def described(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Returns what run.json states of the metrics of a suite."""
    return [
        {
            "name": metric.name,
            "unit": metric.unit,
            "leaks_when": metric.leaks_when,
            "heading": metric.heading or metric.name,
            "digits": metric.digits,
            "meaning": (type(metric).__doc__ or "").strip().partition("\n")[0],
        }
        for metric in metrics
    ]


def own_scores(manifest: Mapping[str, Any]) -> tuple[Score, ...]:
    """Returns the scores of a run that are not built in, as its run.json describes them.

    Raises:
        StoreError: The description is none.
    """
    stated = manifest.get("metrics") or []
    found = list[Score]()
    for entry in stated if isinstance(stated, list) else [None]:
        score = _read(entry)
        if score is None or score.name in {other.name for other in found}:
            raise StoreError("`metrics` describes no metrics", where="run.json", hint="restore it, or run again")
        if score.name not in SCORE_NAMES:
            found.append(score)
    return tuple(found)


def _read(entry: Any) -> Score | None:
    """Returns the score that an entry of run.json describes; None where it describes none."""
    if not isinstance(entry, dict):
        return None
    name, digits, leaks_when = entry.get("name"), entry.get("digits", 3), entry.get("leaks_when")
    texts = [entry.get(key, "") for key in ("unit", "heading", "meaning")]
    if not (isinstance(name, str) and COLUMN_NAME.fullmatch(name) and all(isinstance(text, str) for text in texts)):
        return None
    if leaks_when not in ("higher", "lower") or type(digits) is not int or not 0 <= digits <= MOST_DIGITS:
        return None
    if name not in SCORE_NAMES and {name, f"{name}_lo", f"{name}_hi"} & _TAKEN:
        return None
    return Score(name, texts[0], leaks_when, texts[1] or name, digits, meaning=texts[2])
