"""Every model family runs exactly: unreduced it is the victim, merged it keeps all invariants."""

import subprocess
import sys

import pytest
import timm
import torch
import transformers
from tiny_models import HF_MODELS, MODELS, PX, perturb, tiny_victim, two_towers, vit
from torch.nn.functional import interpolate

from leakgauge.defenses.backbones import hf_backbone, hf_clip, hf_dinov2, hf_siglip, hf_vit
from leakgauge.defenses.backbones.families import SUPPORTED, adapt
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged.attention import attention_half, mlp_half
from leakgauge.defenses.ragged.forward import run_edge, run_server
from leakgauge.defenses.reductions.threshold import ThresholdMerge
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

CPU = torch.device("cpu")
RNG = Streams(0)
PATCHES = 16
every_model = pytest.mark.parametrize("name", MODELS)


def packed(tokens, lengths, sizes, merge_map, *, prefix):
    """Packs padded tokens (B, L, D) and sizes (B, L), of which the first ``lengths`` of each image are real."""
    keep = torch.arange(tokens.shape[1]) < lengths[:, None]
    return TokenBatch(tokens[keep], lengths, sizes[keep], merge_map, prefix)


@pytest.fixture(scope="module")
def pictures(photographs):
    few = photographs.select(range(4))
    pixels = interpolate(few.images(), size=(PX, PX))
    return type(few).from_pixels((pixels * 255).round().to(torch.uint8))


@every_model
def test_unreduced_it_is_the_victim(name, pictures):
    other = tiny_victim(name)
    with torch.no_grad():
        expected = other.predict(pictures.images())
    assert float(expected.std(dim=0).mean()) > 1e-2  # the images matter
    for cut in (1, 3):
        for reduction in ("none", {"name": "threshold", "thresholds": 1.0}):
            pipeline = SplitPipeline(other, CPU, cut=cut, reduction=reduction)
            found = pipeline.respond(pipeline.transmit(pictures, RNG))
            assert float((found - expected).abs().max()) < 1e-5


def merged_edge(victim, images, rows, after_block=None):
    pixels = victim.normalise(images.images()[rows])
    ids = tuple(images.ids[row] for row in rows)
    reduction = ThresholdMerge(0.5)
    with torch.no_grad():
        backbone = adapt(victim.model)
        return run_edge(
            backbone, backbone.embed(pixels), ids, reduction, RNG, cut=3, proportional=True, after_block=after_block
        )[0]


