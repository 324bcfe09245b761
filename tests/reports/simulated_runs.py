"""Made-up runs whose leakage is known, to judge what judges runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import Suite
from leakgauge.reports.analysis.run import LoadedRun, load_runs

SCRIPT = "<script>alert(1)</script>"
DATA = {"task": "toy v1", "victim": "v1", "split_evaluation": "e1"}


def suite_of(points=("plain", "merged"), attacks=("flat", "sharp"), **changes) -> Suite:
    return Suite.model_validate(
        {
            "name": "simulated",
            "task": "toy",
            "operating_points": [{"name": name} for name in points],
            "attacks": list(attacks),
            "threat_models": [{"name": "server"}],
            **changes,
        }
    )


@dataclass
class Simulation:
    """How a run comes out.

    ``shift`` is added to the leakage at ``merged``, in dB, ``noise`` the spread that training adds to each image.
    """

    n: int = 60
    shift: float = 0.0
    noise: float = 0.2
    seed: int = 0
    suite: Suite = field(default_factory=suite_of)
    verdict: str = "conclusive"
    reid: float = 0.5
    lpips: bool = True
    quality: float = 0.8
    payload: float = 400.0
    status: str = "complete"
    data: dict[str, str] = field(default_factory=lambda: dict(DATA))
    probe: float | None = None

    def write(self, folder: Path) -> RunFolder:
        run, cells, images = RunFolder(folder), [], []
        images_rng = np.random.default_rng(42)
        base = {point.name: images_rng.normal(8.0, 2.0, self.n) for point in self.suite.operating_points}
        order = images_rng.permutation(self.n)
        for index, cell in enumerate(plan(self.suite, "toy")):
            rng = np.random.default_rng([self.seed, index])
            point, attack = cell.exposure.point.name, cell.attack.label
            floor, probing = attack == "flat", attack == "asked"
            leak = base[point] + rng.normal(0, self.noise, self.n) + (self.shift if point == "merged" else 0.0)
            leak = np.zeros(self.n) if floor else leak
            nothing = np.full(self.n, np.nan)
            scores: dict[str, Any] = {
                "psnr_db": nothing if probing else 12 + leak,
                "ssim": nothing if probing else 0.3 + leak / 40,
                "lpips": nothing if probing or not self.lpips else 0.6 - leak / 40,
                "reid_top1": nothing if probing else (order < self.reid * self.n).astype(float),
                "label_agreement": nothing if probing else np.full(self.n, 0.5),
                "leakage": nothing if probing else leak,
                "quality": (order < self.quality * self.n).astype(float),
            }
            costs = {
                "tokens": 20.0,
                "payload_bytes": self.payload,
                "side_bytes": 20.0,
                "channel_uses": 100.0,
                "gflops_edge": 0.5,
                "gflops_total": 1.0,
            }
            asked = nothing if self.probe is None or not probing else (order < self.probe * self.n).astype(float)
            identity = {
                "cell": cell.key,
                "task": "toy v1",
                "defense": "split_pipeline",
                "operating_point": point,
                "channel": cell.exposure.channel.label,
                "snr_db": None,
                "attack": attack,
                "threat_model": cell.exposure.threat_model.name,
                "seed": cell.exposure.seed,
            }
            verdict = "conclusive" if floor else self.verdict
            row = {**identity, "n": self.n, "status": "done", "verdict": verdict, **costs}
            reasons = {"conclusive": "", "lower bound": "tokens were merged, and this attack cannot find positions"}
            row["reason"] = reasons.get(verdict, "convergence not shown: still gaining")
            for name, values in {**scores, "attribute_accuracy": asked}.items():
                row[name], row[f"{name}_lo"], row[f"{name}_hi"], *_ = mean_interval(values, None, bootstrap_streams(0))
            cells.append(row)
            images += [
                {**identity, "image": f"{i:016x}", "label": 0, "group": i, **costs, "attribute_correct": asked[i]}
                | {name: values[i] for name, values in scores.items()}
                for i in range(self.n)
            ]
        run.write_tables(cells, images)
        attacks = {
            a.label: {
                "plugin": a.plugin.name,
                "floor": a.label == "flat",
                "kind": "attribute" if a.label == "asked" else "reconstruction",
            }
            for a in self.suite.attacks
        }
        run.write_manifest(
            {
                "status": self.status,
                "suite": self.suite.model_dump(mode="json"),
                "task": {"name": "toy", "version": 1, "evaluation_images": self.n, "image_shape": [3, 8, 8]},
                "data": self.data,
                "attacks": attacks,
                "provenance": {"commit": "c0ffee"},
            }
        )
        return run


def simulated(folder: Path, **changes) -> LoadedRun:
    return load_runs([Simulation(**changes).write(folder)])[0]
