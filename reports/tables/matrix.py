"""The matrix of a run at a glance: each attack, and what it achieved on each operating point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting
from leakgauge.reports.analysis.strongest import estimate, image_rows
from leakgauge.reports.notation import bounds
from leakgauge.reports.tables.table import Grid, Heading, Value, figure, ranged, words

_KNOWN = {"order": "order", "sizes": "sizes", "merge_map": "merge map", "channel_state": "channel state"}


def granted(model: ThreatModel) -> str:
    """Puts in a few words what a threat model grants, and what it withholds."""
    access = {"none": "no access to the victim", "query": "queries to the victim", "white-box": "the victim's weights"}
    held = [words for name, words in _KNOWN.items() if getattr(model.knows, name)]
    kept = [words for name, words in _KNOWN.items() if not getattr(model.knows, name)]
    text = ", ".join([access[model.victim], *held])
    return text + (f"; not {', '.join(kept)}" if kept else "")


def grants(run: LoadedRun) -> tuple[str, ...]:
    """Says once for each threat model what it grants; it grants every attack the same."""
    told = {model.name: granted(model) for model in run.suite.threat_models}
    names = dict.fromkeys(setting.threat_model for setting in run.settings)
    return tuple(f"Granted by threat model {name}: {told.get(name, 'not stated')}." for name in names)


def _marked(value: Value, cells: Sequence[Row], unit: str = "") -> Value:
    """Marks what rests on a cell that is not conclusive."""
    caveat = next((v for v in ("inconclusive", "lower bound") if any(cell["verdict"] == v for cell in cells)), "")
    detail = " ".join(filter(None, (unit, value.detail, caveat)))
    return Value(value.text, detail, value.sort, "warn" if caveat else value.tone, True)


def _entry(run: LoadedRun, cells: Sequence[Row], point: str, attack: str, setting: Setting) -> Value:
    """Returns what an attack achieved over all seeds, or what became of its cells instead."""
    if not cells:
        return Value("not planned", "", "", "muted", True)
    undone = [str(cell["status"]) for cell in cells if cell["status"] != "done"]
    if undone:
        return Value(undone[0], "", "", "bad", True)
    if run.is_probe(attack):
        # Of several seeds the first: a probe's scores are of cells, not of images.
        row = cells[0]
        if row["attribute"]:
            return _marked(ranged(row, "attribute_auc", 3), cells, f"AUC of {row['attribute']}")
        return _marked(ranged(row, "reid_top1", 1, scale=100), cells, "% re-identified")
    rows = image_rows(run, point, setting, [attack])
    leak = estimate(rows["leakage"], rows["group"], run.suite.seeds[0])
    return _marked(figure(leak.mean, 2, detail=bounds(leak.lo, leak.hi)), cells)


def _place(run: LoadedRun, setting: Setting) -> str:
    """Names a setting as far as the run has several."""
    names = [setting.channel] if len({s.channel for s in run.settings}) > 1 else []
    return ", ".join([*names, *([setting.threat_model] if len({s.threat_model for s in run.settings}) > 1 else [])])


def achievement_matrix(run: LoadedRun) -> Grid:
    """Returns a row an attack and setting, and a column an operating point; what was granted ``grants`` says.

    Reconstructions count by mean leakage in dB above the best floor, probes by what they were asked.
    """
    return run.once("achievement matrix", lambda: _achievement_matrix(run))


class Achieved(NamedTuple):
    """What each attack achieved, and in words what it was granted."""

    grants: tuple[str, ...]
    matrix: Grid


def achieved(run: LoadedRun) -> Achieved:
    """Returns what each attack of a run achieved with what it was granted."""
    return Achieved(grants(run), achievement_matrix(run))


def _achievement_matrix(run: LoadedRun) -> Grid:
    several = len(run.settings) > 1
    points = list(dict.fromkeys(point for setting in run.settings for point in run.points_at(setting)))
    by_setting = {setting: run.cells_at(setting) for setting in run.settings}
    rows = []
    for attack in dict.fromkeys(str(name) for name in run.cells["attack"]):
        for setting, cells in by_setting.items():
            own = [cell for cell in cells if cell["attack"] == attack]
            if not own:
                continue
            entries = []
            for point in points:
                here = [cell for cell in own if cell["operating_point"] == point]
                entries.append(_entry(run, here, point, attack, setting))
            place = [words(_place(run, setting))] if several else []
            rows.append([words(attack, "floor" if run.is_floor(attack) else ""), *place, *entries])
    headings = [
        Heading("Attack", "", numeric=False),
        *([Heading("Channel and threat model", "", numeric=False)] if several else []),
        *(Heading(point, "dB") for point in points),
    ]
    return Grid(
        "What each attack achieved: leakage in dB above the best floor, or a probe's score",
        headings,
        rows,
    )
