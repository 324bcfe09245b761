"""Victims from transformers, as ``save_pretrained`` writes them: loading, feeding, and one clear line for mistakes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from picture_folders import CONTENT, write

from leakgauge.benchmarks.tasks.own_images.imagefolder import ImageFolder
from leakgauge.benchmarks.victims.loading.preprocessor import NORMALISATION, PREPROCESSOR
from leakgauge.benchmarks.victims.loading.transformers_model import load_transformers_model
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams

TINY = {
    "image_size": 56,
    "patch_size": 14,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
WIDE = TINY | {"intermediate_size": 96}
FED = {
    "do_resize": True,
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 56, "width": 56},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


def build(kind: str):
    torch.manual_seed(0)
    if kind.startswith("ViT"):
        config = transformers.ViTConfig(**WIDE, num_labels=3)
    elif kind.startswith("Dinov2"):
        config = transformers.Dinov2Config(**TINY, mlp_ratio=2, num_labels=3)
    elif kind == "SiglipForImageClassification":
        config = transformers.SiglipConfig(vision_config=WIDE, num_labels=3, text_config={"num_hidden_layers": 1})
    elif kind.startswith("Siglip"):
        config = transformers.SiglipVisionConfig(**WIDE)
    else:
        config = transformers.CLIPVisionConfig(**WIDE, projection_dim=24)
    return getattr(transformers, kind)(config).eval()


def saved(folder: Path, kind: str = "ViTForImageClassification", fed: dict | None = None) -> Path:
    build(kind).save_pretrained(folder)
    if fed is not None:
        (folder / PREPROCESSOR).write_text(json.dumps(fed))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "tiny-vit", fed=FED)


def hf_task(images: Path, model: Path | str, **options) -> ImageFolder:
    return ImageFolder(str(images), str(model), library="transformers", **options)


def agreement(task: ImageFolder, **options) -> float:
    images = task.split("search")
    pipeline = SplitPipeline(task.victim(), torch.device("cpu"), cut=1, **options)
    output = pipeline.respond(pipeline.transmit(images, Streams(0)))
    assert task.quality_name.startswith(("top-1 agreement", "centred feature cosine"))
    return float(task.quality(output, task.target(images)).mean())


@pytest.mark.parametrize(
    "kind",
    [
        "ViTForImageClassification",
        "ViTModel",
        "Dinov2ForImageClassification",
        "Dinov2Model",
        "CLIPVisionModel",
        "CLIPVisionModelWithProjection",
        "SiglipVisionModel",
        "SiglipForImageClassification",
    ],
)
def test_a_saved_model_is_a_victim(flat, tmp_path, kind):
    task = hf_task(flat, saved(tmp_path / "m", kind))
    victim, images = task.victim(), task.split("search")
    assert type(victim.model).__name__ == kind
    assert (task.input_px(), victim.model.training) == (56, False)
    assert victim.name == f"m, 56 px, normalisation assumed: no {PREPROCESSOR}"
    assert (victim.mean, victim.std) == NORMALISATION[victim.model.config.model_type]
    expected = build(kind)(victim.normalise(images.images()))
    with torch.no_grad():
        fields = [f for f in ("logits", "image_embeds", "pooler_output") if getattr(expected, f, None) is not None]
        assert torch.equal(victim.predict(images.images()), expected[fields[0]])
    assert agreement(task) == pytest.approx(1.0, abs=1e-5)
    assert 0 <= agreement(task, reduction={"name": "threshold", "thresholds": 0.5}) <= 1


def test_the_preprocessor_says_how_images_are_fed(folder):
    loaded = load_transformers_model(str(folder))
    assert (loaded.px, loaded.classes, loaded.note) == (56, 3, "")
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("fed", "px"),
    [
        ({"size": 28}, 28),
        ({"size": {"height": 70, "width": 70}}, 70),
        ({"size": {"shortest_edge": 28}}, 28),
        ({"size": {"shortest_edge": 64}, "crop_size": 42}, 42),
        ({"size": {"shortest_edge": 28}, "crop_size": 42, "do_center_crop": False}, 28),
        ({"do_resize": False, "size": 28}, 56),
        ({}, 56),
    ],
)
def test_the_size_comes_from_the_preprocessor(tmp_path, fed, px):
    loaded = load_transformers_model(str(saved(tmp_path, fed=fed)))
    assert (loaded.px, loaded.mean) == (px, (0.5, 0.5, 0.5))
    assert loaded.note == f"normalisation assumed: {PREPROCESSOR} has none"


def test_a_processor_for_both_kinds_of_data_is_read_too(tmp_path):
    (saved(tmp_path) / "processor_config.json").write_text(json.dumps({"image_processor": FED}))
    assert load_transformers_model(str(tmp_path)).mean == (0.1, 0.2, 0.3)


def test_loading_is_silent_and_leaves_the_logging_alone(folder, capfd):
    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    load_transformers_model(str(folder))
    assert capfd.readouterr() == ("", "")
    assert before == (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled())


def test_the_hub_is_loaded_in_the_same_way(folder):
    assert load_transformers_model(str(folder), pretrained=True).weights_hash == (
        load_transformers_model(str(folder)).weights_hash
    )


@pytest.mark.parametrize("fed", [None, FED])
def test_a_family_that_cannot_be_split_is_refused_at_once_and_advice_names_only_what_can(tmp_path, fed):
    sizes = {"image_size": 32, "embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 4}
    transformers.SwinForImageClassification(transformers.SwinConfig(**sizes)).save_pretrained(tmp_path)
    if fed is not None:
        (tmp_path / PREPROCESSOR).write_text(json.dumps(fed))
    for options in ({}, {"mean": [0, 0, 0], "std": [1, 1, 1]}):
        with pytest.raises(ConfigError, match=r"SwinFor.* split -- take one of the families vit, dinov2") as caught:
            load_transformers_model(str(tmp_path), **options)
        assert PREPROCESSOR not in str(caught.value)


def test_options_beat_the_preprocessor(folder):
    found = load_transformers_model(str(folder), mean=[0, 0, 0])
    assert (found.mean, found.std) == ((0.0, 0.0, 0.0), (0.4, 0.5, 0.6))
    assert found.note == f"mean 0 0 0, std 0.4 0.5 0.6, mean by option, std from {PREPROCESSOR}"
    assert found.weights_hash != load_transformers_model(str(folder)).weights_hash
    assert found.own.crop_share == 56 / 64


def test_images_may_stay_as_they_are(tmp_path):
    loaded = load_transformers_model(str(saved(tmp_path, fed=FED | {"do_normalize": False})))
    assert (loaded.mean, loaded.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "kind", ["ViTForImageClassification", "Dinov2Model", "CLIPVisionModel", "SiglipForImageClassification"]
)
def test_position_embeddings_are_resized_as_the_model_would(tmp_path, kind):
    path = str(saved(tmp_path, kind))
    loaded, own = load_transformers_model(path, image_px=70), load_transformers_model(path)
    images = torch.rand(2, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    options = {} if kind.startswith("Dinov2") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected, found = build(kind)(images, **options), loaded.model(images)
    assert torch.allclose(found[0], expected[0], atol=1e-5)
    assert loaded.weights_hash != own.weights_hash


def test_the_hash_holds_weights_config_and_input(folder, tmp_path):
    first = load_transformers_model(str(folder)).weights_hash
    for place, change in (("config.json", {"hidden_act": "relu"}), (PREPROCESSOR, {"image_mean": [0, 0, 0]})):
        other = shutil.copytree(folder, tmp_path / place)
        assert load_transformers_model(str(other)).weights_hash == first
        data = json.loads((other / place).read_text()) | change
        (other / place).write_text(json.dumps(data))
        assert load_transformers_model(str(other)).weights_hash != first


def test_a_vit_without_pooler_gets_no_random_one(tmp_path):
    config = transformers.ViTConfig(**WIDE)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    assert load_transformers_model(str(tmp_path)).model.pooler is None
    assert load_transformers_model(str(tmp_path), image_px=28).model.pooler is None


def test_the_image_tower_is_taken_from_both(tmp_path):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(vision_config=WIDE, text_config=text)
    both = transformers.CLIPModel(config).eval()
    both.save_pretrained(tmp_path)
    loaded = load_transformers_model(str(tmp_path))
    images = torch.rand(2, 3, 56, 56)
    assert type(loaded.model).__name__ == "CLIPVisionModel"
    assert torch.allclose(loaded.model(images)[1], both.vision_model(images)[1])


def test_the_own_head_is_used_where_labels_match(tmp_path, folder, labelled):
    content = {f"{n}/{k}.png": data for n, images in enumerate(CONTENT.values()) for k, data in enumerate(images)}
    assert hf_task(write(tmp_path, content), folder).quality_name == "top-1 accuracy (own head)"
    assert hf_task(labelled, folder).quality_name.startswith("top-1 agreement")  # there is no probe to fall back on
    with pytest.raises(ConfigError, match=r"do not match the 3 classes .* or take `agreement`"):
        hf_task(labelled, folder, quality="head").split("search")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"library": "transformer"}, "library = 'transformer' is not one of .* did you mean 'transformers'"),
        ({"model": "nowhere"}, "nowhere: no such model folder -- .*`pretrained: true`"),
        ({"checkpoint": "w.safetensors"}, "checkpoint: this is for timm models"),
        ({"pos_embed_antialias": False}, "pos_embed_antialias: this is for timm models"),
        ({"quality": "probe"}, "quality: a linear probe needs a timm model"),
        ({"pretrained": True}, "pretrained: .* is a local folder"),
        ({"image_px": 60}, "image_px: 60 is not a multiple of the patch size 14 -- try 56"),
    ],
)
def test_mistakes_are_one_clear_line(flat, folder, options, message):
    given = {"path": str(flat), "model": str(folder), "library": "transformers"} | options
    with pytest.raises(LeakgaugeError, match=message) as caught:
        create("tasks", "imagefolder", given).victim()
    assert "\n" not in str(caught.value)


def changed(name: str, **change):
    def change_it(path: Path) -> None:
        (path / name).write_text(json.dumps(json.loads((path / name).read_text()) | change))

    return change_it


def without(name: str):
    return lambda path: (path / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("config.json"), "holds no config.json"),
        (without("model.safetensors"), "holds no model.safetensors; other formats can run code"),
        (lambda path: (path / "config.json").write_text("{"), "the config cannot be read"),
        (lambda path: (path / "model.safetensors").write_bytes(b"none"), "the weights cannot be loaded"),
        (lambda path: (path / PREPROCESSOR).write_text("{"), f"{PREPROCESSOR} cannot be read"),
        (lambda path: (path / PREPROCESSOR).write_text("[]"), "not a mapping"),
        (changed("config.json", model_type="unheard"), "the config cannot be read"),
        (changed("config.json", hidden_size=32), "the weights cannot be loaded"),
        (changed("config.json", num_hidden_layers=3), r"do not fit ViTForImageClassification: 'vit.layers.2.* missing"),
        (changed("config.json", image_size=[56, 28]), r"image size \[56, 28\] is not a square"),
        (changed("config.json", model_type="bert", architectures=["BertModel"]), "BertModel is no image model"),
        (changed(PREPROCESSOR, image_mean=[0.5]), "is not three numbers"),
        (changed(PREPROCESSOR, rescale_factor=1 / 127.5), r"pixels are not scaled to \[0, 1\]"),
        (changed(PREPROCESSOR, crop_size={"height": 56, "width": 28}), "is not a square"),
    ],
)
def test_damaged_folders_are_refused(folder, tmp_path, damage, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(LeakgaugeError, match=message) as caught:
        load_transformers_model(str(copy))
    assert "\n" not in str(caught.value)
    assert "copy" in str(caught.value) or isinstance(caught.value, ConfigError)


def test_nan_weights_are_refused(tmp_path):
    model = build("ViTModel")
    with torch.no_grad():
        model.layernorm.bias[0] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="NaN"):
        load_transformers_model(str(tmp_path))


def test_a_failed_download_names_the_way_out(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    with pytest.raises(DataError, match=r"no route to host -- .*without network"):
        load_transformers_model("google/vit-base-patch16-224", pretrained=True)
