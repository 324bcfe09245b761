"""The first screen: what every operating point gives away, what it costs, and whether the figure can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from leakgauge.reports.analysis.run import LoadedRun, Row
from leakgauge.reports.analysis.verdicts.point_verdict import NOT_ATTACKED
from leakgauge.reports.notation import UNSCORED, bounds, is_number, number
from leakgauge.reports.tables.table import Tone
from leakgauge.reports.writers.gallery import Gallery, Picture, Strip, gallery

PICTURES = 5
TONES: dict[str, Tone] = {"conclusive": "good", "lower bound": "warn", "inconclusive": "warn", "not attacked": "muted"}
_OPEN = {
    "lower bound": "the strongest attack cannot find out what is hidden from it",
    "inconclusive": "an attacker with more time or data, or a stronger one, may rebuild more",
    "not attacked": "nothing but blind guesses was run there",
}


@dataclass(frozen=True)
class LeakageBar:
    """Leakage as a bar: where it ends and its interval, in per cent of the widest bar of the run."""

    end: float
    lo: float
    hi: float


@dataclass(frozen=True)
class PointLine:
    """An operating point: pictures, costs against the baseline's, leakage in dB above the best floor, verdict."""

    name: str
    anchor: str
    pictures: tuple[Picture, ...]
    quality: str
    quality_change: str
    payload_share: str
    flops_share: str
    leakage: str
    interval: str
    bar: LeakageBar | None
    verdict: str
    tone: Tone
    reason: str


@dataclass(frozen=True)
class ScreenPart:
    """What holds over one channel, against one threat model; ``floor`` shows guesses that look at no payload."""

    place: str
    channel: str
    threat_model: str
    floor: Strip | None
    lines: tuple[PointLine, ...]


@dataclass(frozen=True)
class FirstScreen:
    """What is to be seen of a run before anything is scrolled.

    Args:
        shown: What can be concluded, a sentence.
        open: What cannot, a sentence.
        quality_name: What quality is.
        originals: The images under attack.
        parts: The operating points, by channel and threat model.
    """

    shown: str
    open: str
    quality_name: str
    originals: tuple[Picture, ...]
    parts: tuple[ScreenPart, ...]


def _value(row: Row, name: str, digits: int, unit: str = "", *, signed: bool = False, scale: float = 1.0) -> str:
    value = row.get(name)
    return f"{number(value, digits, signed=signed, scale=scale)}{unit}" if is_number(value) else UNSCORED


def _share(row: Row, base: Row | None, name: str) -> str:
    """Writes a cost as a share of the baseline's, which does not depend on the channel: any baseline will do."""
    value, whole = row.get(name), None if base is None else base.get(name)
    if not (is_number(value) and is_number(whole)) or float(whole or 0) == 0:
        return UNSCORED
    return f"{number(float(value or 0) / float(whole or 1), 0, scale=100)} %"


def shown_verdict(row: Row) -> tuple[str, Tone]:
    """Returns the verdict of an operating point as it is shown, and how it is marked."""
    verdict = "not attacked" if row["reason"] == NOT_ATTACKED else str(row["verdict"])
    return verdict, TONES.get(verdict, "bad")


def leakage_bar(row: Row, widest: float) -> LeakageBar | None:
    """Returns leakage as a bar, ``widest`` dB long at most; None where it is unscored."""
    if not is_number(row.get("strongest_leakage")) or widest <= 0:
        return None
    mean = float(row["strongest_leakage"])
    lo, hi = (float(row[f"strongest_leakage_{end}"]) for end in ("lo", "hi"))
    ends = [mean, *((lo, hi) if is_number(lo) and is_number(hi) else (mean, mean))]
    return LeakageBar(*(round(100.0 * min(max(end, 0.0), widest) / widest, 2) for end in ends))


def _line(row: Row, base: Row | None, pictures: tuple[Picture, ...], widest: float, anchor: str) -> PointLine:
    lo, hi = row.get("strongest_leakage_lo"), row.get("strongest_leakage_hi")
    return PointLine(
        name=str(row["operating_point"]),
        anchor=anchor,
        pictures=() if row["verdict"] == "not attacked" else pictures,
        quality=_value(row, "quality", 1, " %", scale=100),
        quality_change=_value(row, "quality_change", 1, " points", signed=True, scale=100).replace(UNSCORED, ""),
        payload_share=_share(row, base, "payload_bytes"),
        flops_share=_share(row, base, "gflops_total"),
        leakage=_value(row, "strongest_leakage", 1, " dB"),
        interval=bounds(lo, hi, 1) if is_number(lo) and is_number(hi) else "",
        bar=leakage_bar(row, widest),
        verdict=str(row["verdict"]),
        tone=TONES.get(str(row["verdict"]), "bad"),
        reason=str(row["reason"]),
    )


def _least(rows: Sequence[Row]) -> Row | None:
    scored = [row for row in rows if row["baseline"] == "no" and is_number(row.get("strongest_leakage"))]
    return min(scored, key=lambda row: float(row["strongest_leakage"]), default=None)


def _among(rows: Sequence[Row]) -> str:
    """Says of how many operating points with a defense that were attacked, where there is more than one."""
    attacked = sum(row["baseline"] == "no" and is_number(row.get("strongest_leakage")) for row in rows)
    return f"of {attacked} defended points that were attacked " if attacked > 1 else ""


