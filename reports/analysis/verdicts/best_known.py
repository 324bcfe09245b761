"""A run beside the best known: whether the strongest attack on an operating point comes near the strongest ever."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from leakgauge.harness.run.best_known import (
    LEFT_DB,
    REFERENCE_DB,
    BestKnown,
    Contender,
    RunBest,
    achieved,
    best_known,
    news,
)
from leakgauge.harness.suite.exposure_content import PointPlace, exposures_of
from leakgauge.reports.analysis.run import LoadedRun, rows_of

EFFORT = 4.0
"""How many times the time of the strongest attack of a run others must have spent near the best known to vouch for it.

Two doublings, as a training has to show of itself (see ``DOUBLING_DB``), for one may gain little by chance: both are
known to have found no more than ``REFERENCE_DB``. Seconds are of whatever machines measured them: where others' were
half as fast, 4 is one doubling only, and where they were faster it is more than two.
"""


@dataclass(frozen=True)
class Reference:
    """The strongest attack on an operating point, with its plug-in and options, and the best known of the exposure."""

    strongest: Contender
    options: Mapping[str, object]
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

        It is near, its leakage is scored, and either a converged attacker once came as near the strongest ever
        measured, this run included, as convergence tells, or others that came near it spent much more than it did:
        else nobody knows yet where attacks on this exposure end.
        """
        scored = math.isfinite(self.strongest.mean("leakage"))
        return self.near and scored and (self.ended or self.effort >= EFFORT)

    @property
    def ended(self) -> bool:
        """Whether a converged attacker once came as near the strongest as convergence tells."""
        ended = self.known.converged_db
        return ended is not None and self._most_db - ended <= LEFT_DB

    @property
    def effort(self) -> float:
        """How many times the seconds of the strongest attack others took to come near; 0 where its own are unknown."""
        own = self.strongest.mean("attack_seconds")
        return self.known.effort_beside(self.options, self._most_db) / own if own > 0 else 0.0

    @property
    def _most_db(self) -> float:
        return max(self.known.psnr_db, self.strongest.psnr_db)

    @property
    def vouched(self) -> str:
        """Says what it vouches for, and how."""
        lack = f"within {self.shortfall_db:.1f} dB of" if self.shortfall_db > 0 else "no less than"
        how = "an attacker converged" if self.ended else f"others spent {self.effort:.1f} times its effort"
        reached = f"{self.strongest.attack} reaches {lack} the best known ({self.known.said})"
        return f"by reference: {reached}, near which {how}"

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
    if known is None:
        return None
    options = {attack.label: attack.plugin.model_dump(mode="json") for attack in run.suite.attacks}
    return Reference(strongest, options.get(strongest.attack, {}), known)


def _known(run: LoadedRun) -> Mapping[PointPlace, BestKnown]:
    found = {place: best_known().get(one.key) for place, one in exposures_of(run.suite, _data(run)).items()}
    return {place: known for place, known in found.items() if known is not None}


def _data(run: LoadedRun) -> Mapping[str, object]:
    data = run.manifest.get("data")
    return data if isinstance(data, dict) else {}


def new_best_known(run: LoadedRun) -> list[str]:
    """Says where a run beats the best known by more than its interval over images, and how to write that down."""
    floors = [label for label in run.attacks if run.is_floor(label)]
    found: list[RunBest] = achieved(run.suite, _data(run), rows_of(run.cells), floors)
    return news(found, "RUN")
