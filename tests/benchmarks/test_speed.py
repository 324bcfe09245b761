"""The speed benchmark measures what it says: equal results, honest ratios, files written. No time is asserted."""

import json

import pytest
import timm
import torch

from leakgauge.benchmarks.studies.speed.__main__ import main
from leakgauge.benchmarks.studies.speed.cases import Setup, best_micro_batch, victim_of
from leakgauge.benchmarks.studies.speed.padded import padded_forward
from leakgauge.benchmarks.studies.speed.photographs import photographs
from leakgauge.benchmarks.studies.speed.timing import Ratio, gflops_of, paired_seconds
from leakgauge.benchmarks.studies.speed.training import TrainingRow, steps_per_second, table
from leakgauge.harness.errors import DataError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=96, depth=4, init_values=1.0).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(3)
    victim = victim_of(model, "tiny", CPU)
    images = photographs(12, 96, None)
    plain = create("defenses", "split_pipeline", {"victim": victim, "device": CPU})
    # Not on the images that are compared: there a similarity can be the threshold itself, and rounding decides.
    return victim, images.select(range(6)), plain.calibrated_thresholds(images.select(range(6, 12)), 0.3)


@pytest.mark.parametrize("compact", [False, True])
def test_the_padded_baseline_computes_what_the_packed_forward_computes(setting, compact):
    victim, images, thresholds = setting
    reduction = {"name": "threshold", "thresholds": thresholds}
    packed = create("defenses", "split_pipeline", {"victim": victim, "device": CPU, "reduction": reduction})
    found = padded_forward(victim.model, victim.normalise(images.images()), thresholds, compact=compact)
    assert torch.allclose(found, packed.server.logits(packed.edge.run(images, Streams(0))[0]), atol=1e-5)
    lengths = packed.transmit(images, Streams(0)).received.lengths
    assert len(set(lengths.tolist())) > 2, "the batch must be ragged to compare anything"


def test_photographs_are_the_same_every_time_and_differ_from_one_another(tmp_path):
    one, other = photographs(20, 64, None), photographs(20, 64, None)
    assert one.ids == other.ids
    assert len(set(one.ids)) == 20
    with pytest.raises(DataError, match="0 images, 3 needed"):
        photographs(3, 64, tmp_path)


def test_ratios_are_taken_within_repetitions():
    ratio = Ratio.of([2.0, 1.0, 4.0])
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.0, 4.0)


def test_every_run_is_timed_in_every_repetition_in_turning_order():
    order = []
    runs = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = paired_seconds(runs, CPU, 4, warm_up=0)
    assert [len(seconds[name]) for name in "abc"] == [4, 4, 4]
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"


def test_flops_are_twice_the_multiply_adds():
    a, b = torch.randn(10, 20), torch.randn(20, 30)
    assert gflops_of(lambda: a @ b, 4) == pytest.approx(2 * 10 * 20 * 30 / 4 / 1e9)


def test_the_best_micro_batch_is_one_of_the_candidates(setting):
    victim, images, _ = setting
    setup = Setup(victim, "tiny", CPU, 1, False)
    assert best_micro_batch(setup, images) in {2, 4}


@pytest.mark.slow
def test_the_benchmark_runs_and_writes_its_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("leakgauge.benchmarks.studies.speed.__main__.CALIBRATION_IMAGES", 4)
    main(
        out=tmp_path,
        model=["vit_tiny_patch16_224"],
        batch=[3],
        repetitions=1,
        share=[0.25],
        checkpoint=None,
        images=None,
        device="cpu",
        threads=None,
        cpu_time=True,
    )
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    by_name = {row["strategy"]: row for row in rows}
    assert by_name["packed, never"]["flop_ratio"] == pytest.approx(1, abs=1e-6)
    assert by_name["packed, 25% of matches"]["flop_ratio"] > by_name["padded, compacted"]["flop_ratio"] > 1
    assert by_name["packed, r = 8"]["tokens"] == [197 - 12 * 8] * 3
    assert 0 < by_name["packed, 25% of matches"]["match_share"] < 1
    for row in rows:
        assert row["efficiency"] == pytest.approx(row["speedup"][0] / row["flop_ratio"])
    assert "| vit_tiny_patch16_224 | 3 | packed, never |" in capsys.readouterr().out
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_steps_a_second_are_those_of_the_attacker(monkeypatch):
    counts = []

    class Stub:
        def __init__(self, steps):
            self.steps = steps

        def fit(self, view, auxiliary, rng):
            counts.append(self.steps)

    built = create
    monkeypatch.setattr(
        "leakgauge.benchmarks.studies.speed.training.create",
        lambda group, name, options, where="": (
            Stub(options["steps"]) if group == "attacks" else built(group, name, options, where=where)
        ),
    )
    monkeypatch.setattr(
        "leakgauge.benchmarks.studies.speed.training.seconds_of",
        lambda run, device, cpu_time: run() or 0.5 * counts[-1],
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    assert steps_per_second(8, images=4) == pytest.approx(2.0)


def test_every_setting_stands_in_the_table_and_the_choice_is_marked():
    rows = [TrainingRow("AVX2", "float32", 21.5, True), TrainingRow("AVX2", "bfloat16", 3.25, False)]
    assert table(rows).splitlines()[2:] == ["| AVX2 | float32 * | 21.50 |", "| AVX2 | bfloat16 | 3.25 |"]