def _ties(rows: Sequence[Row], least: Row) -> str:
    """Says how many points may leak as little, because their intervals overlap with its own."""
    most = least["strongest_leakage_hi"]
    lows = [row["strongest_leakage_lo"] for row in rows if row["baseline"] == "no" and row is not least]
    close = sum(is_number(low) and is_number(most) and float(low) <= float(most) for low in lows)
    return f" (intervals of {close} more overlap with its own)" if close else ""


def _shown(rows: Sequence[Row], quality_name: str) -> str:
    """Says what was measured without a defense, and where least leaks."""
    base, least = next((row for row in rows if row["baseline"] == "yes"), None), _least(rows)
    said = []
    if base is not None and is_number(base.get("strongest_leakage")):
        told = _value(base, "strongest_leakage", 1, " dB")
        said.append(f"without a defense the strongest attack rebuilds images {told} better than the best blind guess")
    if least is not None:
        told = f"{_among(rows)}{least['operating_point']} leaks least, {_value(least, 'strongest_leakage', 1, ' dB')}"
        cost = f"{_value(least, 'quality_change', 1, ' points', signed=True, scale=100)} of {quality_name}"
        saved = f"{_share(least, base, 'payload_bytes')} of the bytes"
        saved += f" and {_share(least, base, 'gflops_total')} of the FLOPs"
        known = UNSCORED not in cost + saved
        said.append(told + _ties(rows, least) + (f", at {cost}, with {saved}" if known else ""))
    text = "; ".join(said) or "no attack was scored against any operating point"
    return f"{text[0].upper()}{text[1:]}."


def _unshown(rows: Sequence[Row]) -> str:
    """Says what cannot be concluded, and why."""
    verdicts = [str(row["verdict"]) for row in rows]
    if not verdicts:
        return "Nothing can be concluded: no cell is done."
    counts = {name: verdicts.count(name) for name in _OPEN if name in verdicts}
    doubts = [f"{_of(count, len(verdicts))} {name}: {_OPEN[name]}" for name, count in counts.items()]
    if not doubts:
        return (
            "The strongest attacker everywhere is shown to be as strong as its method allows or as the best known, or "
            "images are given away whole; "
            "what a stronger method would rebuild is not known."
        )
    said = f"{'; '.join(doubts)}. Such figures bound leakage from below only, and show no defense to be safe."
    return f"{said[0].upper()}{said[1:]}"


def _of(count: int, total: int) -> str:
    if count == total:
        return "the only figure is" if total == 1 else f"all {total} figures are"
    return f"{count} of {total} figures {'is' if count == 1 else 'are'}"


def _pictures_of(found: Gallery | None, name: str, place: str) -> tuple[Picture, ...]:
    strips = () if found is None else found.strips
    return next((strip.pictures for strip in strips if (strip.name, strip.detail) == (name, place)), ())


def _to_show(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows, less those that nothing but probes answered for; where only floors were run the word is put."""
    named = [{**row, "verdict": "not attacked"} if row["reason"] == NOT_ATTACKED else row for row in rows]
    return [row for row in named if row.get("strongest_attack") or row["verdict"] != "conclusive"] or named


def first_screen(run: LoadedRun, rows: list[Row], key: str) -> FirstScreen:
    """Returns the first screen of a run.

    Args:
        run: The run.
        rows: Its operating points, as ``leakgauge.reports.analysis.operating_points.point_rows`` gives them.
        key: Begins the anchors of the points.
    """
    found = gallery(run, PICTURES)
    several = len(run.suite.threat_models) > 1
    rebuilt = _to_show(rows)
    ends = [row.get(f"strongest_leakage{end}") for row in rebuilt for end in ("", "_hi")]
    widest = max((float(end) for end in ends if is_number(end) and end is not None), default=0.0)
    parts = list[ScreenPart]()
    for setting, group in groupby(rebuilt, key=lambda row: (row["channel"], row["threat_model"])):
        own = list(group)
        base = next((row for row in (*own, *rows) if row["baseline"] == "yes"), None)
        place = f"channel {setting[0]}" + (f", threat model {setting[1]}" if several else "")
        floor = None if found is None else next((s for s in found.strips[1:] if s.detail == place), None)
        lines = tuple(
            _line(row, base, _pictures_of(found, str(row["operating_point"]), place), widest, f"{key}-point{number_}")
            for number_, row in enumerate(own, start=1 + sum([len(part.lines) for part in parts]))
        )
        guess = floor if floor is not None and floor.name == "Best floor" else None
        parts.append(ScreenPart(place, str(setting[0]), str(setting[1]), guess, lines))
    quality_name = str(run.task.get("quality_name", "quality"))
    first = [row for row in rebuilt if (row["channel"], row["threat_model"]) == _setting(rebuilt)]
    return FirstScreen(
        shown=_shown(first, quality_name),
        open=_unshown(rebuilt),
        quality_name=quality_name,
        originals=() if found is None else found.strips[0].pictures,
        parts=tuple(parts),
    )


def _setting(rows: Sequence[Row]) -> tuple[str, str]:
    return (str(rows[0]["channel"]), str(rows[0]["threat_model"])) if rows else ("", "")
