"""The matrix of leakage, attack by operating point: the whole run at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from reports.grid import Grid, Heading, Value, figure, words
from reports.loaded import LoadedRun, Row, Setting
from reports.notation import bounds
from reports.strongest import estimate, image_rows


def _entry(run: LoadedRun, cells: Sequence[Row], point: str, attack: str, setting: Setting) -> Value:
    """Returns leakage over all seeds, or what became of the cells instead."""
    if not cells:
        return Value("not planned", "", "", "muted", True)
    undone = [str(cell["status"]) for cell in cells if cell["status"] != "done"]
    if undone:
        return Value(undone[0], "", "", "bad", True)
    rows = image_rows(run, point, setting, [attack])
    leak = estimate(rows["leakage"], rows["group"], run.suite.seeds[0])
    doubt = any(cell["verdict"] != "conclusive" for cell in cells)
    detail = f"{bounds(leak.lo, leak.hi)}{' inconclusive' if doubt else ''}".strip()
    value = figure(leak.mean, 2, detail=detail)
    return Value(value.text, value.detail, value.sort, "warn" if doubt else value.tone, True)


def leakage_matrix(run: LoadedRun, setting: Setting) -> Grid:
    """Returns mean leakage in dB above the best floor: a row an attack but for probes, a column an operating point."""
    cells = [cell for cell in run.cells_at(setting) if not run.is_probe(str(cell["attack"]))]
    points = run.points_at(setting)
    rows = []
    for attack in dict.fromkeys(str(cell["attack"]) for cell in cells):
        entries = []
        for point in points:
            here = [cell for cell in cells if cell["attack"] == attack and cell["operating_point"] == point]
            entries.append(_entry(run, here, point, attack, setting))
        rows.append([words(attack, "floor" if run.is_floor(attack) else ""), *entries])
    place = f"channel {setting.channel}, threat model {setting.threat_model}"
    headings = [Heading("Attack", "", numeric=False), *(Heading(point, "dB") for point in points)]
    return Grid(f"Leakage in dB above the best floor, {place}", headings, rows)
