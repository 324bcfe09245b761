"""The operating-point table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from leakgauge.harness.store.run_folder import RunFolder, typed_frame
from leakgauge.harness.values.columns import COSTS, IDENTITY, Column
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting, load_runs
from leakgauge.reports.analysis.strongest import (
    NOTHING,
    Estimate,
    change,
    estimate,
    per_image,
    quality_per_image,
    share_of_images,
    strongest_rows,
)
from leakgauge.reports.analysis.verdicts.point_verdict import verdict_of
from leakgauge.reports.analysis.worst_cases import WORST_COLUMNS, worst_cases


def _with_interval(name: str, unit: str, meaning: str) -> tuple[Column, ...]:
    ends = (("lo", "lower"), ("hi", "upper"))
    bounds = (
        Column(f"{name}_{e}", "float", unit, f"{w} end of the 95 % bootstrap interval of {name}") for e, w in ends
    )
    return (Column(name, "float", unit, meaning), *bounds)


_IDENTITY = {c.name: c for c in IDENTITY}
_COST = {c.name: c for c in COSTS}
_AVERAGED = (
    "quality_base",
    "tokens",
    "payload_bytes",
    "side_bytes",
    "channel_uses",
    "air_time_ms",
    "spectral_efficiency_bits",
    "lost_tokens",
    "gflops_edge",
    "gflops_total",
    "latency_ms",
)
POINT_COLUMNS: tuple[Column, ...] = (
    _IDENTITY["task"],
    _IDENTITY["operating_point"],
    _IDENTITY["channel"],
    _IDENTITY["snr_db"],
    _IDENTITY["threat_model"],
    Column("baseline", "text", "", "yes for the undefended operating point that the others are compared with"),
    Column("n", "int", "images", "images with a strongest attack, counted once a seed"),
    *_with_interval("quality", "0..1", _COST["quality"].meaning),
    _COST["quality_base"],
    *_with_interval("quality_change", "0..1", "quality minus the baseline's, image by image"),
    *(_COST[name] for name in _AVERAGED[1:3]),
    Column("tokens_share", "float", "", "tokens divided by the baseline's"),
    Column("payload_share", "float", "", "payload_bytes divided by the baseline's"),
    *(_COST[name] for name in _AVERAGED[3:]),
    *_with_interval("strongest_psnr_db", "dB", "mean over images of the strongest attack's PSNR"),
    *_with_interval("strongest_ssim", "-1..1", "mean over images of the SSIM of the attack that is best at it"),
    *_with_interval("strongest_lpips", "", "mean over images of the LPIPS of the attack that is best at it"),
    Column("strongest_attack", "text", "", "the strongest attack: that of the highest mean PSNR over images and seeds"),
    Column("strongest_share", "float", "0..1", "share of images on which no other attack has a higher PSNR than it"),
    *_with_interval(
        "judge_reid_top1",
        "0..1",
        "re-identification, as the judge that run.json names sees it, by the single attack that is best at it",
    ),
    Column("judge_reid_attack", "text", "", "the attack that judge_reid_top1 belongs to"),
    *_with_interval(
        "reid_top1", "0..1", "re-identification by the victim's features, by the single attack that is best at it"
    ),
    Column("reid_attack", "text", "", "the attack that reid_top1 belongs to"),
    *_with_interval(
        "strongest_leakage",
        "dB",
        "mean over images of the strongest attack's PSNR minus that of the best floor on average",
    ),
    *_with_interval(
        "oracle_leakage",
        "dB",
        "the same of another attack on each image, the one that leaks most there: nobody can choose so who does not "
        "know the original, so that it lies above zero even where attacks see nothing",
    ),
    *_with_interval(
        "blind_leakage",
        "dB",
        "what oracle_leakage is of as many guesses that see nothing: on each image the best of what the same attacks "
        "rebuilt of another, unrelated image; far below zero where they rebuild sharply",
    ),
    *WORST_COLUMNS,
    *_with_interval("leakage_change", "dB", "strongest_leakage minus the baseline's, image by image"),
    Column(
        "verdict",
        "text",
        "",
        "that of the strongest attack: conclusive, by itself, by reference or as images are given away whole; lower "
        "bound (it converged, but could not make use of all there is); or inconclusive (it is, another could still "
        "overtake it, the best known is far, or a cell failed or is missing): then too leakage is only bounded from "
        "below",
    ),
    Column(
        "reason",
        "text",
        "",
        "why it is not conclusive, and by which attacks; or by which reference it is, or that images are given away "
        "whole: then too leakage is only bounded from below",
    ),
)


def point_columns(runs: Sequence[LoadedRun]) -> tuple[Column, ...]:
    """Returns the columns of the operating-point table: ``POINT_COLUMNS``, and those of the runs' own metrics."""
    own = {score.name: score for run in runs for score in run.own_scores}
    added = (
        _with_interval(
            f"strongest_{name}",
            score.unit,
            f"mean over images of the {name} of the attack whose mean is {score.leaks_when[:-2]}est",
        )
        for name, score in own.items()
    )
    return (*POINT_COLUMNS, *(column for columns in added for column in columns))


