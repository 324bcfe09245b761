"""The tables of a report: operating points, every cell, threat models, attacks, columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from leakgauge.harness.scoring.measures import BUILT_IN
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.columns import CELL_COLUMNS
from leakgauge.reports.analysis.judge import judge_note
from leakgauge.reports.analysis.operating_points import point_columns
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting, rows_of
from leakgauge.reports.notation import is_number, percent
from leakgauge.reports.tables.table import Grid, Heading, Tone, Value, figure, flat, ranged, words


def _text(name: str, unit: str = "") -> Heading:
    return Heading(name, unit, numeric=False)


_ATTRIBUTE_HEADINGS = (_text("Attribute"), Heading("Named", "%"), Heading("By chance", "%"), Heading("AUC"))


def _verdict(status: str, verdict: str, reason: str) -> Value:
    shown = verdict if status == "done" else status
    tones: dict[str, Tone] = {"conclusive": "good", "lower bound": "warn", "inconclusive": "warn"}
    return words(shown, reason, tones.get(shown, "bad"))


def _said(row: Row) -> str:
    """Returns a cell's reason, and what is to be warned of."""
    return "; ".join(filter(None, (str(row["reason"]), f"warning: {row['warning']}" if row["warning"] else "")))


def _noise(value: Any) -> str:
    return f"{value:g} dB".replace("-", "\N{MINUS SIGN}") if is_number(value) else ""


def _doubtful(run: LoadedRun, row: Row) -> str:
    """Says why an operating point is not conclusive, or why it is nevertheless; where attacks failed, which did."""
    cells = run.cells_at(Setting(row["channel"], row["threat_model"]), row["operating_point"])
    lost = ", ".join(dict.fromkeys(str(c["attack"]) for c in cells if c["status"] != "done"))
    whole = row["verdict"] == "conclusive" and lost
    return f"{row['reason']}; not measured: {lost}" if whole else lost or str(row["reason"])


def points_grid(run: LoadedRun, rows: list[Row]) -> Grid:
    """Returns the operating-point table."""
    lossy = any(is_number(row["lost_tokens"]) and row["lost_tokens"] > 0 for row in rows)
    # Of several threat models a row must say at once which it is of.
    several = len({row["threat_model"] for row in rows}) > 1
    model = [_text("Threat model")]
    headings = [
        _text("Operating point"),
        *(model if several else []),
        Heading("Leakage", "dB above floor"),
        Heading("Change", "dB"),
        Heading("Quality", "%"),
        Heading("Change", "points"),
        _text("Verdict"),
        _text("Channel"),
        Heading("Tokens sent", "per image"),
        Heading("Share of baseline", "%"),
        Heading("Payload", "byte/image"),
        Heading("Share of baseline", "%"),
        _text("Strongest attack", "on average"),
        Heading("PSNR", "dB"),
        Heading("SSIM"),
        Heading("LPIPS"),
        *(Heading(score.heading, score.unit) for score in run.own_scores),
        Heading("Re-identified by judge", "%"),
        Heading("Re-identified by victim", "%"),
        *([Heading("Lost tokens", "per image")] if lossy else []),
        Heading("Side bytes", "byte/image"),
        Heading("Channel uses", "symbol/image"),
        Heading("Air time", "ms/image"),
        Heading("Edge", "GFLOP/image"),
        Heading("Total", "GFLOP/image"),
        Heading("Latency", "ms/image"),
        Heading("Quality, no defense", "%"),
        *([] if several else model),
    ]
    table: list[list[Value]] = []
    for row in rows:
        base = row["baseline"] == "yes"
        reference = Value("baseline", "", "", "muted", True)
        share = percent(row.get("strongest_share"), 0)
        attack = row.get("strongest_attack")
        table.append(
            [
                words(row["operating_point"], "baseline" if base else ""),
                *([words(row["threat_model"])] if several else []),
                ranged(row, "strongest_leakage", 2),
                reference if base else ranged(row, "leakage_change", 2, signed=True),
                ranged(row, "quality", 1, scale=100),
                reference if base else ranged(row, "quality_change", 1, signed=True, scale=100),
                _verdict("done", row["verdict"], _doubtful(run, row)),
                words(row["channel"], _noise(row["snr_db"])),
                figure(row["tokens"], 1),
                figure(row["tokens_share"], 1, scale=100),
                figure(row["payload_bytes"], 0),
                figure(row["payload_share"], 1, scale=100),
                words(attack, f"on {share} of images") if attack else figure(None),
                ranged(row, "strongest_psnr_db", 2),
                ranged(row, "strongest_ssim", 3),
                ranged(row, "strongest_lpips", 3),
                *(ranged(row, f"strongest_{score.name}", score.digits) for score in run.own_scores),
                ranged(row, "judge_reid_top1", 1, scale=100),
                ranged(row, "reid_top1", 1, scale=100),
                *([figure(row["lost_tokens"], 1)] if lossy else []),
                figure(row["side_bytes"], 0),
                figure(row["channel_uses"], 0),
                figure(row["air_time_ms"], 2),
                figure(row["gflops_edge"], 3),
                figure(row["gflops_total"], 3),
                figure(row["latency_ms"], 1),
                figure(row["quality_base"], 1, scale=100),
                *([] if several else [words(row["threat_model"])]),
            ]
        )
    return Grid(f"Operating points of {run.label}", headings, table)


