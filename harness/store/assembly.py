"""Assembles the result tables from finished parts: means, intervals, leakage above the floors, and verdicts.

A pure function of the parts, so that resuming, worker counts and re-scoring cannot change how rows are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from leakgauge.harness.scoring.leakage import best_on_average
from leakgauge.harness.scoring.statistics import Interval, bootstrap_streams, mean_interval
from leakgauge.harness.store.cell_record import (
    CellRecord,
    FailedRecord,
    MeasuredRecord,
    NamedRecord,
    Place,
    ProbeRecord,
    Scores,
)
from leakgauge.harness.store.table_file import Row
from leakgauge.harness.values.columns import ATTRIBUTE_CORRECT, PERMUTED, SCORE_NAMES
from leakgauge.harness.values.learning_curve import DOUBLING_DB

Values: TypeAlias = NDArray[np.float64]
_UNPROVEN = "does not beat {} on the undefended payload, so a low score here proves nothing"


class Indexed(Protocol):
    """What the tables say of images: an ``ImageSet``, or what is left of one without its pixels."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers."""

    @property
    def labels(self) -> Tensor | None:
        """(N,) int64 task labels."""

    @property
    def groups(self) -> Tensor | None:
        """(N,) int64 clusters of dependent images."""

    def __len__(self) -> int: ...


class Tables(NamedTuple):
    """Rows of cells.csv, of images.parquet and of quality_by_kind.csv, which is empty where nothing is asked."""

    cells: list[Row]
    images: list[Row]
    kinds: list[Row]


def _values(scores: Scores, name: str, count: int) -> Values:
    """Returns (B,) scores by name; NaN where they are missing."""
    values = scores.get(name)
    return np.full(count, np.nan) if values is None else np.asarray(values, dtype=np.float64)


def _own_scores(record: CellRecord) -> list[str]:
    """Names the scores of a cell by the run's own metrics."""
    known = {*SCORE_NAMES, ATTRIBUTE_CORRECT.name, PERMUTED.name}
    return [name for name in record.scores if name not in known]


def _ratio(counts: Values, of: Values) -> Values:
    """Returns (B,) values whose mean is sum(counts) / sum(of), and vary about it as that ratio does.

    Images have different numbers of questions: the ratio of two sums is linearised about its value (Cochran, Sampling
    Techniques, section 6.3), so that its interval is that of a mean.
    """
    ratio = counts.sum() / of.sum()
    values: Values = ratio + (counts - ratio * of) / of.mean()
    return values


def _number(row: Row, name: str) -> float:
    value = row[name]
    return math.nan if value is None else float(value)


def _shows_skill(record: CellRecord, row: Row) -> bool:
    """Tells whether a cell clearly beats the floors, or as a probe clearly beats chance by one of its scores."""
    if isinstance(record, ProbeRecord):
        return any(_number(row, f"{name}_lo") > chance for name, chance in record.chance.items())
    return _number(row, "leakage_lo") > 0


class _Counts(NamedTuple):
    """(B,) right answers, those of the unmodified victim, and questions of one kind."""

    right: Values
    base: Values
    questions: Values

    @classmethod
    def of(cls, counts: Scores) -> _Counts:
        return cls(*(np.asarray(counts[name], dtype=np.float64) for name in cls._fields))

    @classmethod
    def sum(cls, each: Sequence[_Counts]) -> _Counts:
        return cls(*(np.sum(columns, axis=0) for columns in zip(*each, strict=True)))


