"""The policy: picks an operating point of a front at run time, by channel and budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.metrics import HIGHER_IS_BETTER
from leakgauge.harness.search.results.front import Front, FrontPoint


@dataclass(frozen=True)
class PolicyLimits:
    """What an operating point must keep.

    Args:
        snr_db: Es/N0 of the channel now, in dB; None where the front was measured on one channel without noise.
        most: Largest value of each metric named (``leakgauge.harness.search.metrics``), in its unit.
        min_quality: Least quality, in [0, 1].
    """

    snr_db: float | None = None
    most: Mapping[str, float] = field(default_factory=dict)
    min_quality: float | None = None


def choose(front: Front, limits: PolicyLimits) -> FrontPoint:
    """Returns the point of best quality within the limits; of equal ones that of fewest bytes, then the first.

    Of several channels that with the nearest SNR not above the asked one counts: what held on a worse channel is
    expected to hold on a better one.

    Raises:
        ConfigError: No point qualifies; names the nearest and the limit that it breaks. Or the front does not hold
            what a limit is about.
    """
    _check(limits)
    points = _on_channel(front, limits.snr_db)
    for name in (*limits.most, *(["quality"] if limits.min_quality is not None else [])):
        if any(name not in point.metrics for point in points):
            raise ConfigError(
                f"the front does not say what {name} its points have", where=front.space, hint=f"search with {name}"
            )
    fitting = [point for point in points if not _excess(point, limits)]
    if not fitting:
        nearest = min(points, key=lambda point: max(_excess(point, limits).values()))
        broken = _excess(nearest, limits)
        name = max(broken, key=lambda key: broken[key])
        limit = limits.min_quality if name in HIGHER_IS_BETTER else limits.most[name]
        value = nearest.metrics.get(name, math.nan)
        has = f"has no known {name}" if math.isnan(value) else f"has {name} {value:.6g}, not {limit:g}"
        raise ConfigError(
            f"no point qualifies; the nearest, {nearest.name}, {has}",
            where=front.space,
            hint="relax that limit, or search again with it as a constraint",
        )
    return min(fitting, key=lambda point: (-point.metrics["quality"], _bytes(point)))


def _bytes(point: FrontPoint) -> float:
    """Returns the payload of a point; one that is not known comes last."""
    size = point.metrics.get("payload_bytes", math.nan)
    return math.inf if math.isnan(size) else size


def _check(limits: PolicyLimits) -> None:
    """Refuses limits that no number can keep or break."""
    stated = {"snr_db": limits.snr_db, "quality": limits.min_quality, **limits.most}
    for name, limit in stated.items():
        if limit is not None and math.isnan(limit):
            raise ConfigError(f"the limit on {name} is no number", where="choose", hint="give a number")


def _on_channel(front: Front, snr_db: float | None) -> Sequence[FrontPoint]:
    """Returns the points that hold at an SNR.

    Raises:
        ConfigError: The front is empty, or was not measured at any SNR as low, or at several and none was asked for.
    """
    if not front.points:
        raise ConfigError("the front is empty", where=front.space, hint="search again")
    measured = sorted({point.snr_db for point in front.points if point.snr_db is not None})
    if snr_db is None:
        channels = dict.fromkeys(str(point.channel) for point in front.points)
        if len(channels) > 1:
            raise ConfigError(
                f"the front holds {len(channels)} channels: {', '.join(channels)}",
                where=front.space,
                hint="give --snr-db",
            )
        return front.points
    below = [value for value in measured if value <= snr_db]
    if not below:
        what = f"at {measured[0]:g} dB and above" if measured else "on channels without noise"
        raise ConfigError(
            f"the front was measured {what}, not at {snr_db:g} dB",
            where=front.space,
            hint="search with --set 'channel={name: awgn, snr_db: ...}' at that SNR or below",
        )
    return [point for point in front.points if point.snr_db == below[-1]]


def _excess(point: FrontPoint, limits: PolicyLimits) -> dict[str, float]:
    """Returns by which share of itself each broken limit is exceeded.

    What was not measured (NaN) keeps no limit, and a point of unknown quality is never the best: infinite.
    """
    found = {}
    for name, limit in limits.most.items():
        if not point.metrics[name] <= limit:
            found[name] = _share(point.metrics[name] - limit, limit)
    quality = point.metrics.get("quality", math.nan)
    least = -math.inf if limits.min_quality is None else limits.min_quality
    if not quality >= least:
        found["quality"] = _share(least - quality, least)
    return found


def _share(excess: float, limit: float) -> float:
    share = excess / max(abs(limit), 1e-12)
    return math.inf if math.isnan(share) else share
