"""How many evaluation images would tell what a gate cannot: from the interval that it has, before any is measured."""

from __future__ import annotations

import math
from statistics import NormalDist

MOST = 1_000_000
"""Beyond so many images the change lies on the limit for all that can be measured."""


def images_that_tell(n: int, change: float, lo: float, hi: float, limit: float) -> int | None:
    """Returns about how many images would put the whole interval on one side of the limit, if the change stays.

    The interval of a mean over independent images, or over clusters of like size, narrows with the square root of
    their number. Of its two ends the one towards the limit counts: ``h`` away from the change, which lies ``d`` from
    the limit. With ``n'`` images it lies ``h sqrt(n / n')`` away, which is at most ``d`` from

        n' = n (h / d)^2.

    The change is itself an estimate: with ``n'`` images it falls on either side of the end about equally often, so that
    about every second such run tells, and with ``2 n'`` about four in five (at 95 %: the end lies 1.96 standard errors
    away with ``n'`` images, and 2.77 with ``2 n'``, of which a change falls short by 0.81 or less in 79 % of runs).

    Args:
        n: Images that the interval rests on.
        change: The mean.
        lo: Lower end of its interval.
        hi: Upper end.
        limit: What it is judged by, in the same unit.

    Returns:
        The number, rounded up to two digits and above ``n``; None where no number below ``MOST`` would do, or nothing
        is known.
    """
    distance = abs(limit - change)
    half = hi - change if change <= limit else change - lo
    if not (math.isfinite(half) and half >= 0) or not distance > 0:
        return None
    return _rounded_up(n * (half / distance) ** 2, n)


def images_that_stand_out(n: int, p: float, adjusted: float, significance: float) -> int | None:
    """Returns about how many images would bring an adjusted p-value below a level, if the change stays.

    The adjustment multiplies by ``m = adjusted / p``, so that the p-value itself must fall to ``significance / m``. The
    standard normal quantiles of both, ``z`` and ``z'``, grow with the square root of the number of images: n' = n (z' /
    z)^2.

    Args:
        n: Images that the p-value rests on.
        p: The p-value, one-sided, below one half.
        adjusted: The same, adjusted for the number of checks.
        significance: The level.

    Returns:
        The number, as by ``images_that_tell``.
    """
    if not 0 < p < 0.5 or not adjusted >= p:
        return None
    normal = NormalDist()
    now, wanted = normal.inv_cdf(1 - p), normal.inv_cdf(1 - significance * p / adjusted)
    return _rounded_up(n * (wanted / now) ** 2, n)


def advice(needed: int | None) -> str:
    """Says how many evaluation images would tell."""
    if needed is None:
        return "it lies on the limit, where hardly any number of images would tell"
    return f"about {needed:,} evaluation images would tell, if it stays as it is"


def _rounded_up(count: float, n: int) -> int | None:
    if not math.isfinite(count) or count > MOST:
        return None
    least = max(math.ceil(count - 1e-9), n + 1)
    step = int(10 ** max(0, len(str(least)) - 2))
    return -(-least // step) * step
