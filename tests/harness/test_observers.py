"""Observers: the server and eavesdroppers with a channel of their own, and what the link costs an image."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from toy_task import install, register

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.measurement.attacker_view import GrantedView, eavesdropping_channel
from leakgauge.harness.measurement.exposure import measure_exposure
from leakgauge.harness.measurement.transmitting import link_costs
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.suite.planning import by_exposure
from leakgauge.harness.suite.schema import ThreatModel, parse_suite
from leakgauge.harness.values.columns import TIME_COLUMNS
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
AUXILIARY = {"n": 48}


def spy(label, victim="none", **channel):
    return {"name": label, "observer": "eavesdropper", "channel": channel, "victim": victim, "auxiliary": AUXILIARY}


SUITE = {
    "name": "observers",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1, "codec": "float16"},
    "operating_points": [{"name": "undefended"}],
    "channels": [{"label": "air", "name": "awgn", "snr_db": 10}, {"label": "net", "name": "erasure", "loss": 0.3}],
    "threat_models": [
        {"name": "server", "auxiliary": AUXILIARY},
        spy("near", "query", name="awgn", snr_db=20),
        spy("far", name="awgn", snr_db=-10),
        spy("tapped", name="erasure", loss=0.7),
    ],
    "cells": [
        {"channels": ["air"], "threat_models": ["server", "near", "far"]},
        {"channels": ["net"], "threat_models": ["server", "tapped"]},
    ],
    "attacks": ["floor_mean", "ridge"],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 20,
    "bandwidth_hz": 2e6,
}


def quiet(done, total):
    pass


@pytest.fixture(scope="module", autouse=True)
def _toy(tmp_path_factory):
    """The task of tiny images; workers search for it where this process does."""
    plugins = tmp_path_factory.mktemp("plugins")
    install(plugins)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(plugins)
        register(patch, tasks_toy="toy_task:Toy")
        yield


@pytest.fixture(scope="module")
def plan():
    return prepare(parse_suite(SUITE), CPU)


@pytest.fixture(scope="module")
def run(plan, tmp_path_factory):
    return run_suite(plan, tmp_path_factory.mktemp("runs") / "one", CPU, 1, quiet)


def timeless(folder) -> pd.DataFrame:
    return folder.cells().drop(columns=list(TIME_COLUMNS))


def test_any_number_of_workers_gives_the_same_rows(plan, run, tmp_path):
    other = run_suite(plan, tmp_path / "two", CPU, 2, quiet)
    pd.testing.assert_frame_equal(timeless(run), timeless(other), check_exact=True)
    pd.testing.assert_frame_equal(run.images(), other.images(), check_exact=True)


def test_an_eavesdropper_changes_neither_quality_nor_costs(run):
    images = run.images()
    columns = ["quality", "payload_bytes", "channel_uses", "lost_tokens", "gflops_total"]
    for _, rows in images.groupby(["channel", "image"]):
        assert rows["threat_model"].nunique() > 1
        assert (rows[columns].nunique() == 1).all()


def test_ridge_is_worse_off_at_lower_snr(run):
    cells = run.cells()
    assert (cells["status"] == "done").all()
    ridge = cells[cells["attack"] == "ridge"].set_index(["channel", "threat_model"])["psnr_db"]
    assert ridge["air", "near"] > ridge["air", "server"] > ridge["air", "far"] + 0.5
    assert ridge["net", "server"] > ridge["net", "tapped"] + 0.5


def test_costs_of_the_link_follow_from_one_another(run):
    for frame in (run.images(), run.cells()):
        assert frame["air_time_ms"].tolist() == pytest.approx((frame["channel_uses"] / 2e6 * 1e3).tolist())
    images = run.images()
    efficiency = 8 * images["payload_bytes"] / images["channel_uses"]
    assert images["spectral_efficiency_bits"].tolist() == pytest.approx(efficiency.tolist())
    assert (images["side_bytes"] > 0).all()
    assert (images["side_bytes"] < 0.2 * images["payload_bytes"]).all()
    assert (images.loc[images["channel"] == "air", "lost_tokens"] == 0).all()
    lost = images.loc[images["channel"] == "net", "lost_tokens"]
    assert 0.1 * 17 < lost.mean() < 0.5 * 17


def test_no_channel_use_leaves_the_efficiency_unscored(victim, photographs):
    pipeline = SplitPipeline(victim, CPU, cut=1)
    encoded = pipeline.encode(photographs.select([0, 1]), Streams(0))
    costs = link_costs(Transmission(encoded, encoded.decoded, torch.tensor([0, 500]), None), 1e6)
    assert costs["spectral_efficiency_bits"][0].isnan()
    assert costs["spectral_efficiency_bits"][1] == 8 * int(encoded.payload_bytes[1]) / 500
    assert costs["air_time_ms"].tolist() == [0, 0.5]
    assert costs["lost_tokens"].tolist() == [0, 0]


def test_the_server_s_answers_need_a_grant(plan):
    exposures = {
        (group[0].exposure.channel.label, group[0].exposure.threat_model.name): group[0].exposure
        for group in by_exposure(plan.cells)
    }
    seen = {name: measure_exposure(plan.context, exposures["air", name]) for name in ("server", "near", "far")}
    assert seen["far"].observation.output is None
    # What is granted is the server's answer, not what an eavesdropper would make of its own tokens.
    assert torch.equal(seen["near"].observation.output, seen["server"].observation.output)
    tokens = [one.observation.tokens for one in seen.values()]
    assert not torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[1], tokens[2])
    noise = [float(one.observation.noise_std.mean()) for one in seen.values()]
    assert noise[1] < noise[0] < noise[2]


def view_of(pipeline, model):
    streams = Streams(0, ("attacker",))
    return GrantedView(
        pipeline._victim, pipeline, model, image_shape=(3, 64, 64), streams=streams, batch_size=8, device=CPU
    )


def model_of(**channel):
    return ThreatModel(observer="eavesdropper", channel=channel)


def test_a_view_is_noisy_where_the_observing_channel_is(victim):
    clear = SplitPipeline(victim, CPU, cut=1)
    noisy = SplitPipeline(victim, CPU, cut=1, channel={"name": "awgn", "snr_db": 0})
    lossy = SplitPipeline(victim, CPU, cut=1, channel={"name": "erasure", "loss": 0.5})
    assert not view_of(clear, ThreatModel()).noisy
    assert view_of(noisy, ThreatModel()).noisy
    assert view_of(lossy, ThreatModel()).noisy
    assert view_of(clear, model_of(name="awgn", snr_db=0)).noisy
    assert not view_of(noisy, model_of(name="ideal")).noisy


def test_an_eavesdropper_s_noise_is_its_own(victim, photographs):
    pipeline = SplitPipeline(victim, CPU, cut=1, channel={"name": "awgn", "snr_db": 5})
    few, same = photographs.select([0, 1, 2]), model_of(name="awgn", snr_db=5)
    heard = [view_of(pipeline, model).observe(few, 1).tokens for model in (ThreatModel(), same, same)]
    assert not torch.equal(heard[0], heard[1])
    assert torch.equal(heard[1], heard[2])


@pytest.mark.parametrize(
    ("server", "own", "names"),
    [
        (
            {"name": "erasure", "loss": 0.1},
            {"name": "awgn", "snr_db": 0},
            ["'awgn' carries tokens", "'erasure' carries"],
        ),
        (
            {"name": "awgn", "snr_db": 0},
            {"name": "erasure", "loss": 0.1},
            ["'erasure' carries packets", "'awgn' carries"],
        ),
    ],
)
def test_both_channels_carry_the_same(victim, server, own, names):
    pipeline = SplitPipeline(victim, CPU, cut=1, channel=server)
    with pytest.raises(ConfigError) as caught:
        eavesdropping_channel(model_of(**own), pipeline)
    assert "\n" not in str(caught.value)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"cells": [{"channels": ["net"], "threat_models": ["far"]}]},
            "'awgn' carries tokens, .*'erasure' carries packets",
        ),
        ({"threat_models": [spy("far", name="awng", snr_db=1)], "cells": [{}]}, "did you mean 'awgn'"),
        ({"threat_models": [spy("far", name="awgn", snr=1)], "cells": [{}]}, "threat model 'far'.*'snr'.*'snr_db'"),
    ],
)
def test_mistakes_show_before_anything_runs(changes, words):
    with pytest.raises(ConfigError, match=words):
        prepare(parse_suite({**SUITE, "evaluation_images": 2, **changes}), CPU)
