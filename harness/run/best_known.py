"""The strongest leakage ever measured on an exposure: what is known of shipped suites, whoever runs them next.

RobustBench keeps, for every defense, the strongest attack that anyone found; so do the files of packages that register
in ``leakgauge.best_known``, for every operating point over a channel under a threat model. They are recognised by what
they are, not by their names.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from leakgauge.harness.errors import PluginError
from leakgauge.harness.store.versioned import read_versioned
from leakgauge.harness.suite.exposure_content import ExposureContent, PointPlace, exposures_of
from leakgauge.harness.suite.planning import content_hash
from leakgauge.harness.suite.registry import load, plugins
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.values.columns import CELL_KEY
from leakgauge.harness.values.learning_curve import DOUBLING_DB, UNKNOWN_GAIN_DB

GROUP = "best_known"
FILE = "best_known.json"
VERSION = 1
UPDATE = "python -m leakgauge.benchmarks.best_known"
LEFT_DB = 2 * DOUBLING_DB
"""What a converged attacker is taken to leave in doubt: see ``DOUBLING_DB``."""
REFERENCE_DB = 1.0
"""Most that an attack may lack to the best known, in dB, and still be near it.

To be near, the strongest attack of a run must have the best known within its interval over images as well. The interval
alone would excuse a weak attacker on few images, whose interval is wide; the decibel alone one on many, where less than
that is a clear difference.
"""
Row = Mapping[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Effort(_Strict):
    """An attacker that came near the best known of an exposure, and the time that took, whatever machine measured it.

    ``psnr_db`` is its mean over images and seeds, ``attack_seconds`` training and reconstruction, a seed. It is told
    from others by its plug-in and options alone: whoever repeats it, under another label or with other seeds, searches
    no further.
    """

    attack: str
    options: dict[str, Any]
    psnr_db: FiniteFloat
    attack_seconds: Annotated[FiniteFloat, Field(ge=0)]
    seeds: tuple[int, ...]
    commit: str

    @property
    def key(self) -> str:
        """Tells attackers apart."""
        return content_hash(self.options)


class BestKnown(_Strict):
    """The strongest that was ever measured on one exposure.

    ``operating_point``, ``channel``, ``threat_model`` and ``suite`` are names, for who reads it. ``psnr_db`` is the
    mean over images and seeds of the one attack whose mean is the highest, ``leakage`` the same above the floors of its
    run. ``converged_db`` is the highest of an attack that was shown to be converged, None where none was. ``steps`` are
    optimiser steps, ``attack_seconds`` training and reconstruction, a seed. ``efforts`` are the attackers that came
    near it, itself included, each once.
    """

    key: Annotated[str, Field(pattern=f"^{CELL_KEY}$")]
    operating_point: str
    channel: str
    threat_model: str
    psnr_db: FiniteFloat
    leakage: FiniteFloat
    converged_db: FiniteFloat | None
    attack: str
    options: dict[str, Any]
    steps: int | None
    attack_seconds: FiniteFloat | None
    efforts: tuple[Effort, ...] = ()
    seeds: tuple[int, ...]
    evaluation_images: int
    suite: str
    commit: str
    version: str
    date: str
    exposure: ExposureContent

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key != self.exposure.key:
            raise ValueError(f"{self.key!r} is not the hash of its exposure, {self.exposure.key!r}")
        if self.converged_db is not None and self.converged_db > self.psnr_db:
            raise ValueError(f"{self.key!r}: a converged attack beats the strongest")
        if any(not 0 <= self.psnr_db - one.psnr_db <= REFERENCE_DB for one in self.efforts):
            raise ValueError(f"{self.key!r}: an effort beats the strongest or is not near it")
        if len({one.key for one in self.efforts}) != len(self.efforts):
            raise ValueError(f"{self.key!r}: an effort counts twice")
        return self

    @property
    def effort_seconds(self) -> float:
        """What attackers that came near it took together."""
        return self.effort_beside({}, self.psnr_db)

    def effort_beside(self, options: Mapping[str, object], psnr_db: float) -> float:
        """Returns the seconds of attackers near a PSNR, less the one of these options: it proves nothing of itself."""
        near = [one for one in self.efforts if psnr_db - one.psnr_db <= REFERENCE_DB]
        return sum(one.attack_seconds for one in near if one.key != content_hash(options))

    @property
    def said(self) -> str:
        """Names it: attack and budget."""
        spent = [f"{self.steps} steps"] if self.steps is not None else []
        spent += [f"{self.attack_seconds:.0f} s"] if self.attack_seconds is not None else []
        return ", ".join([self.attack, *spent])


class BestKnownFile(_Strict):
    """A file of them, each exposure once."""

    schema_version: int = VERSION
    entries: tuple[BestKnown, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len({entry.key for entry in self.entries}) != len(self.entries):
            raise ValueError("entries: an exposure occurs twice")
        return self


def read_best_known(path: Path) -> BestKnownFile:
    """Reads a file of best known leakage.

    Raises:
        StoreError: It is not there, is no such file, or of a version that is not known.
    """
    hint = "restore it; runs that hold what it held write it again"
    return read_versioned(path, BestKnownFile, VERSION, "file of best known leakage", hint)


@cache
def best_known() -> Mapping[str, BestKnown]:
    """Returns what installed packages know, by key; of two that know of one exposure, the stronger.

    Raises:
        StoreError: A file cannot be read.
        PluginError: What is registered is no package.
    """
    found: dict[str, BestKnown] = {}
    for name in plugins(GROUP):
        package = load(GROUP, name)
        if not isinstance(package, ModuleType):
            raise PluginError(f"{name!r} names no package", where=f"leakgauge.{GROUP}", hint=f"one that holds {FILE}")
        with as_file(files(package) / FILE) as path:
            for entry in read_best_known(path).entries:
                known = found.get(entry.key)
                if known is None or entry.psnr_db > known.psnr_db:
                    found[entry.key] = entry
    return found


@dataclass(frozen=True)
class Contender:
    """An attack that rebuilt images behind one operating point, over its seeds; numbers are means over these."""

    attack: str
    cells: tuple[Row, ...]

    def mean(self, column: str) -> float:
        """Returns the mean of a column of cells.csv; NaN where a seed lacks it."""
        return fmean(float(cell.get(column, math.nan)) for cell in self.cells)

    @property
    def psnr_db(self) -> float:
        """PSNR in dB, the mean over images and seeds."""
        return self.mean("psnr_db")

    @property
    def doubted(self) -> bool:
        """Whether a seed of it is inconclusive."""
        return any(cell["verdict"] not in {"conclusive", "lower bound"} for cell in self.cells)

    @property
    def converged(self) -> bool:
        """Whether every seed of it is conclusive."""
        return all(cell["verdict"] == "conclusive" for cell in self.cells)

    @property
    def reasons(self) -> str:
        """Why seeds of it are not conclusive, each reason once."""
        said = (str(cell["reason"] or "no reason given") for cell in self.cells if cell["verdict"] != "conclusive")
        return "; ".join(dict.fromkeys(said))

    @property
    def gain_db(self) -> float:
        """What it may still gain, as its seeds say; ``UNKNOWN_GAIN_DB`` for those that do not."""
        return fmean(0.0 if gain is None else gain for gain in map(_gain, self.cells))

    @property
    def gain_known(self) -> bool:
        """Whether every seed that is inconclusive says what it may still gain."""
        return all(_known(cell) for cell in self.cells if _gain(cell) is not None)


def _known(cell: Row) -> bool:
    return math.isfinite(float(cell.get("could_gain_db", math.nan)))


def _gain(cell: Row) -> float | None:
    """Returns what a cell may still gain; None where it is shown to be converged."""
    if cell["verdict"] in {"conclusive", "lower bound"}:
        return None
    return float(cell["could_gain_db"]) if _known(cell) else UNKNOWN_GAIN_DB


def contenders(cells: Iterable[Row], floors: Collection[str]) -> list[Contender]:
    """Returns the attacks that rebuilt images, the strongest first: neither floors nor probes, nor what is unscored.

    Args:
        cells: Rows of cells.csv of one operating point, channel and threat model.
        floors: Labels of the floors.
    """
    by_attack: dict[str, list[Row]] = {}
    for cell in cells:
        scored = cell["status"] == "done" and math.isfinite(float(cell["psnr_db"]))
        if scored and str(cell["attack"]) not in floors:
            by_attack.setdefault(str(cell["attack"]), []).append(cell)
    found = [Contender(attack, tuple(own)) for attack, own in by_attack.items()]
    return sorted(found, key=lambda one: (-one.psnr_db, one.attack))


@dataclass(frozen=True)
class RunBest:
    """What one operating point of a run gave away, and what the exposure is known for.

    Args:
        place: Names of operating point, channel and threat model.
        exposure: What it is.
        attackers: The attacks of the run, that whose mean PSNR is the highest first.
        known: What is known; None where nothing is.
    """

    place: PointPlace
    exposure: ExposureContent
    attackers: Sequence[Contender]
    known: BestKnown | None

    @property
    def strongest(self) -> Contender:
        """The first of them."""
        return self.attackers[0]

    @property
    def converged_db(self) -> float | None:
        """The highest mean PSNR of one that is conclusive; None where none is."""
        return next((one.psnr_db for one in self.attackers if one.converged), None)

    @property
    def beats(self) -> bool:
        """Whether it beats the best known by more than its interval over images."""
        return self.known is not None and self.strongest.mean("psnr_db_lo") > self.known.psnr_db


def achieved(suite: Suite, data: Mapping[str, object], cells: Sequence[Row], floors: Collection[str]) -> list[RunBest]:
    """Returns where every operating point of a run stands that an attack was scored on; attacks count with all seeds.

    Args:
        suite: The suite.
        data: ``data`` of run.json.
        cells: Rows of cells.csv.
        floors: Labels of the floors.
    """
    found = []
    for place, exposure in exposures_of(suite, data).items():
        here = [c for c in cells if (c["operating_point"], c["channel"], c["threat_model"]) == place]
        whole = [one for one in contenders(here, floors) if len(one.cells) == len(suite.seeds)]
        if whole:
            found.append(RunBest(place, exposure, whole, best_known().get(exposure.key)))
    return found


def news(found: Iterable[RunBest], run: object) -> list[str]:
    """Says, once for all, where a run beats the best known, and how that is written down.

    Args:
        found: Where its operating points stand.
        run: Its folder.
    """
    told = [
        f"{one.strongest.attack} on {one.place[0]} ({one.place[1]}, {one.place[2]}) reaches "
        f"{one.strongest.psnr_db:.1f} dB, {one.strongest.psnr_db - one.known.psnr_db:.1f} dB more than {one.known.said}"
        for one in found
        if one.beats and one.known is not None
    ]
    return [f"new best known, please update: {'; '.join(told)}: {UPDATE} {run}"] if told else []