def air_time_note(run: LoadedRun) -> str:
    """Says what air time and re-identification rest on."""
    hertz = run.suite.bandwidth_hz
    return (
        f"Air time assumes a bandwidth of {hertz / 1e6:g} MHz and one complex symbol a second and hertz. "
        f"Side bytes are the part of the payload that is header or side information. {judge_note(run)}"
    )


def _attribute_values(row: Row) -> list[Value]:
    """Returns the entries under ``_ATTRIBUTE_HEADINGS``."""
    return [
        words(row["attribute"]),
        ranged(row, "attribute_accuracy", 1, scale=100),
        figure(row["attribute_chance"], 1, scale=100),
        ranged(row, "attribute_auc", 3),
    ]


def cells_grid(run: LoadedRun) -> Grid:
    """Returns every cell: attack by operating point, with failed, missing and doubtful ones in plain sight."""
    rows = rows_of(run.cells)
    asked, shown = any(row["attribute"] for row in rows), (*BUILT_IN, *run.own_scores)
    headings = [
        _text("Operating point"),
        _text("Attack"),
        Heading("Leakage", "dB above floor"),
        _text("Verdict"),
        _text("Channel"),
        *(Heading(score.heading, "%" if score.percent else score.unit.replace("0..1", "")) for score in shown),
        *(_ATTRIBUTE_HEADINGS if asked else ()),
        Heading("Images", "scored"),
        Heading("Seed"),
        _text("Threat model"),
    ]
    table: list[list[Value]] = []
    for row in rows:
        scores = [ranged(row, score.name, score.digits, scale=score.scale) for score in shown]
        table.append(
            [
                words(row["operating_point"]),
                words(row["attack"], "floor" if run.is_floor(row["attack"]) else ""),
                ranged(row, "leakage", 2),
                _verdict(row["status"], row["verdict"], _said(row)),
                words(row["channel"], _noise(row["snr_db"])),
                *scores,
                *(_attribute_values(row) if asked else ()),
                figure(int(row["n"]), 0),
                Value(str(row["seed"]), "", str(row["seed"]), "", True),
                words(row["threat_model"]),
            ]
        )
    return Grid(f"Every attack on every operating point of {run.label}", headings, table)


_GRANTS = {
    "observer": "Observer: whose view the attacker has",
    "channel": "Channel that the observer hears",
    "knows · merge_map": "Knows which patch went into which token (merge map)",
    "knows · sizes": "Knows how many patches each token stands for (sizes)",
    "knows · order": "Knows the order in which tokens were sent",
    "knows · channel_state": "Knows the channel realisation",
    "victim": "Access to the victim",
    "auxiliary · domain": "Domain of the attacker's auxiliary images",
    "auxiliary · n": "Number of auxiliary images",
    "adaptive": "Trained against this very operating point (adaptive)",
}


