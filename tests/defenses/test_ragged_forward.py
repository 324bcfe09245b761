"""The ragged forward: attention by segments, gradients, number types, calibration."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.defenses.backbones.backbone import Projected
from leakgauge.defenses.backbones.timm_vit import TimmViT
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged import attention
from leakgauge.defenses.ragged.attention import attention_half, image_groups, segment_attention
from leakgauge.defenses.ragged.calibration import calibrate_thresholds, threshold_for_share
from leakgauge.defenses.ragged.forward import run_edge, run_server
from leakgauge.defenses.ragged.merging import apply_assignment
from leakgauge.defenses.reductions.none import NoReduction
from leakgauge.defenses.reductions.threshold import NEVER, ThresholdMerge
from leakgauge.harness.contracts.reduction import Assignment
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch, offsets_of

CPU = torch.device("cpu")
RNG = Streams(0)


def softmax_by_definition(inputs, lengths, sizes, scale):
    """Attention with each key repeated as often as its size says: what proportional attention must equal."""
    offsets = offsets_of(lengths).tolist()
    out = torch.empty_like(inputs.value)
    for start, end in pairwise(offsets):
        repeats = sizes[start:end]
        key = inputs.key[start:end].repeat_interleave(repeats, dim=0)
        value = inputs.value[start:end].repeat_interleave(repeats, dim=0)
        for row in range(start, end):
            for head in range(key.shape[1]):
                weight = ((key[:, head] @ inputs.query[row, head]) * scale).softmax(dim=0)
                out[row, head] = weight @ value[:, head]
    return out


@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_proportional_attention_counts_each_key_as_often_as_its_size(seed, lengths):
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    inputs = Projected(*(torch.randn(total, 2, 4, generator=generator, dtype=torch.float64) for _ in range(3)))
    sizes = torch.randint(1, 5, (total,), generator=generator)
    lengths = torch.tensor(lengths)
    found = segment_attention(inputs, lengths, sizes.double().log(), 0.5)
    assert torch.allclose(found, softmax_by_definition(inputs, lengths, sizes, 0.5), atol=1e-12)


def test_grouping_by_equal_length_as_on_a_gpu_agrees_with_one_call_an_image(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 3, 5, 7, 3])
    inputs = Projected(*(torch.randn(23, 2, 4, generator=generator) for _ in range(3)))
    log_sizes = torch.randint(1, 5, (23,), generator=generator).float().log()
    alone = segment_attention(inputs, lengths, log_sizes, 0.5)
    monkeypatch.setattr(attention, "CPU", "no such device")
    assert torch.allclose(segment_attention(inputs, lengths, log_sizes, 0.5), alone, atol=1e-6)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 1000))
@settings(max_examples=60, deadline=None)
def test_groups_of_images_cover_all_rows_in_order_and_keep_the_limit(lengths, limit):
    groups = image_groups(torch.tensor(lengths), limit)
    images = [i for part, _ in groups for i in range(part.start, part.stop)]
    rows = [(rows.start, rows.stop) for _, rows in groups]
    assert images == list(range(len(lengths)))
    assert rows[0][0] == 0
    assert rows[-1][1] == sum(lengths)
    assert all(a[1] == b[0] for a, b in pairwise(rows))
    for part, own in groups:
        assert own.stop - own.start == sum(lengths[part])
        assert own.stop - own.start <= limit or part.stop - part.start == 1


def test_groups_do_not_change_results(victim, photographs, monkeypatch):
    whole = SplitPipeline(victim, CPU, reduction={"name": "threshold", "thresholds": 0.9}).transmit(photographs, RNG)
    monkeypatch.setattr(attention, "CPU_BYTES", 16 * 192 * 100)
    parts = SplitPipeline(victim, CPU, reduction={"name": "threshold", "thresholds": 0.9}).transmit(photographs, RNG)
    assert torch.equal(whole.received.merge_map, parts.received.merge_map)
    assert torch.allclose(whole.received.tokens, parts.received.tokens, rtol=1e-5, atol=1e-5)


def test_merging_is_differentiable_and_its_gradient_is_right():
    tokens = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    sizes = torch.tensor([1, 2, 1, 3, 1, 1, 4])
    lengths = torch.tensor([4, 3])
    merge_map = torch.tensor([[1, 1, 2, 3, 3, 3, -1], [1, 2, 2, 2, 2, -1, -1]])
    assignment = Assignment(torch.tensor([0, 1, 1, 1, 2, -1, 3]), torch.tensor([2, 2]))

    def merged(values, rescale):
        batch = TokenBatch(values, lengths, sizes, merge_map, 1)
        return apply_assignment(batch, assignment._replace(rescale=rescale)).tokens

    assert torch.autograd.gradcheck(lambda x: merged(x, False), (tokens,))
    assert torch.autograd.gradcheck(lambda x: merged(x, True), (tokens,))


def test_mlerp_of_tokens_that_cancel_is_finite():
    batch = TokenBatch.from_uniform(torch.tensor([[[9.0], [400.0], [-400.0]]]), prefix=1)
    after = apply_assignment(batch, Assignment(torch.tensor([0, 1, 1]), torch.tensor([2]), rescale=True))
    assert after.tokens.flatten().tolist() == [9.0, 0.0]


def test_gradients_reach_the_pixels_through_merging(victim, photographs):
    double = replace(victim, model=copy.deepcopy(victim.model).double())
    backbone = TimmViT(double.model)
    images = photographs.select(range(4))

    def loss(pixels):
        normal = double.normalise(pixels)
        batch, counts = run_edge(
            backbone, backbone.embed(normal), images.ids, ThresholdMerge(0.85), RNG, cut=4, proportional=True
        )
        assert int(counts[:, -1].max()) < 65
        return run_server(backbone, batch, range(4, 6), proportional=True).square().sum()

    pixels = images.images().double().requires_grad_()
    loss(pixels).backward()
    gradient = pixels.grad
    assert float(gradient.abs().min(dim=1).values.amax(dim=(1, 2)).min()) > 0
    # A directional derivative by central differences; merging is piecewise smooth, and the step stays in the piece.
    direction = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-6
    with torch.no_grad():
        numeric = (loss(pixels + step * direction) - loss(pixels - step * direction)) / (2 * step)
    assert float(numeric) == pytest.approx(float((gradient * direction).sum()), rel=1e-3)


def test_bfloat16_stays_close_and_decides_in_float32(victim, photographs):
    options = {"cut": 3, "reduction": {"name": "threshold", "thresholds": 0.9}}
    full = SplitPipeline(victim, CPU, **options)
    half = SplitPipeline(victim, CPU, precision="bfloat16", **options)
    one, other = full.transmit(photographs, RNG), half.transmit(photographs, RNG)
    assert other.received.tokens.dtype == torch.float32
    other.received.check()
    assert float((one.received.lengths - other.received.lengths).abs().float().mean()) < 3
    agree = (full.respond(one).argmax(1) == half.respond(other).argmax(1)).float().mean()
    assert float(agree) > 0.8
    alone = half.transmit(photographs.select([5]), RNG).received
    assert torch.equal(alone.merge_map[0], other.received.merge_map[5]), "batch mates do not matter in bfloat16 either"


def test_keys_are_float32_whatever_the_model_computes_in(victim, photographs):
    backbone = TimmViT(victim.model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        batch = backbone.embed(victim.normalise(photographs.select(range(2)).images()))
        attended = attention_half(
            backbone, 0, batch, proportional=True, keys=True, features=frozenset({"attention", "significance"})
        )
    assert attended.keys.dtype == attended.attention.dtype == attended.significance.dtype == torch.float32
    assert torch.allclose(attended.keys.norm(dim=1), torch.ones(len(attended.keys)), atol=1e-6)


@pytest.mark.parametrize(("precision", "message"), [("float8", "float8"), ("float16", "GPU")])
def test_precisions_that_cannot_be_are_refused(victim, precision, message):
    with pytest.raises(ConfigError, match=message):
        create("defenses", "split_pipeline", {"victim": victim, "device": CPU, "precision": precision})


def test_class_attention_equals_the_softmax_of_the_class_query(victim, photographs):
    backbone = TimmViT(victim.model)
    with torch.no_grad():
        batch = backbone.embed(victim.normalise(photographs.select(range(3)).images()))
        attended = attention_half(
            backbone, 0, batch, proportional=True, features=frozenset({"attention", "significance"})
        )
        block = victim.model.blocks[0].attn
        normed = victim.model.blocks[0].norm1(batch.tokens.view(3, 65, -1))
        q, k, v = block.qkv(normed).view(3, 65, 3, block.num_heads, -1).permute(2, 0, 3, 1, 4)
        weight = (q[:, :, :1] @ k.transpose(2, 3) * block.scale).softmax(dim=-1)[:, :, 0]
    assert torch.allclose(attended.attention.view(3, 65), weight.mean(dim=1), atol=1e-6)
    assert torch.allclose(attended.attention.view(3, 65).sum(dim=1), torch.ones(3), atol=1e-5)
    expected = (weight * v.norm(dim=-1)).sum(dim=1)
    assert torch.allclose(attended.significance.view(3, 65), expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_calibration_gives_the_share_that_was_asked_for(victim, photographs, share):
    backbone = TimmViT(victim.model)
    images = victim.normalise(photographs.images())
    with torch.no_grad():
        batch = backbone.embed(images)
        thresholds = calibrate_thresholds(backbone, batch, [share] * 6)
        _, counts = run_edge(
            backbone, batch, photographs.ids, ThresholdMerge(thresholds), RNG, cut=6, proportional=True
        )
    patches = torch.cat([torch.full((32, 1), 64), counts - 1], dim=1)
    matches = (patches[:, :-1] + 1) // 2
    merged = patches[:, :-1] - patches[:, 1:]
    found = merged.sum(dim=0) / matches.sum(dim=0)
    if share == 0:
        assert thresholds == [NEVER] * 6
        assert int(merged.sum()) == 0
    else:
        # The cap of half the tokens keeps an odd A token; below it, shares are met to a rounding.
        assert bool((found <= share + 1e-6).all())
        assert bool((found[:3] > share - 0.05).all())


def test_threshold_for_share_on_ties_and_ends():
    similarity = torch.tensor([0.9, 0.5, 0.5, 0.1])
    assert threshold_for_share(similarity, 0.25) == pytest.approx(0.7)
    assert threshold_for_share(similarity, 0.5) == pytest.approx(0.7), "ties merge together or not at all"
    assert threshold_for_share(similarity, 0.75) == pytest.approx(0.3)
    assert threshold_for_share(similarity, 1.0) == -1.0
    assert threshold_for_share(similarity, 0.2) == NEVER
    assert threshold_for_share(similarity.new_full((4,), 0.5), 0.5) == NEVER


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_a_calibrated_threshold_lies_between_two_observed_similarities(share):
    dice = torch.Generator().manual_seed(1)
    similarity = torch.rand(500, generator=dice)
    tau = threshold_for_share(similarity, share)
    assert int((similarity > tau).sum()) == int(500 * share)
    above, below = similarity[similarity > tau].min(), similarity[similarity < tau].max()
    assert tau == pytest.approx(float(above + below) / 2, abs=1e-7)
    # Neighbouring floats, whose middle is one of them, and rounding errors above one.
    for first in (0.7, 0.99999994, 1.0):
        high = torch.tensor(first)
        pair = torch.stack([high, torch.nextafter(high, torch.tensor(0.0))])
        assert (pair > threshold_for_share(pair, 0.5)).tolist() == [True, False]
    above_one = torch.tensor([1.0000001, 0.9999999])
    tau = threshold_for_share(above_one, 0.5)
    assert tau < NEVER
    assert (above_one > tau).tolist() == [True, False]


@pytest.mark.parametrize("shares", [[1.1] * 6, [-0.1], [float("nan")], [0.5] * 7])
def test_shares_out_of_range_are_refused(victim, photographs, shares):
    backbone = TimmViT(victim.model)
    batch = backbone.embed(victim.normalise(photographs.select([0]).images()))
    with pytest.raises(ConfigError, match="shares"):
        calibrate_thresholds(backbone, batch, shares)


def test_none_computes_no_keys(victim, photographs, monkeypatch):
    def refuse(_):
        raise AssertionError("keys were computed for nothing")

    monkeypatch.setattr(attention, "unit_keys", refuse)
    images = photographs.select(range(2))
    backbone = TimmViT(victim.model)
    with torch.no_grad():
        run_edge(
            backbone,
            backbone.embed(victim.normalise(images.images())),
            images.ids,
            NoReduction(),
            RNG,
            cut=2,
            proportional=True,
        )
