"""Assembles the result tables from finished parts: means, intervals, leakage above the floors, and verdicts.

A pure function of the parts, so that resuming, worker counts and re-scoring cannot change how rows are made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from leakgauge.harness.scoring.statistics import Interval, bootstrap_streams, mean_interval
from leakgauge.harness.values.columns import ATTRIBUTE_CORRECT, SCORE_NAMES
from leakgauge.harness.values.learning_curve import DOUBLING_DB

Part = dict[str, Any]
Row = dict[str, Any]
Values = NDArray[np.float64]
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


def unscored_of(part: Part) -> str:
    """Says which scores a cell lacks and why: a reason once, after all that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in part.get("unscored", {}).items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} unscored: {reason}" for reason, names in by_reason.items())


def _exposure(part: Part) -> tuple[Any, ...]:
    names = part["identity"]
    return names["operating_point"], names["channel"], names["threat_model"], names["seed"]


def _scores(part: Part, name: str, count: int) -> Values:
    values = part["scores"].get(name)
    return np.full(count, np.nan) if values is None else np.asarray(values, dtype=np.float64)


def _own_scores(part: Part) -> list[str]:
    """Names the scores of a part by the run's own metrics."""
    return [name for name in part["scores"] if name not in SCORE_NAMES and name != ATTRIBUTE_CORRECT.name]


def _ratio(counts: Values, of: Values) -> Values:
    """Returns (B,) values whose mean is sum(counts) / sum(of), and vary about it as that ratio does.

    Images have different numbers of questions: the ratio of two sums is linearised about its value (Cochran, Sampling
    Techniques, section 6.3), so that its interval is that of a mean.
    """
    ratio = counts.sum() / of.sum()
    values: Values = ratio + (counts - ratio * of) / of.mean()
    return values


def _is_probe(part: Part) -> bool:
    return bool(part.get("kind", "reconstruction") != "reconstruction")


