"""One pass of edge and server measures what a run of the same operating point writes."""

from __future__ import annotations

import pytest
import torch
from search_spaces import CPU, prepared, small

from leakgauge.harness.contracts.defense import tunable
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.measurement.exposure import measure_exposure
from leakgauge.harness.scoring.judging import JudgedGallery
from leakgauge.harness.search.sampling.schedule import Candidate
from leakgauge.harness.search.trials.evaluation import Evaluator
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import PluginConfig, Suite

IDEAL = PluginConfig(name="ideal")


def candidate(*shares: float, codec: dict | None = None) -> Candidate:
    return Candidate(shares, None if codec is None else PluginConfig.model_validate(codec), IDEAL)


def as_the_runner_does(evaluator: Evaluator, options: dict, channel: PluginConfig):
    """Measures an operating point on the search images as a suite would on its evaluation images."""
    space = evaluator.space
    suite = Suite.model_validate(
        {
            "name": "s",
            "task": space.task,
            "defense": space.defense,
            "operating_points": [{"name": "p", **options}],
            "channels": [{"label": "c", "plugin": channel}],
            "attacks": ["floor_mean"],
        }
    )
    own, images = evaluator._context, evaluator.images
    unmodified = torch.zeros(len(images))
    context = RunContext(
        **vars(own),
        suite=suite,
        evaluation=images,
        output=unmodified,
        quality_base=unmodified,
        gallery=torch.zeros(1),
        top1=None,
        judging=JudgedGallery.of(suite, own.victim, images.pixels, CPU),
    )
    return measure_exposure(context, plan(suite, "")[0].exposure).point.costs


POINTS = [
    (candidate(0.3, 0.6), IDEAL),
    (candidate(0.0, 0.5), IDEAL),
    (candidate(1.0), IDEAL),
    (candidate(0.5, 0.5, codec={"name": "uniform", "bits": 6}), IDEAL),
    (candidate(0.5, 0.5, codec={"name": "pca", "rank": 16}), IDEAL),
    (candidate(0.4, 0.2), PluginConfig(name="awgn", snr_db=5)),
]


@pytest.mark.parametrize(("point", "channel"), POINTS)
def test_a_trial_equals_the_runner(ready, point, channel):
    options = ready.evaluator.options(point)
    found = ready.evaluator.measure(options, channel)
    expected = as_the_runner_does(ready.evaluator, options, channel)
    for name in ("quality", "gflops_edge", "gflops_total", "tokens", "payload_bytes", "channel_uses"):
        assert found[name] == float(expected[name].double().mean()), name


@pytest.mark.parametrize(
    "reduction",
    [
        "none",
        {"name": "tome", "r": 3},
        {"name": "proportion", "proportions": 0.4},
        {"name": "threshold", "thresholds": 0.9, "split": "all_pairs"},
        {"name": "random_merge", "match": {"name": "proportion", "proportions": 0.4}},
        {"name": "top_k", "keep": 0.5, "layers": [1]},
    ],
)
def test_baselines_equal_the_runner_too(ready, reduction):
    found = ready.evaluator.measure({"reduction": reduction}, IDEAL)
    expected = as_the_runner_does(ready.evaluator, {"reduction": reduction}, IDEAL)
    for name in ("quality", "gflops_edge", "gflops_total", "tokens", "payload_bytes"):
        assert found[name] == float(expected[name].double().mean()), name


def merged_on_calibration_images(evaluator: Evaluator, options: dict) -> list[int]:
    """Returns how many tokens go in each block, over all calibration images."""
    defense = tunable(evaluator._root, "split_pipeline").tuned(**options)
    _, counts = defense.edge.run(evaluator.calibration, None)
    before = torch.cat([torch.full((len(counts), 1), 65), counts[:, :-1]], dim=1)
    return (before - counts).sum(dim=0).tolist()


