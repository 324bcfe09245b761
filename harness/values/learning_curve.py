"""Learning curves of trained attacks, and the tests that tell a plateau from an attacker cut short."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import NotRequired, TypedDict

from leakgauge.harness.system.json_data import Json
from leakgauge.harness.system.standing import tell_heldout


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation on the attacker's own held-out images: optimiser steps so far, training loss, PSNR in dB."""

    step: int
    loss: float
    heldout_psnr_db: float


class PointData(TypedDict):
    """A curve point as JSON states it."""

    step: int
    loss: float
    heldout_psnr_db: float


class CurveData(TypedDict):
    """A learning curve as JSON states it; older runs lack what their version did not measure."""

    planned_steps: int
    points: list[PointData]
    doubling_gain_db: NotRequired[float | None]
    half_budget: NotRequired[PointData | None]
    quarter_budget: NotRequired[PointData | None]


@dataclass
class LearningCurve:
    """How an attack learned.

    Args:
        planned_steps: Optimiser steps that the attack meant to take.
        points: Evaluations in the order of their steps.
        doubling_gain_db: What the last doubling of the steps gained: held-out PSNR of this training minus that of a
            training of half the steps, learning rate decayed to zero in both. None where that was not measured.
        half_budget: The end of the training of half the steps; None where there was none.
        quarter_budget: The end of the training of a quarter of the steps; None where there was none.
    """

    planned_steps: int
    points: list[CurvePoint] = field(default_factory=list)
    doubling_gain_db: float | None = None
    half_budget: CurvePoint | None = None
    quarter_budget: CurvePoint | None = None

    def add(self, step: int, loss: float, heldout_psnr_db: float) -> None:
        """Appends one evaluation, and tells whoever watches the run."""
        self.points.append(CurvePoint(step, loss, heldout_psnr_db))
        tell_heldout(step, self.planned_steps, heldout_psnr_db)

    def compare(self, half_budget: CurvePoint, quarter_budget: CurvePoint | None = None) -> None:
        """Records the ends of trainings of half and a quarter of the steps, and what the last doubling gained."""
        self.half_budget, self.quarter_budget = half_budget, quarter_budget
        self.doubling_gain_db = self.points[-1].heldout_psnr_db - half_budget.heldout_psnr_db

    @property
    def earlier_gain_db(self) -> float | None:
        """What the doubling before the last gained; None where that was not measured."""
        if self.half_budget is None or self.quarter_budget is None:
            return None
        return self.half_budget.heldout_psnr_db - self.quarter_budget.heldout_psnr_db

    def late_gain_db(self, share: float = 0.2) -> float:
        """Returns the held-out PSNR gained over the last ``share`` of the steps, in dB (NaN with under 2 points)."""
        if len(self.points) < 2:
            return float("nan")
        last = self.points[-1]
        start = last.step * (1.0 - share)
        before = [p for p in self.points[:-1] if p.step <= start] or self.points[:1]
        return last.heldout_psnr_db - before[-1].heldout_psnr_db

    def as_dict(self) -> dict[str, Json]:
        """Returns the curve as plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: CurveData) -> LearningCurve:
        """Reads what ``as_dict`` wrote."""
        points = [CurvePoint(**point) for point in data["points"]]
        half, quarter = (
            None if point is None else CurvePoint(**point)
            for point in (data.get("half_budget"), data.get("quarter_budget"))
        )
        return cls(int(data["planned_steps"]), points, data.get("doubling_gain_db"), half, quarter)


PLATEAU_DB = 0.2
DOUBLING_DB = 0.3
"""Most that each of the last two doublings of the steps may have gained.

Gains shrink from doubling to doubling: where each is at most two thirds of the one before it, as in error curves that
fall with the square root of the steps or faster, all doublings yet to come promise at most twice what the last one
gained. 0.3 dB therefore leaves at most 0.6 dB in doubt: no more than the half width of the bootstrap interval of
leakage over a few hundred images (0.7 dB in the shipped demo), so that the training is not what limits the answer.
That gains shrink is a premise, and it fails before an attacker has found out where tokens belong: one doubling then
gains 0.3 dB and the next 1.5. Hence two small doublings in a row, and a least number of steps that plug-ins state.
"""
MIN_STEPS = 100
LEAST_RATIO, MOST_RATIO = 0.5, 0.75
"""Between which a doubling is taken to gain of what the one before it gained, where that is extrapolated.

