"""The verdict on an operating point: that of its strongest attack, unless another could still overtake it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from leakgauge.harness.run.best_known import Contender, contenders
from leakgauge.harness.suite.exposure_content import PointPlace
from leakgauge.reports.analysis.run import LoadedRun, Row
from leakgauge.reports.analysis.verdicts.best_known import reference_of

Verdict = Literal["conclusive", "lower bound", "inconclusive"]
NOT_ATTACKED = "not attacked: nothing but floors was run here, so that nothing is known of what leaks"
WHOLE_DB = 40.0
"""PSNR from which an image is given away whole, in dB: a mean squared error of 1e-4 of the range.

That is about what a JPEG of quality 95 keeps: of six of scikit-image's images 39.8 dB on average, 35 to 45. Nobody
tells it from the original, so that more says nothing more about privacy.
"""
GIVEN_WHOLE = "given away whole"
_BY_RANK = ("reid_top1", "judge_reid_top1")
"""Measures that identity probes have a part in."""


class Ruling(NamedTuple):
    """A verdict, and why it is no better; why one is conclusive whose attackers do not show it themselves."""

    verdict: Verdict
    reason: str = ""


def bounds_only(verdict: object, reason: object) -> bool:
    """Tells whether leakage is only bounded from below, as it is too where images are given away whole."""
    return verdict != "conclusive" or str(reason).startswith(GIVEN_WHOLE)


def verdict_of(run: LoadedRun, cells: Collection[Row]) -> Ruling:
    """Returns the verdict on what was rebuilt behind an operating point, over one channel under one threat model.

    It is that of the strongest attack, the one whose mean PSNR over images and seeds is the highest: a weak attacker
    beside it changes nothing, unless it is not shown to be converged and could still overtake. Where the best known of
    the exposure is near, it vouches for an attacker whose own curve still rises; where it is not near, the point is
    inconclusive, whatever its attackers say of themselves. It is inconclusive too where a cell failed or is missing,
    for that one might have leaked more, and where nothing but floors was run, which attack nothing.

    None of this counts against an attack whose PSNR has the lower end of its interval over images at ``WHOLE_DB`` or
    above: a lower bound that already is total needs no stronger attacker. The point is conclusive.

    Args:
        run: The run.
        cells: Rows of its cells.csv of one operating point, channel and threat model.
    """
    floors = [str(cell["attack"]) for cell in cells if run.is_floor(str(cell["attack"]))]
    found = contenders([cell for cell in cells if not run.is_probe(str(cell["attack"]))], floors)
    ruling = _ruled(run, cells, floors, found)
    if ruling.verdict != "conclusive" and found and found[0].mean("psnr_db_lo") >= WHOLE_DB:
        return Ruling("conclusive", _whole(found[0]))
    return ruling


def _whole(strongest: Contender) -> str:
    return f"{GIVEN_WHOLE}: {strongest.attack} reaches {strongest.psnr_db:.1f} dB, and more would change nothing"


def _ruled(run: LoadedRun, cells: Collection[Row], floors: Sequence[str], found: Sequence[Contender]) -> Ruling:
    """Returns the verdict, however much is given away."""
    told = found or any(run.is_floor(str(cell["attack"])) for cell in cells)
    said = doubts([cell for cell in cells if not told or _lost(cell) or _unranked(run, cell)])
    own = _by_itself(found) if found else Ruling("conclusive")
    if said:
        return Ruling("inconclusive", "; ".join([said, *([own.reason] if own.verdict == "inconclusive" else [])]))
    if not found:
        return Ruling("inconclusive", NOT_ATTACKED) if floors else Ruling("conclusive")
    reference = reference_of(run, _place(cells), found[0])
    if reference is None:
        return own
    if not reference.near:
        return Ruling("inconclusive", "; ".join(filter(None, (reference.far, own.reason))))
    if own.verdict == "inconclusive" and reference.vouches:
        bound = _bound(found[0])
        return bound if bound.verdict == "lower bound" else Ruling("conclusive", reference.vouched)
    return own


def doubted_attacks(run: LoadedRun, cells: Collection[Row]) -> tuple[str, ...]:
    """Names the attacks that rebuild and are not shown to be converged, whether or not they decide the verdict."""
    floors = [label for label in run.attacks if run.is_floor(label)]
    return tuple(one.attack for one in contenders(cells, floors) if one.doubted)


def _place(cells: Collection[Row]) -> PointPlace:
    first: Mapping[str, object] = next(iter(cells))
    return str(first.get("operating_point")), str(first.get("channel")), str(first.get("threat_model"))


def _lost(cell: Row) -> bool:
    return bool(cell["status"] != "done")


def _unranked(run: LoadedRun, cell: Row) -> bool:
    """Tells whether an attack's pictures went unscored, so that nobody knows how strong it is."""
    return bool(not run.is_probe(str(cell["attack"])) and math.isnan(float(cell["psnr_db"])))