def test_stored_thresholds_merge_the_share_asked_for(ready):
    evaluator = ready.evaluator
    options = evaluator.options(candidate(0.25, 0.5))
    thresholds = options["reduction"]["thresholds"]
    assert len(thresholds) == 2
    first, second = merged_on_calibration_images(evaluator, options)
    matches = 32 * len(evaluator.calibration)
    assert first == pytest.approx(0.25 * matches, abs=1)
    # 64 patches less the first block's, half of them (rounded up an image) matched: half of those merge.
    assert second == pytest.approx(0.5 * (2 * matches - first) / 2, abs=len(evaluator.calibration))


def test_a_larger_share_never_has_a_larger_threshold(ready):
    shares = [0.0, 0.1, 0.4, 0.7, 1.0]
    first = [ready.evaluator.options(candidate(share, 0.3))["reduction"]["thresholds"][0] for share in shares]
    assert first == sorted(first, reverse=True)
    assert first[0] == 1.0


def test_proportions_are_searched_as_they_are():
    evaluator = prepared(family="proportion").evaluator
    options = evaluator.options(candidate(0.25, 0.5))
    assert options["reduction"] == {"name": "proportion", "proportions": [0.25, 0.5]}


def test_leakage_is_measured_above_the_floors(ready):
    proxy = {"attack": "ridge", "floors": ["floor_mean"], "auxiliary": 32}
    names = ["quality", "payload_bytes", "leakage"]
    above = prepared(objectives=names, proxy=proxy)
    plain = prepared(objectives=names, proxy={**proxy, "floors": []})
    merged = above.evaluator.options(candidate(0.9, 0.9))
    leakage = [above.evaluator.measure(options, IDEAL)["leakage"] for options in ({"reduction": "none"}, merged)]
    assert leakage[0] > leakage[1]
    # The mean image of the attacker is about 11 dB from a photograph.
    assert 5 < plain.undefended["leakage"] - above.undefended["leakage"] < 20


def test_trials_never_touch_the_evaluation_split(monkeypatch):
    asked: list[str] = []
    from leakgauge.benchmarks.tasks.photo_crops import photos

    split = photos.Photos.split
    monkeypatch.setattr(photos.Photos, "split", lambda self, name: asked.append(name) or split(self, name))
    proxy = {"attack": "ridge", "auxiliary": 16}
    ready = prepared(objectives=["quality", "leakage"], proxy=proxy, reference={"quality": 0.2})
    ready.evaluator.measure(ready.evaluator.options(candidate(0.2, 0.2)), IDEAL)
    assert set(asked) == {"search", "calibration", "attacker"}


def test_what_was_measured_is_not_measured_again(tmp_path):
    def measure() -> tuple[dict, int]:
        memo = Memo(tmp_path)
        evaluator = Evaluator(small(), CPU, memo)
        return evaluator.measure(evaluator.options(candidate(0.5, 0.5)), IDEAL), memo.misses

    first, again = measure(), measure()
    assert (first[1], again[1]) == (2, 0)
    assert again[0] == first[0]


def test_a_defense_that_cannot_be_searched_is_named():
    with pytest.raises(PluginError, match="cannot be searched"):
        tunable(object(), "theirs")


def test_a_proxy_that_rebuilds_nothing_is_refused():
    with pytest.raises(ConfigError, match="rebuilds no images"):
        prepared(objectives=["leakage"], reference={}, proxy={"attack": "attribute_probe"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baselines": [{"name": "b", "reduction": {"name": "tome", "r": -1}}]}, "baselines: b.*: r = -1"),
        ({"baselines": [{"name": "b", "reducton": "none"}]}, "baselines: b.*'reducton'"),
        ({"choices": {"cut": [2, 9]}}, "choices.cut: 9: cut = 9"),
        ({"choices": {"codec": ["float61"]}}, "choices.codec: float61: unknown codec .float61"),
    ],
)
def test_bad_options_show_before_the_first_trial(changes, said):
    with pytest.raises(ConfigError, match=said):
        prepared(**changes)