@every_model
def test_merging_keeps_the_invariants(name, pictures):
    victim = tiny_victim(name)
    backbone = adapt(victim.model)
    blocks = []

    def check(layer, batch):
        batch.check()
        patches = torch.zeros(len(batch), dtype=torch.long).index_add_(0, batch.image_index, batch.sizes)
        assert torch.equal(patches - backbone.prefix, torch.full((len(batch),), PATCHES))
        blocks.append(batch.lengths)

    together = merged_edge(victim, pictures, [0, 1, 2, 3], check)
    assert len(blocks) == 3
    assert bool((blocks[-1] < backbone.prefix + PATCHES).all())
    with torch.no_grad():
        answers = backbone.finish(together)
        server = run_server(backbone, together, [2], proportional=True)
    assert bool(torch.isfinite(answers).all() & torch.isfinite(server).all())
    for row in range(4):
        alone = merged_edge(victim, pictures, [row])
        assert torch.equal(alone.merge_map, together.merge_map[[row]])
        assert torch.allclose(alone.tokens, together.select([row]).tokens, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            assert torch.allclose(backbone.finish(alone)[0], answers[row], rtol=1e-5, atol=1e-5)


def run_all(backbone, batch):
    with torch.no_grad():
        for layer in range(backbone.depth):
            attended = attention_half(backbone, layer, batch, proportional=True)
            batch = mlp_half(backbone, layer, batch.with_tokens(attended.tokens))
        return backbone.finish(batch)


@every_model
def test_merging_exact_duplicates_changes_nothing(name, pictures):
    """What proportional attention and size-weighted pooling promise, image by image, some merged and some not."""
    victim = tiny_victim(name)
    backbone = adapt(victim.model)
    # Uneven, because without a class token doubling every patch changes no mean.
    prefix, copies = backbone.prefix, torch.tensor([3, 1, 2, 2, 4, 1, 1, 2])
    kinds = len(copies)
    with torch.no_grad():
        single = backbone.embed(victim.normalise(pictures.images())).padded()[0][:, : prefix + kinds]
    repeated = torch.cat([single[:, :prefix], single[:, prefix:].repeat_interleave(copies, dim=1)], dim=1)
    copied = TokenBatch.from_uniform(repeated, prefix)
    sizes = torch.cat([torch.ones(prefix, dtype=torch.long), copies]).expand(4, -1)
    groups = (prefix + torch.arange(kinds).repeat_interleave(copies)).expand(4, -1)
    lengths = torch.full((4,), prefix + kinds)
    once = packed(single, lengths, sizes, groups, prefix=prefix)
    once.check()
    copied.check()
    expected = run_all(backbone, copied)
    assert float((run_all(backbone, once) - expected).abs().max()) < 1e-4
    mixed = TokenBatch.concatenate([once.select([0]), copied.select([1]), once.select([2]), copied.select([3])])
    assert float((run_all(backbone, mixed) - expected).abs().max()) < 1e-4
    # Without sizes the same tokens give another answer, so the test can fail.
    unweighted = TokenBatch.from_uniform(single, prefix)
    assert float((run_all(backbone, unweighted) - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("name", HF_MODELS)
def test_bfloat16_runs_merged(name, pictures):
    pipeline = SplitPipeline(
        tiny_victim(name), CPU, cut=2, reduction={"name": "threshold", "thresholds": 0.5}, precision="bfloat16"
    )
    assert bool(torch.isfinite(pipeline.respond(pipeline.transmit(pictures, RNG))).all())


def swin():
    sizes = {"image_size": 32, "embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 4}
    return transformers.SwinForImageClassification(transformers.SwinConfig(**sizes))


def with_own_attention():
    model = vit("ViTModel")
    model.config._attn_implementation_internal = "mine"
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: timm.create_model("swin_tiny_patch4_window7_224"), "victim SwinTransformer: no adapter"),
        (swin, "victim SwinForImageClassification: no adapter"),
        (lambda: vit("ViTForMaskedImageModeling"), "victim ViTForMaskedImageModeling: this class has another head"),
        (lambda: two_towers("SiglipVisionModel", vision_use_head=False), "SiglipVisionModel: without its head"),
        (with_own_attention, "ViTModel: attention implementation 'mine'"),
        (lambda: torch.nn.Linear(2, 2), "victim Linear: no adapter"),
    ],
    ids=["timm swin", "transformers swin", "masked", "headless siglip", "own attention", "linear"],
)
def test_unsupported_models_are_refused_by_name_with_the_list(build, message):
    with pytest.raises(ConfigError, match=message) as caught:
        SplitPipeline(Victim(build().eval(), (0.5,) * 3, (0.5,) * 3, "x", "x"), CPU)
    assert "Dinov2WithRegistersForImageClassification" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_list_names_the_classes_that_are_run():
    adapters = (hf_vit.HfViT, hf_dinov2.HfDinov2, hf_dinov2.HfDinov2WithRegisters, hf_clip.HfClip, hf_siglip.HfSiglip)
    names = [kind.__name__ for adapter in adapters for kind in adapter.classes]
    assert f"transformers {', '.join(names)}" == hf_backbone.SUPPORTED
    assert hf_backbone.SUPPORTED in SUPPORTED


@pytest.mark.parametrize("name", ["ViTModel", "Dinov2Model", "CLIPVisionModel", "SiglipVisionModel"])
def test_images_of_another_size_are_refused(name):
    with pytest.raises(ConfigError, match="images of 70 x 70 px, but the victim is configured for 56 x 56"):
        adapt(tiny_victim(name).model).embed(torch.zeros(1, 3, 70, 70))


def test_a_timm_model_does_not_import_transformers():
    code = (
        "import sys, timm; from leakgauge.defenses.backbones.families import adapt;"
        "adapt(timm.create_model('vit_tiny_patch16_224', depth=1).eval());"
        "sys.exit(any(name.startswith('transformers') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", HF_MODELS)
def test_features_of_a_victim_are_what_its_classifier_sees(name, pictures):
    victim = tiny_victim(name)
    with torch.no_grad():
        features, output = victim.embed(pictures.images()), victim.predict(pictures.images())
        if hasattr(victim.model, "classifier"):
            assert not torch.equal(features, output)
            assert torch.equal(victim.model.classifier(features), output)
            assert not victim.model.classifier._forward_pre_hooks
        else:
            assert torch.equal(features, output)


def test_a_model_without_an_answer_is_refused():
    model = perturb(vit("ViTForMaskedImageModeling", encoder_stride=14))
    with pytest.raises(ConfigError, match="MaskedImageModelingOutput, which holds no answer"):
        Victim(model, (0.5,) * 3, (0.5,) * 3, "x", "x").predict(torch.zeros(1, 3, PX, PX))