def _by_itself(found: Sequence[Contender]) -> Ruling:
    """Returns the verdict of the first and strongest of attacks, as they stand among themselves."""
    strongest, *others = found
    if strongest.doubted:
        return Ruling("inconclusive", f"{strongest.attack}: {strongest.reasons}")
    for other in others:
        ahead = strongest.psnr_db - other.psnr_db
        if other.doubted and other.gain_db > ahead:
            return Ruling("inconclusive", _overtaking(other, strongest, ahead))
    return _bound(strongest)


def _bound(strongest: Contender) -> Ruling:
    """Returns whether the strongest attack is a lower bound, if nothing else is held against it."""
    for cell in strongest.cells:
        if cell["verdict"] == "lower bound":
            return Ruling("lower bound", f"{strongest.attack}, the strongest here: {cell['reason']}")
    return Ruling("conclusive")


def _overtaking(other: Contender, strongest: Contender, ahead: float) -> str:
    gain = f"{other.gain_db:.1f} dB" if other.gain_known else f"an unknown amount, taken as {other.gain_db:.1f} dB"
    return (
        f"{other.attack} at {other.psnr_db:.1f} dB could still gain {gain}, more than the {ahead:.1f} dB that "
        f"{strongest.attack} is ahead: {other.reasons}"
    )


def doubts(cells: Collection[Row]) -> str:
    """Says which cells are inconclusive, failed or missing, and why; empty where none is."""
    found: dict[str, None] = {}
    for cell in cells:
        if cell["status"] != "done":
            found[f"{cell['attack']}: {cell['status']}: {cell['reason'] or 'no reason given'}"] = None
        elif cell["verdict"] not in ("conclusive", "lower bound"):
            found[f"{cell['attack']}: {cell['reason'] or 'no reason given'}"] = None
    return "; ".join(found)


def rulings_of_measures(run: LoadedRun, cells: Collection[Row], whole: Ruling, prefix: str) -> dict[str, Ruling]:
    """Returns the verdicts that measures rest on which probes have a part in, by the name of the measure.

    How often an attribute probe is right rests on that probe alone. Re-identification is that of whoever is best at it:
    it rests on the verdict on what was rebuilt, and on every identity probe.

    Args:
        run: The run.
        cells: Rows of its cells.csv of one operating point, channel and threat model.
        whole: The verdict on what was rebuilt.
        prefix: What names of the measures of attribute probes begin with.
    """
    probes: dict[str, list[Row]] = {}
    for cell in cells:
        if run.is_probe(str(cell["attack"])):
            probes.setdefault(str(cell["attack"]), []).append(cell)
    own = {label: _of_probe(asked) for label, asked in probes.items()}
    found = {f"{prefix}{label}": ruling for label, ruling in own.items()}
    ranking = [ruling for label, ruling in own.items() if run.attacks[label].get("kind") == "identity"]
    order: tuple[Verdict, ...] = ("inconclusive", "lower bound", "conclusive")
    worst = min([whole, *ranking], key=lambda ruling: order.index(ruling.verdict))
    return found | dict.fromkeys(_BY_RANK, worst)


def _of_probe(cells: Sequence[Row]) -> Ruling:
    """Returns the verdict of a probe, the worst over its seeds."""
    if said := doubts(cells):
        return Ruling("inconclusive", said)
    for cell in cells:
        if cell["verdict"] == "lower bound":
            return Ruling("lower bound", f"{cell['attack']}: {cell['reason']}")
    return Ruling("conclusive")
