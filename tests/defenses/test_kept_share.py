"""Thresholds that a suite leaves to calibration, by a share of the matches or by the tokens to keep."""

from itertools import pairwise

import pytest
import torch
from tiny_models import HF_MODELS, PX, from_timm

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged.calibration import BISECTIONS, Calibrated, that_keeps
from leakgauge.defenses.reductions.threshold import NEVER
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.measurement.attacker_view import GrantedView, Preparation
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

CPU, RNG = torch.device("cpu"), Streams(0)
TINY = {
    "timm": lambda: from_timm("vit_tiny_patch16_224"),
    "registers": lambda: from_timm("vit_tiny_patch16_224", reg_tokens=2),
    "dinov2": HF_MODELS["Dinov2ForImageClassification"],
    "siglip": HF_MODELS["SiglipForImageClassification"],
}
KEEP = {"name": "threshold", "keep": 0.5}


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Victim(TINY[request.param]().eval(), (0.5,) * 3, (0.5,) * 3, "none", request.param)


@pytest.fixture(scope="module")
def small(photographs):
    """The photographs at the tiny victims' size."""
    pixels = torch.nn.functional.interpolate(photographs.images(), size=(PX, PX))
    return ImageSet.from_pixels((pixels * 255).round().to(torch.uint8))


def prepared(victim, images, reduction, **options):
    pipeline = SplitPipeline(victim, CPU, reduction=reduction, **options)
    pipeline.prepare(images, RNG)
    return pipeline


def counts_of(pipeline, images):
    """Patches before each block and after the last, of all images together."""
    counts = pipeline.edge.run(images, RNG)[1] - pipeline._split.backbone.prefix
    patches = pipeline.grid[0] * pipeline.grid[1]
    return torch.cat([torch.full((len(images), 1), patches), counts], dim=1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, [0.3, 0.0, 0.2]])
