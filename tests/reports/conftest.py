"""A small made-up run with every kind of cell: conclusive, inconclusive, failed, unscored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakgauge.harness.scoring.statistics import mean_interval
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.seeding import Streams

SCRIPT = "<script>alert(1)</script>"
N, SIDE = 10, 8
SUITE = Suite.model_validate(
    {
        "name": "small",
        "task": "toy",
        "operating_points": [{"name": "plain"}, {"name": "merged"}],
        "attacks": ["flat", "slow", "sharp", {"label": "odd", "plugin": {"name": SCRIPT}}],
        "threat_models": [{"name": "server", "auxiliary": {"n": 40}}],
        "metrics": ["psnr_db", "ssim", "lpips"],
    }
)


def _scores(point: str, attack: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    level = {"flat": 10.0, "slow": 16.0, "sharp": 17.0, "odd": 12.0}[attack] - (2.0 if point == "merged" else 0.0)
    psnr = np.full(N, 10.0) if attack == "flat" else rng.normal(level, 2.0, N)
    lpips = np.full(N, np.nan) if attack == "odd" else rng.uniform(0.2, 0.6, N)
    reid = (rng.random(N) < level / 20).astype(float)
    return {"psnr_db": psnr, "ssim": rng.uniform(0.2, 0.8, N), "lpips": lpips, "reid_top1": reid}


def build_run(folder: Path, suite: Suite = SUITE, lost_tokens: float = 0.0, **manifest: Any) -> RunFolder:
    """Writes a run: on ``merged``, ``slow`` is inconclusive and ``odd`` failed; ``odd`` has no LPIPS anywhere."""
    run = RunFolder(folder)
    streams, cells, images = Streams(0, ("bootstrap",)), [], []
    groups = np.arange(N) // 2
    originals = np.random.default_rng(9).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
    run.write_images("originals", originals)
    for index, cell in enumerate(plan(suite, "toy")):
        point, attack = cell.exposure.point.name, cell.attack.label
        rng = np.random.default_rng(index)
        identity = {
            "cell": cell.key,
            "task": "toy v1",
            "defense": "split_pipeline",
            "operating_point": point,
            "channel": cell.exposure.channel.label,
            "snr_db": cell.exposure.channel.plugin.options.get("snr_db"),
            "attack": attack,
            "threat_model": cell.exposure.threat_model.name,
            "seed": 0,
        }
        if (point, attack) == ("merged", "odd"):
            cells.append(
                {**identity, "n": 0, "status": "failed", "verdict": "inconclusive", "reason": f"a | b {SCRIPT}"}
            )
            continue
        costs = {
            "quality": np.arange(N) % (2 if point == "merged" else 5) > 0,
            "quality_base": np.full(N, 0.8),
            "gflops_edge": np.full(N, 1.0),
            "gflops_total": np.full(N, 2.0 if point == "plain" else 1.5),
            "tokens": np.full(N, 17.0 if point == "plain" else 9.0),
            "payload_bytes": np.full(N, 1000.0 if point == "plain" else 400.0),
            "side_bytes": np.full(N, 27.0),
            "channel_uses": np.full(N, 128.0),
            "air_time_ms": np.full(N, 0.128),
            "spectral_efficiency_bits": np.full(N, 62.5 if point == "plain" else 25.0),
            "lost_tokens": np.full(N, lost_tokens),
        }
        scores = _scores(point, attack, rng)
        leakage = scores["psnr_db"] - 10.0
        row = {**identity, "n": N, "status": "done", "latency_ms": 3.0, "verdict": "conclusive", "reason": ""}
        row |= {name: float(np.mean(values)) for name, values in costs.items()}
        columns = {"quality": costs["quality"].astype(float), **scores, "leakage": leakage}
        for name, values in columns.items():
            row[name], row[f"{name}_lo"], row[f"{name}_hi"], *_ = mean_interval(values, groups, streams)
        if (point, attack) == ("merged", "slow"):
            row |= {"verdict": "inconclusive", "reason": "not converged: still gaining"}
        cells.append(row)
        run.write_images(cell.key, rng.integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8))
        if attack in {"slow", "sharp"}:
            curve = LearningCurve(50)
            for step in range(0, 51, 10):
                curve.add(step, 1.0 / (step + 1), 12.0 + step / 10)
            run.write_curve(cell.key, curve)
        for i in range(N):
            per_image = {name: float(values[i]) for name, values in {**costs, **scores, "leakage": leakage}.items()}
            images.append({**identity, "image": f"{i:016x}", "label": 0, "group": int(groups[i]), **per_image})
    run.write_tables(cells, images)
    knowledge = {"sizes": True, "order": False, "victim": "query", "auxiliary": True}
    run.write_manifest(
        {
            "status": "complete",
            "suite": suite.model_dump(mode="json"),
            "task": {
                "name": "toy",
                "version": 1,
                "quality_name": "top-1 accuracy",
                "victim": "tiny",
                "image_shape": [3, SIDE, SIDE],
                "evaluation_images": N,
            },
            "attacks": {
                a.label: {"plugin": a.plugin.name, "floor": a.label == "flat", "knowledge": knowledge}
                for a in suite.attacks
            },
            "provenance": {"commit": "c0ffee", "dirty": False, "packages": {"numpy": "2"}},
            "sessions": [{"command": "leakgauge run small --out here", "started": "2025-01-01T00:00:00+00:00"}],
            **manifest,
        }
    )
    return run


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunFolder]:
    """Builds the run in a folder; keywords replace entries of run.json."""
    return build_run
