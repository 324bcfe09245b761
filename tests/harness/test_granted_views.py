"""What a view shows of the attacker's own images: observations, traces, unreduced tokens; and what it refuses."""

from __future__ import annotations

import pytest
import torch

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.defense import Defense, ablatable
from leakgauge.harness.errors import AccessDeniedError, PluginError
from leakgauge.harness.measurement.attacker_view import GrantedView, Preparation
from leakgauge.harness.suite.schema import Knows, ThreatModel
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch

CPU, PREPARE = torch.device("cpu"), Streams(0, ("evaluation", "prepare"))
MERGED = {"cut": 2, "reduction": {"name": "threshold", "thresholds": 0.9}, "codec": "float16"}
AWGN = {"name": "awgn", "snr_db": 5}
WHITE = ThreatModel(victim="white-box")
BLIND = ThreatModel(victim="white-box", knows=Knows(sizes=False, order=False, merge_map=False))


def view_of(victim, images, model=WHITE, **options) -> GrantedView:
    pipeline = SplitPipeline(victim, CPU, **{**MERGED, **options})
    preparation = Preparation(images, PREPARE) if pipeline.needs_calibration else None
    if preparation:
        pipeline.prepare(*preparation)
    return GrantedView(
        victim,
        pipeline,
        model,
        image_shape=(3, 64, 64),
        streams=Streams(0, ("attacker",)),
        batch_size=4,
        device=CPU,
        preparation=preparation,
    )


@pytest.fixture(scope="module")
def few(photographs):
    return photographs.select(range(6))


def tokens_of(observation, i):
    return observation.as_batch().select([i]).tokens


@pytest.mark.parametrize("channel", ["ideal", AWGN, {"name": "erasure", "loss": 0.3}], ids=["ideal", "awgn", "erasure"])
def test_a_trace_is_the_observation_with_nothing_withheld(victim, few, channel):
    plain = ThreatModel(victim="white-box", knows=Knows(sizes=False))
    view = view_of(victim, few, plain, channel=channel)
    seen, traced = view.observe(few, 3), view.trace(few, 3)
    assert torch.equal(seen.tokens, traced.tokens)
    assert torch.equal(seen.lengths, traced.lengths)
    assert seen.merge_map is None
    assert seen.sizes is None
    kept = int((traced.merge_map != DROPPED).sum())
    stood_in = int(traced.sizes.sum() - kept)
    assert stood_in >= len(few) * traced.prefix
    assert int(traced.sizes.max()) > 1
    if channel == "ideal":
        TokenBatch(traced.tokens, traced.lengths, traced.sizes, traced.merge_map, traced.prefix).check()


def test_a_trace_has_the_order_of_the_edge_and_the_tokens_of_the_observation(victim, few):
    view = view_of(victim, few, BLIND, channel=AWGN)
    seen, traced, open_view = view.observe(few, 1), view.trace(few, 1), view_of(victim, few, channel=AWGN)
    assert not seen.ordered
    assert seen.prefix == 0
    assert traced.ordered
    assert traced.prefix == 1
    assert torch.equal(traced.tokens, open_view.observe(few, 1).tokens)
    assert not torch.equal(seen.tokens, traced.tokens)
    for i in range(len(few)):
        one, other = tokens_of(seen, i), tokens_of(traced, i)
        assert torch.equal(one[one[:, 0].argsort()], other[other[:, 0].argsort()])


def test_sizes_of_a_trace_are_those_of_the_edge(victim, few):
    view = view_of(victim, few)
    batch, _ = view._defense.edge.run(few, Streams(0, ("attacker", "encode")))
    traced = view.trace(few)
    assert torch.equal(traced.sizes, batch.sizes)
    assert torch.equal(traced.merge_map, batch.merge_map)


def test_each_draw_is_a_new_one_and_the_same_again(victim, few):
    view = view_of(victim, few, channel=AWGN)
    first, second = view.trace(few, 0), view.trace(few, 1)
    assert not torch.equal(first.tokens, second.tokens)
    assert torch.equal(view.observe(few, 1).tokens, second.tokens)
    assert torch.equal(view.observe(few, 0).tokens, first.tokens)


def test_tokens_are_computed_once(victim, few, monkeypatch):
    view, calls = view_of(victim, few, channel=AWGN), []
    encode = SplitPipeline.encode
    monkeypatch.setattr(SplitPipeline, "encode", lambda self, *a: (calls.append(self), encode(self, *a))[1])
    for draw in range(3):
        view.observe(few, draw)
        view.trace(few, draw)
        view.unreduced(few, draw)
    # Two batches of at most four, by the operating point and by its unreduced sibling.
    assert len(calls) == 4
    assert len(set(map(id, calls))) == 2


def test_unreduced_is_the_pipeline_without_reduction_and_perturbation(victim, few):
    view = view_of(victim, few, BLIND, perturb=["shuffle", {"name": "gaussian", "strength": 0.5}])
    seen = view.unreduced(few)
    plain = SplitPipeline(victim, CPU, cut=2, codec="float16").encode(few, Streams(0)).decoded
    assert torch.equal(seen.tokens, plain.tokens)
    assert seen.lengths.tolist() == [65] * len(few)
    assert seen.merge_map.tolist() == [list(range(1, 65))] * len(few)
    assert bool((seen.sizes == 1).all())
    assert seen.ordered


