"""Whole runs with a token cache: what was sent before is not computed again, and whatever decides it is."""

import pandas as pd
import pytest
import torch
from toy_task import register

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.scoring import compute
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.columns import TIME_COLUMNS

CPU = torch.device("cpu")
OWN = 40
SUITE = {
    "name": "cached",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1, "codec": "float16"},
    "operating_points": [{"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.9}}],
    "threat_models": [
        {"name": "server", "auxiliary": {"n": OWN}},
        {"name": "shuffled", "auxiliary": {"n": OWN}, "knows": {"order": False}},
    ],
    "attacks": ["ridge"],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 12,
}


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")


@pytest.fixture
def edge_images(monkeypatch):
    """How many images the edge was run on to send them; what FLOPs and latency are measured on does not count."""
    counts: list[int] = []
    encode, ready = SplitPipeline.encode, compute._ready

    def counted(self, images, rng):
        counts.extend([len(images)] if len(images) > 1 else [])
        return encode(self, images, rng)

    def uncounted(*arguments):
        before = len(counts)
        ready(*arguments)
        del counts[before:]

    monkeypatch.setattr(SplitPipeline, "encode", counted)
    monkeypatch.setattr(compute, "_ready", uncounted)
    return counts


def run(out, **changes):
    folder = run_suite(prepare(parse_suite({**SUITE, **changes}), CPU), out, CPU, 1, lambda done, total: None)
    cells = folder.cells()
    assert (cells["status"] == "done").all()
    return cells.drop(columns=[*TIME_COLUMNS, "cell"])


def test_another_attack_on_the_same_operating_point_skips_the_victim(tmp_path, monkeypatch, edge_images):
    monkeypatch.setenv("LEAKGAUGE_CACHE", str(tmp_path / "cache"))
    first = run(tmp_path / "ridge")
    # Two threat models share one run of the victim on 12 images under attack and on the attacker's own.
    once = sum(edge_images)
    assert once == 12 + OWN
    edge_images.clear()
    run(tmp_path / "floor", attacks=["floor_mean", {"name": "conv_inverse", "epochs": 1, "channels": [8, 8, 8]}])
    assert edge_images == []
    again = run(tmp_path / "again")
    assert edge_images == []
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    monkeypatch.setenv("LEAKGAUGE_CACHE", "off")
    pd.testing.assert_frame_equal(run(tmp_path / "anew"), first, check_exact=True)
    assert sum(edge_images) == 2 * once


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1]},
        {"batch_size": 32},
        {"defense": {**SUITE["defense"], "codec": "float32"}},
        {"operating_points": [{"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.95}}]},
    ],
    ids=["seed", "batch size", "codec", "threshold"],
)
def test_what_decides_the_tokens_is_part_of_the_key(tmp_path, monkeypatch, edge_images, changes):
    monkeypatch.setenv("LEAKGAUGE_CACHE", str(tmp_path / "cache"))
    run(tmp_path / "before")
    once = sum(edge_images)
    edge_images.clear()
    run(tmp_path / "after", **changes)
    assert sum(edge_images) == once