Where every doubling gains r times the one before it, all that are yet to come gain g (r + r^2 + ...) = g r / (1 - r)
after one that gained g. r is measured, last gain over the one before, and held within these bounds, as two noisy gains
say little of it: no training is believed to bring less than its last doubling did (r = 1/2, about what error curves
that fall with the steps gain), nor can more be promised than three times that (r = 3/4, a little slower than error
curves that fall with the square root of the steps, r = 0.71). Where r is not known, the larger holds.
"""
UNKNOWN_GAIN_DB = 3.0
"""What an attacker is taken to be able to gain where nothing tells, in dB: half of its squared error. Assumed."""


def plateau_failure(curve: LearningCurve, least_steps: int = MIN_STEPS) -> str | None:
    """Says why a curve does not show a converged attacker, or returns None where it does.

    The attacker must have taken all its planned steps, at least ``least_steps``, and must have gained less than
    ``PLATEAU_DB`` of held-out PSNR over the last fifth of them. Necessary, not sufficient: a learning rate that falls
    to zero flattens every curve.

    Args:
        curve: The curve.
        least_steps: What the plug-in states; never below ``MIN_STEPS``.
    """
    least = max(MIN_STEPS, least_steps)
    if len(curve.points) < 5:
        return f"only {len(curve.points)} points on the learning curve"
    if curve.points[-1].step < curve.planned_steps:
        return f"stopped at step {curve.points[-1].step} of {curve.planned_steps}"
    if curve.planned_steps < least:
        return f"only {curve.planned_steps} optimiser steps: a plateau over fewer than {least} says nothing"
    gain = curve.late_gain_db()
    if not gain < PLATEAU_DB:
        return f"still gaining: {gain:+.2f} dB over the last fifth of the training"
    return None


def remaining_gain_db(last_db: float, earlier_db: float | None = None) -> float:
    """Returns what all doublings yet to come may gain, in dB: one to three times the last one; see ``LEAST_RATIO``.

    Args:
        last_db: What the last doubling, of steps or of images, gained; nothing remains where it lost.
        earlier_db: What the doubling before it gained; None where that was not measured.
    """
    shrinks = last_db / earlier_db if earlier_db is not None and earlier_db > 0 else MOST_RATIO
    ratio = min(max(shrinks, LEAST_RATIO), MOST_RATIO)
    return max(last_db, 0.0) * ratio / (1.0 - ratio)


def could_gain_db(curve: LearningCurve, least_steps: int = MIN_STEPS) -> float | None:
    """Returns what more training may gain, in dB, or None where that is not known.

    ``remaining_gain_db`` of its last doublings, and no less than what it gained over its last fifth where that is no
    plateau. That gains shrink is a premise, which fails in a training of fewer steps than the plug-in states, and
    cannot be used where the training was stopped or its doublings were not measured: what is found then is told only
    where it is more than ``UNKNOWN_GAIN_DB`` already.

    Args:
        curve: The curve.
        least_steps: What the plug-in states; never below ``MIN_STEPS``.
    """
    last, late = curve.doubling_gain_db, curve.late_gain_db()
    measured = last is not None and math.isfinite(last)
    found = remaining_gain_db(last, curve.earlier_gain_db) if last is not None and measured else 0.0
    found = max(found, late) if late >= PLATEAU_DB else found
    ended = bool(curve.points) and curve.points[-1].step >= curve.planned_steps >= max(MIN_STEPS, least_steps)
    return found if (measured and ended) or found > UNKNOWN_GAIN_DB else None


def convergence_failure(curve: LearningCurve, least_steps: int = MIN_STEPS) -> str | None:
    """Says why a curve does not prove convergence, or returns None where it does.

    The plateau test, and the step-doubling check: only an attacker that gained less than ``DOUBLING_DB`` from each of
    its last two doublings of the steps has converged. Without that check its leakage is a lower bound, and no proof of
    privacy.
    """
    failure = plateau_failure(curve, least_steps)
    if failure:
        return failure
    if curve.doubling_gain_db is None:
        return "the step-doubling check was not run, so this leakage is a lower bound"
    if not curve.doubling_gain_db < DOUBLING_DB:
        return f"twice the steps gain {curve.doubling_gain_db:+.2f} dB"
    if curve.earlier_gain_db is None:
        return "only one doubling of the steps was checked: a small gain before a large one looks like a plateau"
    if not curve.earlier_gain_db < DOUBLING_DB:
        return f"from a quarter to half of the steps it gained {curve.earlier_gain_db:+.2f} dB"
    return None