class Assembler:
    """Builds the tables of one run.

    Args:
        evaluation: The images that all cells were scored on.
        baseline: Name of the undefended operating point.
        seed: Seeds the bootstrap, whose draws are shared by all cells.
    """

    def __init__(self, evaluation: Indexed, baseline: str, seed: int) -> None:
        self._images, self._baseline = evaluation, baseline
        self._groups = None if evaluation.groups is None else evaluation.groups.numpy()
        self._streams = bootstrap_streams(seed)

    def tables(self, records: Sequence[CellRecord]) -> Tables:
        """Returns all rows, in the order of ``records``."""
        floors = self._floors(records)
        leaks = [self._leakage(record, floors) for record in records]
        cells = [self._cell_row(record, leak) for record, leak in zip(records, leaks, strict=True)]
        proven = self._proven(records, cells)
        images: list[Row] = []
        for record, row in zip(records, cells, strict=True):
            self._judge(record, row, proven)
        self._warn(records, cells)
        for record, leak in zip(records, leaks, strict=True):
            if isinstance(record, MeasuredRecord):
                images.extend(self._image_rows(record, leak))
        return Tables(cells, images, self._kind_rows(records))

    def _kind_rows(self, records: Sequence[CellRecord]) -> list[Row]:
        """Returns the quality by kind of question, once an operating point, channel and seed."""
        rows: dict[tuple[str, str, int], list[Row]] = {}
        for record in records:
            names, kinds = record.identity, record.head.kinds
            place = names.operating_point, names.channel, names.seed
            if kinds and place not in rows:
                counts = {kind: _Counts.of(one) for kind, one in kinds.items()}
                every = {"all": _Counts.sum(list(counts.values())), **counts} if len(counts) > 1 else counts
                stated: Row = dict(zip(("operating_point", "channel", "seed"), place, strict=True))
                rows[place] = [{**stated, "kind": kind, **self._kind(one)} for kind, one in every.items()]
        return [row for own in rows.values() for row in own]

    def _kind(self, counts: _Counts) -> Row:
        """Returns the columns of one kind: shares of its questions, over intervals that resample images."""
        right, base, asked = counts
        quality, change = self._interval(_ratio(right, asked)), self._interval(_ratio(right - base, asked))
        return {
            "questions": int(asked.sum()),
            "quality": quality.mean,
            "quality_lo": quality.lo,
            "quality_hi": quality.hi,
            "quality_base": float(base.sum() / asked.sum()),
            "change": change.mean,
            "change_lo": change.lo,
            "change_hi": change.hi,
        }

    def _interval(self, values: Values) -> Interval:
        return mean_interval(values, self._groups, self._streams)

    def _floors(self, records: Sequence[CellRecord]) -> dict[Place, Values]:
        """Returns, by exposure, the PSNR on every image of the floor that is best on average."""
        known: dict[Place, dict[str, Values]] = {}
        for record in records:
            if record.is_floor:
                values, place = _values(record.scores, "psnr_db", len(self._images)), record.identity.exposure
                known.setdefault(place, {})[record.identity.attack] = values
        best = {place: best_on_average(floors) for place, floors in known.items()}
        return {place: floors[best[place]] for place, floors in known.items() if best[place]}

    def _leakage(self, record: CellRecord, floors: dict[Place, Values]) -> Values:
        count = len(self._images)
        floor = floors.get(record.identity.exposure, np.full(count, np.nan))
        return _values(record.scores, "psnr_db", count) - floor

    def _proven(self, records: Sequence[CellRecord], cells: list[Row]) -> set[tuple[str, str, int]]:
        """Returns the attackers that clearly beat the floors, or chance, on an undefended payload."""
        return {
            record.identity.attacker
            for record, row in zip(records, cells, strict=True)
            if isinstance(record, MeasuredRecord)
            and record.identity.operating_point == self._baseline
            and _shows_skill(record, row)
        }

    @staticmethod
    def _caveat(record: CellRecord, row: Row, proven: set[tuple[str, str, int]]) -> str:
        """Says why a cell is inconclusive; empty where its attacker is shown to be converged and capable."""
        if isinstance(record, FailedRecord):
            return record.reason
        if not isinstance(record, MeasuredRecord) or record.is_floor:
            return ""
        if record.unconverged:
            return f"convergence not shown: {record.unconverged}"
        proven_here = record.identity.attacker in proven
        if isinstance(record, ProbeRecord):
            return "" if proven_here or not record.proves_on_baseline else _UNPROVEN.format("chance")
        if math.isnan(_number(row, "leakage")):
            return "no floor attack in this exposure to compare with"
        return "" if proven_here else _UNPROVEN.format("the floors")

    def _judge(self, record: CellRecord, row: Row, proven: set[tuple[str, str, int]]) -> None:
        """Adds the verdict to a cell's row, and what is to be said of it."""
        caveat, bound, lacks = self._caveat(record, row, proven), "", ""
        if isinstance(record, MeasuredRecord):
            bound, lacks = record.lower_bound, record.unscored_text()
        row["verdict"] = "inconclusive" if caveat else "lower bound" if bound else "conclusive"
        row["reason"] = "; ".join(filter(None, (caveat or bound, lacks)))

    @staticmethod
    def _warn(records: Sequence[CellRecord], cells: list[Row]) -> None:
        """Marks conclusive cells of which another setting of the same plug-in rebuilds clearly more."""
        for record, row in zip(records, cells, strict=True):
            row["warning"] = ""
            if row["verdict"] != "conclusive" or record.is_floor or isinstance(record, ProbeRecord):
                continue
            same = [
                other
                for one, other in zip(records, cells, strict=True)
                if one.status == "done"
                and one.head.plugin == record.head.plugin
                and one.identity.exposure == record.identity.exposure
            ]
            most = max(same, key=lambda other: _number(other, "psnr_db"), default=row)
            gain = _number(most, "psnr_db") - _number(row, "psnr_db")
            if gain > DOUBLING_DB:
                row["warning"] = (
                    f"{most['attack']}, the same plug-in with other settings, rebuilds {gain:+.2f} dB better here, so "
                    "this attacker is not as strong as it looks"
                )

    def _cell_row(self, record: CellRecord, leakage: Values) -> Row:
        """Returns a cell's row but for its verdict."""
        count, head = len(self._images), record.head
        row: Row = {**head.identity.columns(), "n": count if record.status == "done" else 0, "status": record.status}
        row["code"] = head.code or ""
        for name in head.costs:
            row[name] = float(np.mean(_values(head.costs, name, count)))
        row["latency_ms"] = head.latency_ms
        measured = {
            # An operating point that could not be measured has no costs.
            "quality": _values(head.costs, "quality", count),
            **{name: _values(record.scores, name, count) for name in (*SCORE_NAMES, *_own_scores(record))},
            "attribute_accuracy": _values(record.scores, ATTRIBUTE_CORRECT.name, count),
            "leakage": leakage,
        }
        for name, values in measured.items():
            score = self._interval(values)
            row[name], row[f"{name}_lo"], row[f"{name}_hi"] = score.mean, score.lo, score.hi
        row["attribute"] = record.attribute if isinstance(record, NamedRecord) else ""
        row |= record.cell_scores if isinstance(record, NamedRecord) else {}
        row["could_gain_db"] = record.could_gain_db if isinstance(record, MeasuredRecord) else None
        row["attack_seconds"] = record.attack_seconds if isinstance(record, MeasuredRecord) else None
        return row

    def _image_rows(self, record: MeasuredRecord, leakage: Values) -> list[Row]:
        count = len(self._images)
        columns = {name: _values(record.head.costs, name, count) for name in record.head.costs}
        columns |= {
            name: _values(record.scores, name, count)
            for name in (*SCORE_NAMES, *_own_scores(record), PERMUTED.name, ATTRIBUTE_CORRECT.name)
        }
        columns["leakage"] = leakage
        labels, groups = self._images.labels, self._images.groups
        return [
            {
                **record.identity.columns(),
                "image": image_id,
                "label": -1 if labels is None else int(labels[i]),
                "group": i if groups is None else int(groups[i]),
                **{name: float(values[i]) for name, values in columns.items()},
            }
            for i, image_id in enumerate(self._images.ids)
        ]
