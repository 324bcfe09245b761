"""A run beside the best known: whether the strongest attack on an operating point comes near the strongest ever."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from leakgauge.harness.run.best_known import (
    LEFT_DB,
    Achieved,
    BestKnown,
    Contender,
    PointPlace,
    achieved,
    best_known,
    exposures_of,
    news,
)
from leakgauge.reports.analysis.run import LoadedRun, rows_of

REFERENCE_DB = 1.0
"""Most that the strongest attack may lack to the best known, in dB, and still be near it.

The best known must lie within its interval over images as well. The interval alone would excuse a weak attacker on few
images, whose interval is wide; the decibel alone one on many, where less than that is a clear difference.
"""


@dataclass(frozen=True)
class Reference:
    """The strongest attack on an operating point, and the best known of the same exposure."""

    strongest: Contender
    known: BestKnown

    @property
    def shortfall_db(self) -> float:
        """What the strongest attack lacks to the best known; negative where it is the stronger."""
        return self.known.psnr_db - self.strongest.psnr_db

    @property
    def near(self) -> bool:
        """Whether the best known lies within the interval of the strongest attack, and is not far from it."""
        within = self.shortfall_db <= 0 or self.known.psnr_db <= self.strongest.mean("psnr_db_hi")
        return within and self.shortfall_db <= REFERENCE_DB

    @property
    def vouches(self) -> bool:
        """Whether it shows the strongest attack to be as strong as any here gets, though its own curve may still rise.

        It is near, its leakage is scored, and a converged attacker once came as near the strongest ever measured, this
        run included, as convergence tells: else nobody knows yet where attacks on this exposure end.
        """
        ended, scored = self.known.converged_db, math.isfinite(self.strongest.mean("leakage"))
        most = max(self.known.psnr_db, self.strongest.psnr_db)
        return self.near and scored and ended is not None and most - ended <= LEFT_DB

    @property
    def vouched(self) -> str:
        """Says what it vouches for."""
        lack = f"within {self.shortfall_db:.1f} dB of" if self.shortfall_db > 0 else "no less than"
        return f"by reference: {self.strongest.attack} reaches {lack} the best known ({self.known.said})"

    @property
    def far(self) -> str:
        """Says by how much it is missed."""
        level = f"best known reaches {self.known.psnr_db:.1f} dB ({self.known.said})"
        return f"{level}, {self.shortfall_db:.1f} dB more than anything here"


def reference_of(run: LoadedRun, place: PointPlace, strongest: Contender) -> Reference | None:
    """Returns the reference of an operating point; None where nothing is known of its exposure.

    Raises:
        StoreError: What is known cannot be read.
    """
    known = run.once("best known", lambda: _known(run)).get(place)
    return None if known is None else Reference(strongest, known)


def _known(run: LoadedRun) -> Mapping[PointPlace, BestKnown]:
    found = {place: best_known().get(one.key) for place, one in exposures_of(run.suite, _data(run)).items()}
    return {place: known for place, known in found.items() if known is not None}


def _data(run: LoadedRun) -> Mapping[str, object]:
    data = run.manifest.get("data")
    return data if isinstance(data, dict) else {}


def new_best_known(run: LoadedRun) -> list[str]:
    """Says where a run beats the best known by more than its interval over images, and how to write that down."""
    floors = [label for label in run.attacks if run.is_floor(label)]
    found: list[Achieved] = achieved(run.suite, _data(run), rows_of(run.cells), floors)
    return news(found, "RUN")