def _put(row: Row, name: str, value: Estimate) -> None:
    row.update({name: value.mean, f"{name}_lo": value.lo, f"{name}_hi": value.hi})


def _mean(rows: Sequence[Row], name: str) -> float:
    values = [float(row[name]) for row in rows if pd.notna(row[name])]
    return fmean(values) if values else float("nan")


def _reid(run: LoadedRun, cells: Sequence[Row], name: str) -> tuple[Estimate, str]:
    """Picks the attack whose mean re-identification over seeds, column ``name``, is the highest."""
    by_attack: dict[str, list[Row]] = {}
    for cell in cells:
        if pd.notna(cell[name]) and not run.is_floor(str(cell["attack"])):
            by_attack.setdefault(str(cell["attack"]), []).append(cell)
    if not by_attack:
        return NOTHING, ""
    attack = max(by_attack, key=lambda a: _mean(by_attack[a], name))
    ends = (name, f"{name}_lo", f"{name}_hi")
    return Estimate(*(_mean(by_attack[attack], end) for end in ends)), attack


def _point_row(run: LoadedRun, point: str, setting: Setting) -> Row:
    cells = run.cells_at(setting, point)
    seed = run.suite.seeds[0]
    verdict, reason = verdict_of(run, cells)
    row: Row = {
        "task": cells[0]["task"],
        "operating_point": point,
        "channel": setting.channel,
        "snr_db": cells[0]["snr_db"],
        "threat_model": setting.threat_model,
        "baseline": "yes" if point == run.suite.baseline_point else "no",
        "verdict": verdict,
        "reason": reason,
        **{name: _mean(cells, name) for name in _AVERAGED},
    }
    quality = quality_per_image(run, point, setting)
    _put(row, "quality", estimate(quality["quality"], quality["group"], seed))
    best = strongest_rows(run, point, setting)
    row["n"] = int(best["psnr_db"].notna().sum())
    for name in ("oracle_leakage", "blind_leakage"):
        _put(row, name, estimate(best[name], best["group"], seed))
    for name in per_image(run):
        _put(row, f"strongest_{name}", estimate(best[name], best["group"], seed))
    row |= worst_cases(best, seed)
    named = best.loc[best["attack"] != "", "attack"]
    if len(named):
        row["strongest_attack"] = named.iloc[0]
        row["strongest_share"] = share_of_images(run, point, setting)
    for name in ("judge_reid_top1", "reid_top1"):
        reid, row[name.replace("top1", "attack")] = _reid(run, cells, name)
        _put(row, name, reid)
    return row


def _compare(run: LoadedRun, row: Row, setting: Setting) -> None:
    """Adds the changes from the baseline in the same setting, paired image by image."""
    point, baseline = str(row["operating_point"]), run.suite.baseline_point
    seed = run.suite.seeds[0]
    quality = [quality_per_image(run, name, setting) for name in (point, baseline)]
    _put(row, "quality_change", change(quality[0], quality[1], "quality", seed))
    leakage = [strongest_rows(run, name, setting) for name in (point, baseline)]
    _put(row, "leakage_change", change(leakage[0], leakage[1], "leakage", seed))


def point_rows(run: LoadedRun) -> list[Row]:
    """Computes a row for each operating point, channel and threat model of a run; see ``POINT_COLUMNS``."""
    return [dict(row) for row in run.once("operating points", lambda: _rows(run))]


def _rows(run: LoadedRun) -> list[Row]:
    rows: list[Row] = []
    for setting in run.settings:
        here = [_point_row(run, point, setting) for point in run.points_at(setting)]
        for row in here:
            if row["baseline"] == "no":
                _compare(run, row, setting)
        rows.extend(here)
    for row in rows:
        # A payload is the same whatever the channel, so that any of the baseline's will do.
        base = [other for other in rows if other["baseline"] == "yes"]
        same = [other for other in base if other["channel"] == row["channel"]] or base
        for share, cost in (("tokens_share", "tokens"), ("payload_share", "payload_bytes")):
            row[share] = row[cost] / (_mean(same, cost) or float("nan"))
    return rows


def operating_points(run: RunFolder) -> pd.DataFrame:
    """Computes the operating-point table of a run: ``POINT_COLUMNS``, NaN where nothing was scored."""
    loaded = load_runs([run])
    return typed_frame(point_rows(loaded[0]), point_columns(loaded))