def test_each_block_merges_its_share_to_one_token(tiny, small, share):
    pipeline = prepared(tiny, small, {"name": "threshold", "share": share})
    shares = share if isinstance(share, list) else [share] * 3
    patches = counts_of(pipeline, small)
    for block, wanted in enumerate(shares):
        before, merged = patches[:, block], patches[:, block] - patches[:, block + 1]
        matches = (before + 1) // 2
        # The cap of half the tokens holds one match back in an image with an odd number, all of which would merge.
        held = int(((before % 2 == 1) & (merged == before // 2)).sum())
        assert 0 <= wanted * int(matches.sum()) - int(merged.sum()) < 1 + held + 1e-6
    found = pipeline.resolved()
    assert found["shares"] == shares
    assert [tau == NEVER for tau in found["thresholds"]] == [one == 0 for one in shares]
    assert found["images"] == len(small)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_so_many_tokens_are_sent_as_are_to_be_kept(tiny, small, keep):
    pipeline = prepared(tiny, small, {"name": "threshold", "keep": keep})
    whole = pipeline._split.backbone.prefix + 16
    sent = pipeline.transmit(small, RNG).encoded.decoded.lengths.double()
    assert float(sent.mean()) == pytest.approx(keep * whole, abs=0.1 + 1e-9)
    assert pipeline.resolved()["kept"] == pytest.approx(float(sent.mean()) / whole)
    assert len(set(pipeline.resolved()["shares"])) == 1, "one share for all blocks"


def test_more_to_keep_keeps_more(victim, photographs):
    found = [
        prepared(victim, photographs, {"name": "threshold", "keep": keep}, cut=3).resolved()
        for keep in (0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    kept = [one["kept"] for one in found]
    assert kept == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=0.1 / 65)
    for less, more in pairwise(found):
        assert less["shares"][0] > more["shares"][0]
        assert less["thresholds"][0] < more["thresholds"][0]
    assert found[-1]["thresholds"] == [NEVER] * 3


def test_the_thresholds_can_be_stated_instead(victim, photographs):
    wished = prepared(victim, photographs, KEEP, cut=3)
    stated = {"name": "threshold", "thresholds": wished.resolved()["thresholds"]}
    own, other = (
        one.transmit(photographs, RNG).encoded for one in (wished, SplitPipeline(victim, CPU, cut=3, reduction=stated))
    )
    assert own.packets == other.packets
    assert prepared(victim, photographs, KEEP, cut=3).resolved() == wished.resolved()


def test_the_matching_of_the_point_is_that_of_its_calibration(victim, photographs):
    for matching in ({"similarity": "tokens"}, {"split": "all_pairs"}, {"order": "tome"}, {"cap": 0.3}):
        pipeline = prepared(victim, photographs, KEEP | matching, cut=3)
        sent = pipeline.transmit(photographs, RNG).encoded.decoded.lengths.double()
        assert float(sent.mean()) == pytest.approx(0.5 * 65, abs=0.1 + 1e-9), matching


def test_a_control_sends_as_many_tokens_of_each_image(victim, photographs):
    control = {"name": "random_merge", "match": KEEP}
    sent = [prepared(victim, photographs, one, cut=3).transmit(photographs, RNG).encoded for one in (KEEP, control)]
    assert torch.equal(sent[0].tokens_per_layer, sent[1].tokens_per_layer)
    assert sent[0].packets != sent[1].packets


def test_who_is_prepared_again_is_calibrated_again(victim, photographs):
    first, second = photographs.select(range(16)), photographs.select(range(16, 32))
    for reduction in (KEEP, {"name": "random_merge", "match": KEEP}):
        pipeline = prepared(victim, first, reduction, cut=3)
        before = pipeline.transmit(second, RNG).encoded
        pipeline.prepare(second, RNG)
        anew = prepared(victim, second, reduction, cut=3)
        assert pipeline.resolved() == anew.resolved()
        after = pipeline.transmit(second, RNG).encoded
        assert after.packets == anew.transmit(second, RNG).encoded.packets
        assert not torch.equal(after.tokens_per_layer, before.tokens_per_layer)


def test_unprepared_it_says_what_to_call(victim, photographs):
    for reduction in (KEEP, {"name": "threshold", "share": 0.2}, {"name": "random_merge", "match": KEEP}):
        pipeline = SplitPipeline(victim, CPU, cut=3, reduction=reduction)
        assert pipeline.needs_calibration
        assert pipeline.resolved() == {}
        with pytest.raises(PluginError, match=r"not calibrated yet.*call prepare\(\)"):
            pipeline.encode(photographs.select([0]), RNG)


def test_siblings(victim, photographs):
    pipeline = prepared(victim, photographs, KEEP, cut=3)
    assert not pipeline.unreduced().needs_calibration
    assert set(pipeline.unreduced().transmit(photographs, RNG).encoded.decoded.lengths.tolist()) == {65}
    other = pipeline.tuned(cut=2)
    with pytest.raises(PluginError, match="not calibrated"):
        other.encode(photographs, RNG)
    other.prepare(photographs, RNG)
    assert len(other.resolved()["thresholds"]) == 2
    assert not pipeline.tuned(reduction={"name": "threshold", "thresholds": 0.9}).needs_calibration


def test_a_white_box_attacker_runs_the_unreduced_edge(victim, photographs):
    pipeline = prepared(victim, photographs, KEEP, cut=3)
    grants = ThreatModel(name="white", victim="white-box")
    view = GrantedView(
        victim,
        pipeline,
        grants,
        image_shape=(3, 64, 64),
        streams=RNG,
        batch_size=8,
        device=CPU,
        preparation=Preparation(photographs, RNG),
    )
    few = photographs.select(range(3))
    assert view.unreduced(few).lengths.tolist() == [65] * 3
    assert float(view.observe(photographs).lengths.double().mean()) == pytest.approx(0.5 * 65, abs=0.1 + 1e-9)


def test_codecs_are_fitted_to_the_tokens_that_are_kept(victim, photographs):
    codec = {"name": "pca", "rank": 8}
    wished = prepared(victim, photographs, KEEP, cut=3, codec=codec)
    stated = {"name": "threshold", "thresholds": wished.resolved()["thresholds"]}
    same = prepared(victim, photographs, stated, cut=3, codec=codec)
    assert wished.transmit(photographs, RNG).encoded.packets == same.transmit(photographs, RNG).encoded.packets


def test_tokens_kept_of_a_few_images_leave_the_pipeline_as_it_was(victim, photographs):
    few = photographs.select(range(8))
    pipeline = SplitPipeline(victim, CPU, cut=3, reduction=KEEP)
    assert pipeline.tokens_kept(few, RNG) == pytest.approx(0.5, abs=0.1 / 65)
    assert pipeline.resolved() == {}
    plain = SplitPipeline(victim, CPU, cut=3, reduction={"name": "threshold", "thresholds": 0.9})
    lengths = plain.transmit(few, RNG).encoded.decoded.lengths.double()
    assert plain.tokens_kept(few, RNG) == pytest.approx(float(lengths.mean()) / 65)


def step(share):
    """Keeps less in steps, as a few images do."""
    return Calibrated((0.9,), (share,), 1 - 0.7 * int(share * 10) / 10, 1)


def test_the_bisection_ends_next_to_what_cannot_be_met():
    asked = []

    def at(share):
        asked.append(share)
        return step(share)

    assert that_keeps(0.6, 0.0, at).kept == pytest.approx(0.58), "0.58 is nearer to 0.6 than 0.65"
    assert len(asked) == BISECTIONS + 1
    assert that_keeps(0.65, 1e-9, at).kept == pytest.approx(0.65)
    assert that_keeps(0.3, 1e-9, at).shares == (1.0,)
    assert that_keeps(1.0, 1e-9, at).shares == (0.0,)


def test_fewer_than_can_be_reached_are_refused(victim, photographs):
    with pytest.raises(ConfigError, match=r"keep = 0.1 cannot be reached: 0\.5\d\d of the tokens.*keep more"):
        prepared(victim, photographs, {"name": "threshold", "keep": 0.1}, cut=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "none of thresholds, share and keep is given"),
        ({"thresholds": 0.9, "share": 0.2}, "thresholds and share of thresholds, share and keep"),
        ({"share": 0.2, "keep": 0.4}, "share and keep of thresholds, share and keep"),
        ({"share": 1.1}, "share = 1.1"),
        ({"share": []}, "share"),
        ({"keep": 0}, "keep = 0"),
        ({"keep": [0.5, 0.4]}, "keep"),
        ({"keep": "0.4"}, "keep = '0.4'"),
    ],
)
def test_what_is_no_wish_is_refused(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        create("reductions", "threshold", options)
    assert len(str(caught.value)) <= 200


def test_shares_are_one_for_each_block():
    with pytest.raises(ConfigError, match="2 share for 3 edge blocks"):
        create("reductions", "threshold", {"share": [0.2, 0.1]}).check(3)
