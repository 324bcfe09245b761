"""The split pipeline on the shipped victim and real photographs."""

import pytest
import timm
import torch

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.defense import (
    Ablatable,
    Accountable,
    Differentiable,
    Inspectable,
    Previewable,
    Tunable,
)
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError, PayloadError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
RNG = Streams(0)


def logits(pipeline, images):
    return pipeline.respond(pipeline.transmit(images, RNG))


@pytest.mark.parametrize("cut", [1, 3, 6])
@pytest.mark.parametrize("reduction", ["none", {"name": "threshold", "thresholds": 1.0}])
def test_thresholds_of_one_reproduce_the_unmodified_victim(victim, photographs, cut, reduction):
    with torch.no_grad():
        expected = victim.predict(photographs.images())
    found = logits(SplitPipeline(victim, CPU, cut=cut, reduction=reduction), photographs)
    assert float((found - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64}),
        ("vit_small_patch14_dinov2", {"img_size": 56, "num_classes": 5}),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "num_classes": 5}),
        ("deit3_small_patch16_224", {"img_size": 64}),
        ("vit_base_patch16_224.mae", {"img_size": 64, "num_classes": 5, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"img_size": 64, "class_token": False, "global_pool": "avg", "qk_norm": True}),
    ],
)
def test_other_vits_are_reproduced_too(photographs, name, options):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **options).eval()
    side = options["img_size"]
    images = photographs.select(range(4))
    pixels = torch.nn.functional.interpolate(images.images(), size=(side, side))
    images = type(images).from_pixels((pixels * 255).round().to(torch.uint8))
    other = Victim(model, (0.5,) * 3, (0.5,) * 3, "none", name)
    with torch.no_grad():
        expected = other.predict(images.images())
    found = logits(SplitPipeline(other, CPU, cut=4), images)
    assert float((found - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(
    "reduction",
    [
        {"name": "threshold", "thresholds": 0.9},
        {"name": "random_merge", "match": {"name": "threshold", "thresholds": 0.9}},
    ],
    ids=["threshold", "random_merge"],
)
def test_alone_in_a_batch_and_shuffled_are_the_same(victim, photographs, reduction):
    options = {"cut": 3, "reduction": reduction, "channel": {"name": "awgn", "snr_db": 10}}
    together = SplitPipeline(victim, CPU, **options).transmit(photographs, RNG)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    shuffled = SplitPipeline(victim, CPU, **options).transmit(photographs.select(order), RNG)
    for place, image in enumerate(order.tolist()[:8]):
        alone = SplitPipeline(victim, CPU, **options).transmit(photographs.select([image]), RNG)
        for other in (together.received.select([image]), shuffled.received.select([place])):
            assert torch.equal(alone.received.merge_map, other.merge_map)
            assert torch.equal(alone.received.sizes, other.sizes)
            assert torch.allclose(alone.received.tokens, other.tokens, rtol=1e-5, atol=1e-5)


def test_payload_bytes_follow_the_tokens(victim, photographs):
    plain = SplitPipeline(victim, CPU, cut=3, codec="float16").transmit(photographs, RNG).encoded
    assert set(plain.payload_bytes.tolist()) == {16 + 4 + 65 * 192 * 2}
    merged = (
        SplitPipeline(victim, CPU, cut=3, codec="float16", reduction={"name": "threshold", "thresholds": 0.9})
        .transmit(photographs, RNG)
        .encoded
    )
    lengths = merged.decoded.lengths
    assert torch.equal(merged.payload_bytes, 16 + 4 + lengths * 192 * 2 + lengths - 1)
    assert torch.equal(merged.tokens_per_layer[:, -1], lengths)
    assert bool((merged.tokens_per_layer.diff(dim=1) <= 0).all())


def test_sizes_are_sent_only_where_the_server_needs_them(victim):
    merge = {"name": "threshold", "thresholds": 0.9}
    assert SplitPipeline(victim, CPU, cut=3, reduction=merge).edge.sizes_sent()
    assert not SplitPipeline(victim, CPU, cut=6, reduction=merge).edge.sizes_sent()
    assert not SplitPipeline(victim, CPU, cut=3, reduction=merge, send_sizes=False).edge.sizes_sent()


def test_nan_tokens_are_refused(victim, photographs):
    import copy

    model = copy.deepcopy(victim.model)
    broken = Victim(model, victim.mean, victim.std, "x", "x")
    pipeline = SplitPipeline(broken, CPU, cut=2)
    with torch.no_grad():
        model.blocks[0].mlp.fc2.bias[0] = float("nan")
    with pytest.raises(PayloadError, match="NaN"):
        pipeline.transmit(photographs, RNG)


@pytest.mark.parametrize("cut", [0, 7, -1, 2.0])
def test_a_cut_outside_the_model_is_refused(victim, cut):
    with pytest.raises(ConfigError, match="cut"):
        create("defenses", "split_pipeline", {"victim": victim, "device": CPU, "cut": cut})


def test_an_unsupported_model_is_refused_by_name():
    swin = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False)
    with pytest.raises(ConfigError, match="SwinTransformer"):
        SplitPipeline(Victim(swin, (0.5,) * 3, (0.5,) * 3, "x", "swin"), CPU)


def test_it_has_every_ability_but_to_account_for_answers(victim):
    pipeline = SplitPipeline(victim, CPU, cut=2)
    for ability in (Previewable, Inspectable, Ablatable, Differentiable, Tunable):
        assert isinstance(pipeline, ability), ability
    assert not isinstance(pipeline, Accountable)
