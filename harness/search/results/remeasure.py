"""Measures a front again, on the evaluation split and under attack: what was chosen on one split is told by another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.harness.search.results.dominance import dominance, image_metrics
from leakgauge.harness.search.results.front import Front
from leakgauge.harness.search.space import Remeasure
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.store.table_file import guarded_csv
from leakgauge.harness.suite.registry import default_of
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.system.files.atomic_file import write_atomic

UNDEFENDED = "undefended"
EVALUATION = "evaluation"
"""Folder of the run, within that of the search."""
_MEASURED = ("quality", "gflops_edge", "gflops_total", "tokens", "payload_bytes", "channel_uses", "latency_ms")
_ENDS = ("quality_lo", "quality_hi", "payload_bytes_lo", "payload_bytes_hi", "gflops_total_lo", "gflops_total_hi")


def suite_of(front: Front, how: Remeasure) -> Suite:
    """Returns the suite that measures the undefended point, the front and its baselines under every attack."""
    channels = {str(point.channel): point.channel for point in front.points}
    labels = {text: f"channel_{i}" if len(channels) > 1 else "channel" for i, text in enumerate(channels)}
    undefended: dict[str, Any] = {"name": UNDEFENDED, "reduction": default_of("reductions")}
    points = [undefended, *(point.model_dump() for point in front.operating_points)]
    points += [point.model_dump() for point in front.baseline_points]
    cells = [
        {
            "channels": [labels[text]],
            "operating_points": [
                UNDEFENDED,
                *(point.name for point in (*front.points, *front.baselines) if str(point.channel) == text),
            ],
        }
        for text in channels
    ]
    return Suite.model_validate(
        {
            "name": f"{front.space}-front",
            "description": f"The front of search space {front.space}, measured again.",
            "task": front.task.model_dump(),
            "defense": front.defense.model_dump(),
            "operating_points": points,
            "baseline": UNDEFENDED,
            "channels": [{"label": labels[text], "plugin": config.model_dump()} for text, config in channels.items()],
            "threat_models": [model.model_dump() for model in how.threat_models],
            "attacks": [attack.model_dump() for attack in how.attacks],
            "seeds": how.seeds,
            "evaluation_images": how.evaluation_images,
            "cells": cells,
        }
    )


def remeasure_front(front: Front, how: Remeasure, out: Path, device: torch.device, workers: int) -> Path:
    """Runs that suite in ``out/evaluation`` (resumed where it was interrupted); writes what became of the front.

    Each row of front_measured.csv holds one point's metrics on the search split (``searched_*``) beside those on the
    evaluation split (``measured_*``, with the ends of their intervals) and what each attack reached there. Leakage was
    searched by the proxy attack; measured, it is that of the attack that is strongest on average. dominance.csv holds
    each point of the front against each baseline (``leakgauge.harness.search.results.dominance``).

    Returns:
        The path of front_measured.csv.

    Raises:
        LeakgaugeError: The suite cannot run; splits that share an image are found here too.
    """
    plan = prepare(suite_of(front, how), device)
    store = run_suite(plan, out / EVALUATION, device, workers, lambda done, total: None)
    path = out / "front_measured.csv"
    for name, table in ((path, side_by_side(front, store)), (out / "dominance.csv", dominance(front, store))):
        write_atomic(name, guarded_csv(table, "NaN"))
    return path


def side_by_side(front: Front, store: RunFolder) -> pd.DataFrame:
    """Returns a row an operating point, seed and threat model: searched beside measured."""
    cells = store.cells()
    searched = {(point.name, point.snr_db): point for point in (*front.points, *front.baselines)}
    kinds = {point.name: "front" for point in front.points} | {point.name: "baseline" for point in front.baselines}
    rows, leaks = [], _leakages(store)
    keys = ["operating_point", "channel", "snr_db", "threat_model", "seed"]
    for _, group in cells.groupby(keys, sort=False, dropna=False):
        first = group.to_dict("records")[0]
        name, channel, snr_db, model, seed = (first[key] for key in keys)
        known = searched.get((name, None if math.isnan(snr_db) else float(snr_db)))
        row: dict[str, Any] = {"operating_point": name, "kind": kinds.get(str(name), UNDEFENDED)}
        row |= {"channel": channel, "snr_db": snr_db, "threat_model": model, "seed": seed}
        metrics = front.undefended if known is None else known.metrics
        row |= {f"searched_{metric}": value for metric, value in metrics.items()}
        row |= {f"measured_{metric}": first[metric] for metric in (*_MEASURED, *_ENDS) if metric in group}
        row |= leaks[str(name), str(channel), str(model), int(seed)]
        for cell in group.to_dict("records"):
            row[f"psnr_db {cell['attack']}"] = cell["psnr_db"]
            row[f"leakage {cell['attack']}"] = cell["leakage"]
            row[f"verdict {cell['attack']}"] = cell["verdict"]
        rows.append(row)
    return pd.DataFrame(rows)


def _leakages(store: RunFolder) -> dict[tuple[str, str, str, int], dict[str, float]]:
    """Returns the strongest attack's leakage, mean over images with its interval, by point, channel, model and seed."""
    found = {}
    keys = ["operating_point", "channel", "threat_model", "seed"]
    for place, images in image_metrics(store).groupby(keys, sort=False):
        point, channel, model, seed = (str(part) for part in place)
        streams = bootstrap_streams(int(seed))
        leak = mean_interval(images["leakage"].to_numpy(), images["group"].to_numpy(), streams)
        ends = {"measured_leakage_lo": leak.lo, "measured_leakage_hi": leak.hi}
        found[point, channel, model, int(seed)] = {"measured_leakage": leak.mean, **ends}
    return found