def _adaptive(run: LoadedRun, model: ThreatModel) -> str:
    """Says whether attackers were trained on what they attack, and which were not whatever the model grants."""
    if not model.adaptive:
        return "no: on the undefended pipeline"
    if any("adaptive" not in entry for entry in run.attacks.values()):
        return "yes, as far as attacks do: this run does not state it of them"
    apart = [label for label, entry in run.attacks.items() if not entry["adaptive"]]
    return f"yes, but for {', '.join(apart)}: on unreduced tokens" if apart else "yes"


def threat_models_grid(run: LoadedRun) -> Grid:
    """Returns the threat models in full: a row a grant, a column a model."""
    models = [
        dict(
            flat({**m.model_dump(exclude={"name"}), "channel": "the server's" if m.channel is None else str(m.channel)})
        )
        for m in run.suite.threat_models
    ]
    keys = list(dict.fromkeys(key for model in models for key in model))
    rows = []
    for key in keys:
        answers = [model.get(key, "not stated") for model in models]
        if key == "adaptive":
            answers = [_adaptive(run, model) for model in run.suite.threat_models]
        if key == "auxiliary · n":
            answers = ["all that the task provides" if a == "not stated" else a for a in answers]
        rows.append([words(_GRANTS.get(key, key)), *(words(answer) for answer in answers)])
    headings = [_text("What the threat model grants"), *(_text(m.name) for m in run.suite.threat_models)]
    return Grid(f"Threat models of {run.label}", headings, rows, sortable=False)


def attacks_grid(run: LoadedRun) -> Grid:
    """Returns the attacks: plug-in, whether a floor, and what each needs to know."""
    rows = []
    for label, entry in run.attacks.items():
        needs = entry.get("knowledge")
        if needs is None:
            known = "not stated"
        else:
            granted = (key if value is True else f"{key}: {value}" for key, value in needs.items())
            idle = {key for key, value in needs.items() if value is False or value in {"none", ""} or value is None}
            known = ", ".join(g.replace("_", " ") for g, key in zip(granted, needs, strict=True) if key not in idle)
        rows.append(
            [
                words(label),
                words(entry.get("plugin", "not stated"), f"{entry['kind']} probe" if run.is_probe(label) else ""),
                words("yes" if run.is_floor(label) else "no"),
                words(known or "nothing beyond the tokens"),
            ]
        )
    headings = [_text("Attack"), _text("Plug-in"), _text("Floor"), _text("Needs to know")]
    return Grid(f"Attacks of {run.label}", headings, rows, sortable=False)


def columns_grid(runs: Sequence[LoadedRun] = ()) -> Grid:
    """Returns the definition of every column, of cells and of operating points, those of the runs' own metrics too."""
    own = {score.name: score for run in runs for score in run.own_scores}
    cells = (*CELL_COLUMNS, *(column for score in own.values() for column in score.cell_columns))
    rows = []
    meanings: dict[tuple[str, str, str], list[str]] = {}
    for table, columns in (("cells", cells), ("operating points", point_columns(runs))):
        for column in columns:
            if not column.name.endswith(("_lo", "_hi")):
                meanings.setdefault((column.name, column.unit, column.meaning), []).append(table)
    for (name, unit, meaning), tables in meanings.items():
        rows.append([words(name), words(unit or "none"), words(" and ".join(tables)), words(meaning)])
    headings = [_text("Column"), _text("Unit"), _text("Table"), _text("Meaning")]
    return Grid("Definitions of the columns", headings, rows, sortable=False)


class RunTables(NamedTuple):
    """What a report tabulates of one run, and what air time and re-identification in it rest on."""

    threat_models: Grid
    attacks: Grid
    points: Grid
    air_time: str
    cells: Grid


def run_tables(run: LoadedRun, rows: list[Row]) -> RunTables:
    """Returns the tables of a run, given its operating points as ``point_rows`` tells them."""
    return RunTables(
        threat_models_grid(run), attacks_grid(run), points_grid(run, rows), air_time_note(run), cells_grid(run)
    )
