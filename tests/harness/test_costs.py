"""Costs are a pure function of the operating point: what ran before, caches and resumed runs move none of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_task import Toy, register

from leakgauge.benchmarks.tasks.drawn_scenes.scenes_vqa import ScenesVqa
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged.edge import Edge
from leakgauge.defenses.vqa.pipeline import VqaPipeline
from leakgauge.harness.measurement.transmitting import respond_all, transmit_all
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.scoring import compute
from leakgauge.harness.scoring.compute import measure_flops, measure_latency_ms
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.columns import COSTS, QUESTION_COSTS, TIME_COLUMNS
from leakgauge.harness.values.seeding import Streams

CPU, RNG = torch.device("cpu"), Streams(0)
THRESHOLD = {"name": "threshold", "thresholds": 0.8}
MATCHED = {"name": "random_merge", "match": THRESHOLD}
DROPPED = {"name": "random_drop", "match": THRESHOLD}
NAMES = [c.name for c in (*COSTS, *QUESTION_COSTS) if c.name not in TIME_COLUMNS]
SUITE = {
    "name": "costs",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1, "codec": "float16"},
    "operating_points": [
        {"name": "merged", "reduction": THRESHOLD},
        {"name": "at_random", "reduction": MATCHED},
        {"name": "dropped", "reduction": DROPPED},
    ],
    "threat_models": [{"name": "server", "auxiliary": {"n": 8}}, {"name": "blind", "knows": {"order": False}}],
    "attacks": [{"name": "floor_mean"}],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 5,
}


def costs(out, **changes) -> pd.DataFrame:
    run = run_suite(prepare(parse_suite({**SUITE, **changes}), CPU), out, CPU, 1, lambda done, total: None)
    cells = run.cells()
    assert (cells["status"] == "done").all()
    return cells.set_index(["operating_point", "threat_model"])[NAMES].sort_index()


def test_cold_warm_resumed_and_reordered_runs_give_the_same_costs(tmp_path, monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")
    monkeypatch.setenv("LEAKGAUGE_CACHE", str(tmp_path / "cache"))
    cold = costs(tmp_path / "cold")
    warm = costs(tmp_path / "warm")
    pd.testing.assert_frame_equal(warm, cold, check_exact=True)
    reordered = costs(tmp_path / "reordered", threat_models=SUITE["threat_models"][::-1])
    pd.testing.assert_frame_equal(reordered, cold, check_exact=True)
    # As a run that was killed after the first threat model of each point.
    for part in sorted((tmp_path / "cold" / "parts").glob("*.json"))[::2]:
        part.unlink()
    pd.testing.assert_frame_equal(costs(tmp_path / "cold"), cold, check_exact=True)
    monkeypatch.setenv("LEAKGAUGE_CACHE", "off")
    pd.testing.assert_frame_equal(costs(tmp_path / "without"), cold, check_exact=True)
    edge = cold["gflops_edge"].groupby("operating_point").first()
    # A control runs no reference: beside what choosing by similarity costs, as many tokens cost as much.
    assert 0.9 * edge["merged"] < edge["at_random"] < edge["merged"]
    assert 0.9 * edge["merged"] < edge["dropped"] < edge["merged"]


def toy_pipeline(**options) -> SplitPipeline:
    return SplitPipeline(Toy().victim(), CPU, cut=1, reduction=MATCHED, **options)


def toy_images(count: int):
    return Toy().split("evaluation").select(range(count))


def pixels():
    return toy_pipeline, toy_images(2), None


def lost_packets():
    return lambda: toy_pipeline(channel={"name": "erasure", "loss": 0.2}), toy_images(2), None


def questions():
    scenes = ScenesVqa()
    asked = scenes.split("search").select(range(3))
    return lambda: VqaPipeline(scenes.victim(), CPU, reduction=MATCHED), asked, scenes.questions(asked)


@pytest.mark.parametrize("sent", [pixels, lost_packets, questions])
def test_flops_do_not_depend_on_what_the_defense_has_run_before(sent):
    build, images, asked = sent()
    used = build()
    used.prepare(images, RNG)
    encoded = transmit_all(used, images, RNG, 4)
    received = used.send(encoded, RNG.child("channel"))
    output = respond_all(used, received, 4, asked)
    anew = build()
    anew.prepare(images, RNG)
    found = [measure_flops(one, images, received, RNG, asked, output) for one in (used, anew, anew)]
    for other in found[1:]:
        assert torch.equal(other.edge, found[0].edge)
        assert torch.equal(other.total, found[0].total)
    assert bool((found[0].edge > 0).all())


def test_latency_is_taken_on_the_same_path_whatever_ran_before(monkeypatch):
    """The clock of this test counts the blocks that were run."""
    ran: list[int] = []
    run_blocks = Edge._run_blocks

    def counted(self, images, reduction, rng, after_block=None):
        ran.append(len(images))
        return run_blocks(self, images, reduction, rng, after_block)

    monkeypatch.setattr(Edge, "_run_blocks", counted)
    monkeypatch.setattr(compute.time, "perf_counter", lambda: 1e-3 * len(ran))
    images = toy_images(6)
    anew, used = toy_pipeline(), toy_pipeline()
    transmit_all(used, images, RNG, 4)
    found = [measure_latency_ms(one, images, RNG, CPU) for one in (anew, used)]
    assert np.allclose(found, 1.0)
