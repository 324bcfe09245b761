"""The interactive frontier: leakage against quality, bytes, FLOPs or tokens, as Vega-Lite and its data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.analysis.strongest import Estimate, candidates, estimate, image_rows
from leakgauge.reports.analysis.verdicts.point_verdict import NOT_ATTACKED
from leakgauge.reports.figures.palette import Marker, marks
from leakgauge.reports.notation import is_number
from leakgauge.reports.tables.table import Value, figure, ranged
from leakgauge.reports.writers.first_screen import FirstScreen, PointLine, ScreenPart

STRONGEST = "strongest on average"


class Cost(NamedTuple):
    """What leakage is drawn against: column, words for the switch, title of the axis, factor, decimals, better end."""

    name: str
    words: str
    title: str
    scale: float
    digits: int
    better: str


def costs(quality_name: str) -> tuple[Cost, ...]:
    """Returns what leakage can be drawn against."""
    return (
        Cost("quality", quality_name, f"{quality_name} (%)", 100.0, 1, "higher"),
        Cost("payload_bytes", "bytes", "payload (byte/image)", 1.0, 0, "lower"),
        Cost("gflops_total", "FLOPs", "edge and server (GFLOP/image)", 1.0, 3, "lower"),
        Cost("tokens", "tokens", "tokens sent (per image)", 1.0, 1, "lower"),
    )


def _star() -> str:
    tips = [(1.25 if i % 2 == 0 else 0.52, math.pi * (i / 5 - 0.5)) for i in range(10)]
    return "M" + "L".join(f"{r * math.cos(a):.3f},{r * math.sin(a):.3f}" for r, a in tips) + "Z"


SHAPES = {
    "*": _star(),
    "o": "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
    "s": "M-0.9,-0.9L0.9,-0.9L0.9,0.9L-0.9,0.9Z",
    "^": "M0,-1.1L1.05,0.8L-1.05,0.8Z",
    "D": "M0,-1.15L1.15,0L0,1.15L-1.15,0Z",
    "v": "M0,1.1L1.05,-0.8L-1.05,-0.8Z",
    "P": "M-0.4,-1.1H0.4V-0.4H1.1V0.4H0.4V1.1H-0.4V0.4H-1.1V-0.4H-0.4Z",
    "X": "M-1,-0.5L-0.5,-1L0,-0.5L0.5,-1L1,-0.5L0.5,0L1,0.5L0.5,1L0,0.5L-0.5,1L-1,0.5L-0.5,0Z",
}
"""Markers of ``leakgauge.reports.figures.palette`` as SVG paths within about one unit of the middle."""


def _numbers(*values: Any, scale: float = 1.0) -> list[float | None]:
    return [float(value) * scale if is_number(value) else None for value in values]


def _place(row: Row, cost: Cost) -> list[float | None]:
    """Returns a cost with the ends of its interval, None where there is none."""
    return _numbers(row.get(cost.name), row.get(f"{cost.name}_lo"), row.get(f"{cost.name}_hi"), scale=cost.scale)


def _leak(ends: Estimate, verdict: str, reason: str) -> dict[str, Any]:
    return {"at": _numbers(*ends), "verdict": verdict, "reason": reason}


def _by_attack(run: LoadedRun, row: Row) -> dict[str, dict[str, Any]]:
    """Returns what each attack reaches alone; floors and probes attack nothing here."""
    point, setting = str(row["operating_point"]), Setting(row["channel"], row["threat_model"])
    found: dict[str, dict[str, Any]] = {}
    for attack in candidates(run, point, setting):
        cells = [cell for cell in run.cells_at(setting, point) if cell["attack"] == attack]
        if run.is_floor(attack) or all(cell["status"] != "done" for cell in cells):
            continue
        images = image_rows(run, point, setting, [attack])
        caveat = next((cell for cell in cells if cell["verdict"] != "conclusive"), cells[0])
        found[attack] = _leak(
            estimate(images["leakage"], images["group"], run.suite.seeds[0]),
            str(caveat["verdict"]),
            "" if caveat["verdict"] == "conclusive" else str(caveat["reason"]),
        )
    return found


def _facts(row: Row, line: PointLine, quality_name: str) -> list[list[str]]:
    """Returns what a reader compares two points by: name, value, smaller words."""
    shares = {"Bytes": line.payload_share, "FLOPs": line.flops_share}
    values: dict[str, Value] = {
        quality_name: ranged(row, "quality", 1, scale=100),
        "Bytes": figure(row["payload_bytes"], 0),
        "FLOPs": figure(row["gflops_total"], 3),
        "Tokens": figure(row["tokens"], 1),
        "SSIM": ranged(row, "strongest_ssim", 3),
        "LPIPS": ranged(row, "strongest_lpips", 3),
        "95th percentile": figure(row.get("leakage_p95"), 1),
    }
    units = {quality_name: " %", "Bytes": " byte", "FLOPs": " GFLOP", "95th percentile": " dB"}
    strongest = [["Strongest", str(row["strongest_attack"]), "on average"]] if row.get("strongest_attack") else []
    return strongest + [
        [name, value.text + (units.get(name, "") if value.sort else ""), shares.get(name) or value.detail]
        for name, value in values.items()
    ]


def _point(run: LoadedRun, row: Row, part: ScreenPart, line: PointLine, mark: Marker) -> dict[str, Any]:
    attacked = row["reason"] != NOT_ATTACKED
    ends = Estimate(*(row[f"strongest_leakage{end}"] for end in ("", "_lo", "_hi")))
    leaks = {"": _leak(ends, str(row["verdict"]), str(row["reason"])), **_by_attack(run, row)} if attacked else {}
    name = str(run.task.get("quality_name", "quality"))
    return {
        "anchor": line.anchor,
        "name": line.name,
        "channel": part.channel,
        "model": part.threat_model,
        "baseline": row["baseline"] == "yes",
        "colour": "" if row["baseline"] == "yes" else mark.colour,  # the baseline is drawn in the page's ink
        "shape": SHAPES[mark.marker],
        "costs": {cost.name: _place(row, cost) for cost in costs(name)},
        "leaks": leaks,
        "facts": _facts(row, line, name),
    }


def frontier_data(run: LoadedRun, rows: list[Row], screen: FirstScreen) -> dict[str, Any]:
    """Returns what the page's script draws: operating points with what they cost and leak, and the drawing itself.

    Args:
        run: The run.
        rows: Its operating points, as ``leakgauge.reports.analysis.operating_points.point_rows`` gives them.
        screen: Its first screen, whose rows hold the pictures of the points.
    """
    by_place = {(str(row["operating_point"]), row["channel"], row["threat_model"]): row for row in rows}
    looks = marks([point.name for point in run.suite.operating_points], run.suite.baseline_point)
    points = []
    for part in screen.parts:
        for line in part.lines:
            row = by_place[(line.name, part.channel, part.threat_model)]
            points.append(_point(run, row, part, line, looks[line.name]))
    return {
        "points": points,
        "costs": [cost._asdict() for cost in costs(screen.quality_name)],
        "attacks": _distinct(attack for point in points for attack in point["leaks"] if attack),
        "channels": _distinct(point["channel"] for point in points),
        "models": _distinct(point["model"] for point in points),
        "strongest": STRONGEST,
        "spec": SPEC,
    }


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _layer(mark: dict[str, Any], x: str, y: str, **more: Any) -> dict[str, Any]:
    encoding = {"x": {"field": x, "type": "quantitative"}, "y": {"field": y, "type": "quantitative"}}
    ends = {end: {"field": more.pop(end)} for end in ("x2", "y2") if end in more}
    return {"mark": {"tooltip": None, **mark}, "encoding": {**encoding, **ends}, **more}


_COLOUR = {"field": "colour", "type": "nominal", "scale": None}
_POINTS = _layer({"type": "point", "size": 130, "strokeWidth": 1.8, "opacity": 1}, "x", "y", name="points")
_POINTS["encoding"] |= {
    "color": _COLOUR,
    "fill": {"field": "fill", "type": "nominal", "scale": None},
    "shape": {"field": "shape", "type": "nominal", "scale": None},
    "size": {"field": "size", "type": "quantitative", "scale": None},
}
_UP = _layer({"type": "rule", "strokeWidth": 1.3, "opacity": 0.9}, "x", "lo", y2="hi", name="intervals")
_ACROSS = _layer({"type": "rule", "strokeWidth": 0.8, "opacity": 0.55}, "x_lo", "y", x2="x_hi", name="across")
_AT_LEAST = _layer({"type": "text", "dy": -5, "fontSize": 13, "fontWeight": "bold"}, "x", "hi")
for _drawn in (_UP, _ACROSS, _AT_LEAST):
    _drawn["encoding"]["color"] = _COLOUR
_AT_LEAST["encoding"]["text"] = {"condition": {"test": "datum.hollow", "value": "↑"}, "value": ""}

SPEC: dict[str, Any] = {
    "width": 700,
    "height": 420,
    "autosize": {"type": "fit", "contains": "padding"},
    "datasets": {"points": [], "best": [], "floor": [{"y": 0, "words": "best blind guess"}]},
    "data": {"name": "points"},
    "layer": [
        {
            "data": {"name": "floor"},
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1, "tooltip": None},
            "encoding": {"y": {"field": "y", "type": "quantitative"}},
        },
        {
            "data": {"name": "floor"},
            "mark": {"type": "text", "align": "right", "baseline": "bottom", "dy": -3, "tooltip": None},
            "encoding": {
                "y": {"field": "y", "type": "quantitative"},
                "x": {"value": "width"},
                "text": {"field": "words"},
            },
        },
        {
            **_layer({"type": "line", "interpolate": "step-after", "strokeWidth": 2, "opacity": 0.45}, "x", "y"),
            "data": {"name": "best"},
        },
        _ACROSS,
        _UP,
        _AT_LEAST,
        _POINTS,
        _layer(
            {"type": "point", "size": 900, "filled": True, "opacity": 0, "cursor": "pointer"}, "x", "y", name="hits"
        ),
    ],
}
"""The drawing in Vega-Lite 6; the page's script fills in data, axes, the width at hand and the colours of its theme."""
