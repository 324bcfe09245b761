"""What a gate finds: a check for each limit, and how they end together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from leakgauge.harness.system.exit_codes import ExitCode
from leakgauge.reports.analysis.measures import Kind, Measure

Outcome = Literal["pass", "exceeds", "cannot tell"]
EXIT_CODES: dict[Outcome, ExitCode] = {
    "pass": ExitCode.DONE,
    "exceeds": ExitCode.WORSE,
    "cannot tell": ExitCode.CANNOT_TELL,
}
_EXCEEDS: dict[Kind, str] = {"leakage": "leaks more", "quality": "worse quality", "cost": "costs more"}


@dataclass(frozen=True)
class Check:
    """One limit on one measure of one operating point.

    Args:
        place: Operating point, channel, threat model.
        measure: What is limited; None where the whole operating point cannot be judged.
        rule: The limit in words.
        outcome: pass, exceeds or cannot tell.
        why: Why it cannot be told; empty otherwise.
        base: Mean of the baseline; NaN where there is none.
        new: Mean of the run; NaN where unscored.
        change: New minus base where there is a base, else the mean itself.
        lo: Lower end of the 95 % interval of ``change``.
        hi: Upper end.
        p: One-sided p-value that the limit is exceeded; NaN where the limit concerns means alone.
        rests_on: ``lower bound`` or ``inconclusive`` where leakage passes that is only bounded from below; else empty.
        n: Images that the change and its interval rest on; 0 where there are none.
        images_needed: About how many evaluation images would tell; None where it is told, or more images would not.
    """

    place: str
    measure: Measure | None
    rule: str
    outcome: Outcome
    why: str = ""
    base: float = math.nan
    new: float = math.nan
    change: float = math.nan
    lo: float = math.nan
    hi: float = math.nan
    p: float = math.nan
    rests_on: str = ""
    n: int = 0
    images_needed: int | None = None

    @property
    def said(self) -> str:
        """The outcome in the words of what is limited."""
        if self.outcome == "pass" and self.rests_on:
            return f"pass ({self.rests_on})"
        return _EXCEEDS[self.measure.kind] if self.outcome == "exceeds" and self.measure else self.outcome


@dataclass(frozen=True)
class Gate:
    """All checks of a run, and what should be known beside them."""

    run: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst: ``exceeds`` before ``cannot tell`` before ``pass``; without any check it cannot tell."""
        found = {check.outcome for check in self.checks}
        if "exceeds" in found:
            return "exceeds"
        return "pass" if found == {"pass"} else "cannot tell"

    @property
    def by_lower_bounds(self) -> int:
        """How many checks passed by a bound from below alone, which proves no privacy."""
        return sum(bool(check.rests_on) for check in self.checks if check.outcome == "pass")

    @property
    def exit_code(self) -> int:
        """0 pass, 1 exceeds, 3 cannot tell."""
        return EXIT_CODES[self.outcome]
