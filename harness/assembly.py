"""Assembles the result tables from finished parts: means, intervals, leakage above the floors, and verdicts.

A pure function of the parts, so that resuming, worker counts and re-scoring cannot change how rows are made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.images import ImageSet
from harness.results import SCORE_NAMES
from harness.scoring.statistics import Interval, mean_interval
from harness.seeding import Streams

Part = dict[str, Any]
Values = NDArray[np.float64]


class Tables(NamedTuple):
    """Rows of cells.csv and of images.parquet."""

    cells: list[dict[str, Any]]
    images: list[dict[str, Any]]


def _exposure(part: Part) -> tuple[Any, ...]:
    names = part["identity"]
    return names["operating_point"], names["channel"], names["threat_model"], names["seed"]


def _scores(part: Part, name: str, count: int) -> Values:
    values = part["scores"].get(name)
    return np.full(count, np.nan) if values is None else np.asarray(values, dtype=np.float64)


class Assembler:
    """Builds the tables of one run.

    Args:
        evaluation: The images that all cells were scored on.
        baseline: Name of the undefended operating point.
        seed: Seeds the bootstrap, whose draws are shared by all cells.
    """

    def __init__(self, evaluation: ImageSet, baseline: str, seed: int) -> None:
        self._images, self._baseline = evaluation, baseline
        self._groups = None if evaluation.groups is None else evaluation.groups.numpy()
        self._streams = Streams(seed, ("bootstrap",))

    def tables(self, parts: list[Part]) -> Tables:
        """Returns all rows, in the order of ``parts``."""
        floors = self._best_floors(parts)
        leaks = [self._leakage(part, floors) for part in parts]
        intervals = [self._interval(leak) for leak in leaks]
        proven = self._proven(parts, intervals)
        cells, images = [], []
        for part, leak, interval in zip(parts, leaks, intervals, strict=True):
            cells.append(self._cell_row(part, interval, proven))
            if part["status"] == "done":
                images.extend(self._image_rows(part, leak))
        return Tables(cells, images)

    def _interval(self, values: Values) -> Interval:
        return mean_interval(values, self._groups, self._streams)

    def _best_floors(self, parts: list[Part]) -> dict[tuple[Any, ...], Values]:
        """Returns, by exposure, the PSNR of the best floor on every image."""
        best: dict[tuple[Any, ...], Values] = {}
        for part in parts:
            if part["floor"] and part["status"] == "done":
                values = _scores(part, "psnr_db", len(self._images))
                best[_exposure(part)] = np.fmax(best.get(_exposure(part), values), values)
        return best

    def _leakage(self, part: Part, floors: dict[tuple[Any, ...], Values]) -> Values:
        count = len(self._images)
        floor = floors.get(_exposure(part), np.full(count, np.nan))
        return _scores(part, "psnr_db", count) - floor

    def _proven(self, parts: list[Part], intervals: list[Interval]) -> set[tuple[Any, ...]]:
        """Returns (attack, threat model, seed) that clearly beat the floors on an undefended payload."""
        return {
            self._attacker(part)
            for part, interval in zip(parts, intervals, strict=True)
            if part["identity"]["operating_point"] == self._baseline and interval.lo > 0
        }

    @staticmethod
    def _attacker(part: Part) -> tuple[Any, ...]:
        return part["identity"]["attack"], part["identity"]["threat_model"], part["identity"]["seed"]

    def _doubt(self, part: Part, leakage: Interval, proven: set[tuple[Any, ...]]) -> str:
        """Says why a cell is inconclusive; empty where it is conclusive."""
        if part["status"] != "done":
            return str(part["reason"])
        if part["floor"]:
            return ""
        if part["unconverged"]:
            return f"convergence not shown: {part['unconverged']}"
        if math.isnan(leakage.mean):
            return "no floor attack in this exposure to compare with"
        if self._attacker(part) not in proven:
            return "does not beat the floors on the undefended payload, so a low score here proves nothing"
        return ""

    def _cell_row(self, part: Part, leakage: Interval, proven: set[tuple[Any, ...]]) -> dict[str, Any]:
        count = len(self._images)
        done = part["status"] == "done"
        row: dict[str, Any] = {**part["identity"], "n": count if done else 0, "status": part["status"]}
        for name, values in part["costs"].items():
            row[name] = float(np.mean(values))
        row["latency_ms"] = part["latency_ms"]
        quality = self._interval(np.asarray(part["costs"]["quality"], dtype=np.float64))
        row["quality_lo"], row["quality_hi"] = quality.lo, quality.hi
        for name in SCORE_NAMES:
            score = self._interval(_scores(part, name, count))
            row[name], row[f"{name}_lo"], row[f"{name}_hi"] = score.mean, score.lo, score.hi
        row["leakage"], row["leakage_lo"], row["leakage_hi"] = leakage.mean, leakage.lo, leakage.hi
        doubt = self._doubt(part, leakage, proven)
        unscored = [f"{name} unscored: {reason}" for name, reason in part.get("unscored", {}).items()]
        row["verdict"] = "inconclusive" if doubt else "conclusive"
        row["reason"] = "; ".join([doubt, *unscored] if doubt else unscored)
        row["attack_seconds"] = part.get("attack_seconds")
        return row

    def _image_rows(self, part: Part, leakage: Values) -> list[dict[str, Any]]:
        columns: dict[str, Any] = dict(part["costs"])
        columns |= {name: _scores(part, name, len(self._images)) for name in SCORE_NAMES}
        columns["leakage"] = leakage
        labels, groups = self._images.labels, self._images.groups
        return [
            {
                **part["identity"],
                "image": image_id,
                "label": -1 if labels is None else int(labels[i]),
                "group": i if groups is None else int(groups[i]),
                **{name: float(values[i]) for name, values in columns.items()},
            }
            for i, image_id in enumerate(self._images.ids)
        ]