@pytest.mark.parametrize(
    "options", [{"codec": {"name": "pca", "rank": 8}}, {"channel": {"name": "erasure", "loss": 0.2}}]
)
def test_the_sibling_is_prepared_as_the_operating_point_was(victim, few, options):
    seen = view_of(victim, few, **options).unreduced(few)
    twin = SplitPipeline(victim, CPU, cut=2, **{"codec": "float16", **options})
    twin.prepare(few, PREPARE)
    streams = Streams(0, ("attacker", "unreduced"))
    sent = twin.send(twin.encode(few, streams.child("encode")), streams.child("channel", 0))
    assert torch.equal(seen.tokens, sent.received.tokens)


def test_the_sibling_is_prepared_once_and_only_when_asked_for(victim, few, monkeypatch):
    prepared = []
    prepare = SplitPipeline.prepare
    monkeypatch.setattr(SplitPipeline, "prepare", lambda self, *a: (prepared.append(self), prepare(self, *a)))
    view = view_of(victim, few, codec={"name": "pca", "rank": 8})
    view.trace(few)
    assert len(prepared) == 1
    view.unreduced(few, 0)
    view.unreduced(few.select([0]), 1)
    assert len(prepared) == 2


@pytest.mark.parametrize("method", ["trace", "unreduced"])
@pytest.mark.parametrize("victim_access", ["none", "query"])
def test_both_need_a_white_box(victim, few, method, victim_access):
    view = view_of(victim, few, ThreatModel(victim=victim_access))
    with pytest.raises(AccessDeniedError, match="which its threat model does not grant"):
        getattr(view, method)(few)


def test_a_branch_keeps_what_it_adds_to_itself(victim, few):
    view = view_of(victim, few)
    seen, others = view.observe(few), few.select([3, 1])
    branch = view.branch()
    assert branch.observe(few) is seen
    branch.observe(others)
    branch.unreduced(others)
    assert others.digest() not in view._lines["own"]._encoded
    assert not [key for key in view._handed if others.digest() in key]
    assert "unreduced" not in view._lines
    assert torch.equal(view.observe(others).tokens, branch.observe(others).tokens)


class Bare(Defense):
    name = "bare"

    def encode(self, images, rng):
        raise NotImplementedError

    def send(self, encoded, rng, channel=None):
        raise NotImplementedError

    def respond(self, transmission, questions=None):
        raise NotImplementedError


class Fitted(Bare):
    def prepare(self, calibration, rng):
        pass


def test_a_defense_need_not_offer_unreduced_tokens():
    with pytest.raises(PluginError, match="'bare' cannot send unreduced tokens"):
        ablatable(Bare())


def test_calibration_is_needed_where_prepare_is_overridden(victim):
    assert not Bare().needs_calibration
    assert Fitted().needs_calibration
    assert not SplitPipeline(victim, CPU, codec="float16").needs_calibration
    assert not SplitPipeline(victim, CPU, channel=AWGN).needs_calibration
    assert SplitPipeline(victim, CPU, codec={"name": "pca", "rank": 8}).needs_calibration
    assert SplitPipeline(victim, CPU, codec={"name": "jscc", "uses_per_token": 4, "steps": 0}).needs_calibration
    assert SplitPipeline(victim, CPU, channel={"name": "erasure", "loss": 0.1}).needs_calibration


def test_a_sibling_that_needs_what_the_operating_point_did_not_is_refused(victim, few, monkeypatch):
    view = view_of(victim, few)
    monkeypatch.setattr(SplitPipeline, "unreduced", lambda self: Fitted())
    with pytest.raises(PluginError, match="the unreduced sibling needs calibration images"):
        view.unreduced(few)


@pytest.mark.parametrize("look", ["observe", "trace", "unreduced"])
def test_an_eavesdropper_trains_on_what_its_own_channel_delivers(victim, few, look):
    def eavesdropper(snr_db):
        channel = {"name": "awgn", "snr_db": snr_db}
        return ThreatModel(observer="eavesdropper", channel=channel, victim="white-box")

    two = few.select(range(2))
    clear = SplitPipeline(victim, CPU, **MERGED).encode(two, Streams(0, ("attacker", "encode"))).decoded.tokens
    if look == "unreduced":
        clear = SplitPipeline(victim, CPU, cut=2, codec="float16").encode(two, Streams(0)).decoded.tokens
    errors = []
    for own in (40, -10):
        view = view_of(victim, few, eavesdropper(own), channel={"name": "awgn", "snr_db": 15})
        errors.append(float((getattr(view, look)(two, 1).tokens - clear).square().mean()))
    # 50 dB between the two channels of its own; the server's is the same.
    assert errors[1] / errors[0] == pytest.approx(1e5, rel=0.2)
