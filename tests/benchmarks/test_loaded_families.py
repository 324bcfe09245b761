"""Every family that is documented as supported goes through the loader with its own weights, and then runs exactly."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file

from leakgauge.benchmarks.victims.loading import timm_model
from leakgauge.benchmarks.victims.loading.linear_probe import attach_probe, fit_linear, pooled_features
from leakgauge.benchmarks.victims.loading.timm_model import load_timm_model
from leakgauge.benchmarks.victims.loading.transformers_model import load_transformers_model
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import ImageSet

CPU = torch.device("cpu")
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 2}
TIMM = {
    "vit_tiny_patch16_224": 16,  # AugReg
    "deit_tiny_patch16_224": 16,
    "deit_tiny_distilled_patch16_224": 16,
    "deit3_small_patch16_224": 16,
    "vit_base_patch16_224.mae": 16,
    "vit_small_patch16_224.dino": 16,
    "vit_small_patch14_dinov2": 14,
    "vit_small_patch14_reg4_dinov2": 14,
    "vit_base_patch32_clip_224": 32,
    "vit_base_patch16_siglip_224": 16,
    "vit_base_patch16_siglip_gap_224": 16,
}


@pytest.fixture
def small(monkeypatch):
    """Models of every name at a size that is quickly built; what else a name says stays."""
    plain = timm.create_model

    def create(name, **options):
        return plain(name, **{**SMALL, **options})

    monkeypatch.setattr(timm_model.timm, "create_model", create)
    return create


def randomised(model):
    """Moves what starts at zero or one away from it, so that no part can be forgotten unseen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def runs_exactly(loaded) -> torch.Tensor:
    victim = Victim(loaded.model, loaded.mean, loaded.std, loaded.weights_hash, "x")
    pipeline = SplitPipeline(victim, CPU, cut=1)
    assert pipeline._split.backbone.image_size == (loaded.px, loaded.px)
    image = torch.rand(1, 3, loaded.px, loaded.px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer, features = victim.look(image)
        assert torch.equal(features, victim.embed(image))
        assert torch.equal(answer, victim.predict(image))
    return answer


@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize("name", TIMM)
def test_timm(small, tmp_path, name, classes):
    own, other = (TIMM[name] * places for places in (4, 3))
    model = randomised(small(name, num_classes=classes, img_size=own))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_timm_model(name, tmp_path / "w.safetensors", image_px=own)
    assert (loaded.px, loaded.classes) == (own, classes)
    image = torch.rand(1, 3, own, own, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(Victim(model, loaded.mean, loaded.std, "", "").normalise(image))
    assert torch.allclose(runs_exactly(loaded), expected, atol=1e-5)
    resized = load_timm_model(name, tmp_path / "w.safetensors", image_px=other)
    assert (resized.px, resized.classes) == (other, classes)
    assert runs_exactly(resized).shape == expected.shape


def test_weights_of_a_fine_tuned_mae_average_their_patches(small, tmp_path):
    name = "vit_base_patch16_224.mae"
    model = randomised(small(name, num_classes=7, img_size=64, global_pool="avg"))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_timm_model(name, tmp_path / "w.safetensors", image_px=64)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(Victim(model, loaded.mean, loaded.std, "", "").normalise(image))
    assert torch.allclose(runs_exactly(loaded), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_224"])
def test_a_probe_becomes_the_head_whatever_heads_there_are(small, tmp_path, name):
    """The probe's logits are its layer on the pooled features, also where two heads read a token each."""
    save_file(randomised(small(name, num_classes=7, img_size=64)).state_dict(), tmp_path / "w.safetensors")
    loaded = load_timm_model(name, tmp_path / "w.safetensors", image_px=64)
    victim = Victim(loaded.model, loaded.mean, loaded.std, "none", "x")
    pixels = torch.randint(0, 256, (12, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    images = replace(ImageSet.from_pixels(pixels), labels=torch.arange(12) % 3)
    features = pooled_features(victim, images)
    attach_probe(victim, images, 3)
    with torch.no_grad():
        found, expected = victim.predict(images.images()), fit_linear(features, images.labels, 3)(features)
    assert torch.allclose(found, expected, atol=1e-4)
    assert runs_exactly(replace(loaded, model=victim.model)).shape == (1, 3)


HF = {"image_size": 56, "patch_size": 14, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = HF | {"intermediate_size": 64}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def hf(kind: str, family: str, **options: Any):
    return getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**options))


HF_MODELS: dict[str, Callable[[], Any]] = {
    **{k: partial(hf, k, "ViT", **WIDE) for k in ("ViTModel", "ViTForImageClassification")},
    **{k: partial(hf, k, "Dinov2", **HF, mlp_ratio=2) for k in ("Dinov2Model", "Dinov2ForImageClassification")},
    **{
        k: partial(hf, k, "Dinov2WithRegisters", **HF, mlp_ratio=2)
        for k in ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification")
    },
    **{
        k: partial(hf, k, "CLIPVision", **WIDE, projection_dim=24)
        for k in ("CLIPVisionModel", "CLIPVisionModelWithProjection")
    },
    "CLIPForImageClassification": partial(
        hf, "CLIPForImageClassification", "CLIP", vision_config=WIDE, text_config=TEXT, num_labels=3
    ),
    "SiglipVisionModel": partial(hf, "SiglipVisionModel", "SiglipVision", **WIDE),
    "SiglipForImageClassification": partial(
        hf, "SiglipForImageClassification", "Siglip", vision_config=WIDE, text_config=TEXT, num_labels=3
    ),
}


@pytest.mark.parametrize("kind", HF_MODELS)
def test_transformers(tmp_path: Path, kind):
    torch.manual_seed(0)
    model = randomised(HF_MODELS[kind]())
    model.save_pretrained(tmp_path / "m")
    loaded = load_transformers_model(str(tmp_path / "m"))
    image = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = Victim(model, loaded.mean, loaded.std, "", "").predict(image)
    assert torch.allclose(runs_exactly(loaded), expected, atol=1e-5)
    resized = load_transformers_model(str(tmp_path / "m"), image_px=42)
    assert resized.px == 42
    assert runs_exactly(resized).shape == expected.shape
    assert resized.weights_hash != loaded.weights_hash


def test_a_victim_says_where_images_enter_and_in_what_number_type():
    victim = Victim(timm.create_model("vit_tiny_patch16_224", **SMALL, img_size=32), (0.5,) * 3, (0.5,) * 3, "", "")
    assert (victim.device, victim.dtype) == (torch.device("cpu"), torch.float32)
    victim.model.to("meta", torch.float16)
    assert (victim.device, victim.dtype) == (torch.device("meta"), torch.float16)
    images = torch.zeros(2, 3, 32, 32).to(victim.device)
    assert victim.predict(images).dtype == torch.float32