def _shows_skill(part: Part, row: Row) -> bool:
    """Tells whether a cell clearly beats the floors, or as a probe clearly beats chance by one of its scores."""
    if _is_probe(part):
        return any(row[f"{name}_lo"] > chance for name, chance in part["chance"].items())
    return bool(row["leakage_lo"] > 0)


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

    def tables(self, parts: list[Part]) -> Tables:
        """Returns all rows, in the order of ``parts``."""
        floors = self._best_floors(parts)
        leaks = [self._leakage(part, floors) for part in parts]
        cells = [self._cell_row(part, leak) for part, leak in zip(parts, leaks, strict=True)]
        proven = self._proven(parts, cells)
        images: list[Row] = []
        for part, row in zip(parts, cells, strict=True):
            self._judge(part, row, proven)
        self._warn(parts, cells)
        for part, leak in zip(parts, leaks, strict=True):
            if part["status"] == "done":
                images.extend(self._image_rows(part, leak))
        return Tables(cells, images, self._kind_rows(parts))

    def _kind_rows(self, parts: list[Part]) -> list[Row]:
        """Returns the quality by kind of question, once an operating point, channel and seed."""
        rows: dict[tuple[Any, ...], list[Row]] = {}
        for part in parts:
            names = {name: part["identity"][name] for name in ("operating_point", "channel", "seed")}
            kinds = part.get("kinds", {})
            if kinds and tuple(names.values()) not in rows:
                whole = {n: np.sum([k[n] for k in kinds.values()], axis=0) for n in ("right", "base", "questions")}
                every = {"all": whole, **kinds} if len(kinds) > 1 else kinds
                rows[tuple(names.values())] = [{**names, "kind": k, **self._kind(one)} for k, one in every.items()]
        return [row for own in rows.values() for row in own]

    def _kind(self, counts: dict[str, Any]) -> Row:
        """Returns the columns of one kind: shares of its questions, over intervals that resample images."""
        right, base, asked = (np.asarray(counts[n], dtype=np.float64) for n in ("right", "base", "questions"))
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

    def _proven(self, parts: list[Part], cells: list[Row]) -> set[tuple[Any, ...]]:
        """Returns (attack, threat model, seed) that clearly beat the floors, or chance, on an undefended payload."""
        return {
            self._attacker(part)
            for part, row in zip(parts, cells, strict=True)
            if part["status"] == "done"
            and part["identity"]["operating_point"] == self._baseline
            and _shows_skill(part, row)
        }

    @staticmethod
    def _attacker(part: Part) -> tuple[Any, ...]:
        return part["identity"]["attack"], part["identity"]["threat_model"], part["identity"]["seed"]

    def _caveat(self, part: Part, row: Row, proven: set[tuple[Any, ...]]) -> str:
        """Says why a cell is inconclusive; empty where its attacker is shown to be converged and capable."""
        if part["status"] != "done":
            return str(part["reason"])
        if part["floor"]:
            return ""
        if part["unconverged"]:
            return f"convergence not shown: {part['unconverged']}"
        proven_here = self._attacker(part) in proven
        if _is_probe(part):
            return "" if proven_here or not part["proves_on_baseline"] else _UNPROVEN.format("chance")
        if math.isnan(row["leakage"]):
            return "no floor attack in this exposure to compare with"
        return "" if proven_here else _UNPROVEN.format("the floors")

    def _judge(self, part: Part, row: Row, proven: set[tuple[Any, ...]]) -> None:
        """Adds the verdict to a cell's row, and what is to be said of it."""
        caveat = self._caveat(part, row, proven)
        bound = part.get("lower_bound", "")
        row["verdict"] = "inconclusive" if caveat else "lower bound" if bound else "conclusive"
        row["reason"] = "; ".join(filter(None, (caveat or bound, unscored_of(part))))

    @staticmethod
    def _warn(parts: list[Part], cells: list[Row]) -> None:
        """Marks conclusive cells of which another setting of the same plug-in rebuilds clearly more."""
        for part, row in zip(parts, cells, strict=True):
            row["warning"] = ""
            if row["verdict"] != "conclusive" or part["floor"] or _is_probe(part):
                continue
            same = [
                other
                for one, other in zip(parts, cells, strict=True)
                if other["status"] == "done"
                and one.get("plugin") == part.get("plugin", "")
                and _exposure(one) == _exposure(part)
            ]
            most = max(same, key=lambda other: float(other["psnr_db"]), default=row)
            gain = float(most["psnr_db"]) - float(row["psnr_db"])
            if gain > DOUBLING_DB:
                row["warning"] = (
                    f"{most['attack']}, the same plug-in with other settings, rebuilds {gain:+.2f} dB better here, so "
                    "this attacker is not as strong as it looks"
                )

    def _cell_row(self, part: Part, leakage: Values) -> Row:
        """Returns a cell's row but for its verdict."""
        count = len(self._images)
        done = part["status"] == "done"
        row: Row = {**part["identity"], "n": count if done else 0, "status": part["status"]}
        row["code"] = part.get("code", "")
        for name, values in part["costs"].items():
            row[name] = float(np.mean(values))
        row["latency_ms"] = part["latency_ms"]
        measured = {
            # An operating point that could not be measured has no costs.
            "quality": np.asarray(part["costs"].get("quality", np.full(count, np.nan)), dtype=np.float64),
            **{name: _scores(part, name, count) for name in (*SCORE_NAMES, *_own_scores(part))},
            "attribute_accuracy": _scores(part, ATTRIBUTE_CORRECT.name, count),
            "leakage": leakage,
        }
        for name, values in measured.items():
            score = self._interval(values)
            row[name], row[f"{name}_lo"], row[f"{name}_hi"] = score.mean, score.lo, score.hi
        row["attribute"] = part.get("attribute", "")
        row |= part.get("cell_scores", {})
        row["attack_seconds"] = part.get("attack_seconds")
        return row

    def _image_rows(self, part: Part, leakage: Values) -> list[Row]:
        columns: dict[str, Any] = dict(part["costs"])
        columns |= {
            name: _scores(part, name, len(self._images))
            for name in (*SCORE_NAMES, *_own_scores(part), ATTRIBUTE_CORRECT.name)
        }
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
