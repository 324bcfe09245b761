"""How images are fed: options over files over names, each said where a reader looks, and each moving what it should."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_folders import MODEL
from PIL import Image

from leakgauge.benchmarks.tasks.own_images.imagefolder import ImageFolder
from leakgauge.benchmarks.tasks.public_questions.square_images import fit_square
from leakgauge.benchmarks.victims.loading.input_settings import OwnSettings, fed, own_of_preprocessor
from leakgauge.benchmarks.victims.loading.timm_model import check_model_name, load_timm_model
from leakgauge.harness.errors import ConfigError, DataError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.decoding import centre_square

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def loaded(path, **options):
    return load_timm_model(MODEL, Path(path), image_px=64, **options)


def test_options_beat_what_the_name_suggests_and_the_name_says_so(weights):
    assumed = loaded(weights["head"])
    stated = loaded(weights["head"], mean=[0, 0, 0], std=[1, 1, 1])
    half = loaded(weights["head"], std=[0.2, 0.3, 0.4])
    assert assumed.note == f"normalisation assumed from the name {MODEL}"
    assert (stated.mean, stated.std) == (ZERO, ONE)
    assert stated.note == "mean 0 0 0, std 1 1 1, mean by option, std by option"
    assert (half.mean, half.std) == (assumed.mean, (0.2, 0.3, 0.4))
    assert half.source == f"std by option, mean assumed from the name {MODEL}"
    # Tokens are cached by this hash: another normalisation is another victim.
    assert len({assumed.weights_hash, stated.weights_hash, half.weights_hash}) == 3
    same = loaded(weights["head"], mean=assumed.mean, std=assumed.std)
    assert same.weights_hash == assumed.weights_hash


def test_the_config_beside_a_checkpoint_beats_the_name_and_options_beat_both(weights, tmp_path):
    path = tmp_path / "model.safetensors"
    shutil.copy(weights["head"], path)
    own = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "crop_pct": 0.9}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": MODEL, "pretrained_cfg": own}))
    found = loaded(path)
    assert (found.mean, found.std, found.note) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "")
    assert (found.source, found.own) == ("mean and std from config.json", OwnSettings("bilinear", 0.9))
    assert found.weights_hash != loaded(weights["head"]).weights_hash
    assert loaded(path, mean=[0, 0, 0]).source == "mean by option, std from config.json"


BROKEN = (
    "{",
    "[1]",
    '{"mean": [1, 2], "std": [1, 1, 1]}',
    '{"mean": "x"}',
    '{"std": [1, 0, 1]}',
    '{"mean": [NaN,0,0]}',
)


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_config_beside_a_checkpoint_is_refused(weights, tmp_path, text):
    shutil.copy(weights["head"], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json"):
        loaded(tmp_path / "model.safetensors")


def test_what_stands_beside_the_weights_is_taken_or_said():
    assert fed(OwnSettings(), None, None).source == "interpolation assumed, crop share assumed"
    found = fed(OwnSettings("bilinear", 0.875), None, None)
    assert (found.interpolation, found.crop_share) == ("bilinear", 1.0)
    assert "checkpoint states" in found.source
    assert "evaluation takes 0.875" in found.source
    stated = fed(OwnSettings("bilinear", 0.875), "box", 0.5)
    assert (stated.interpolation, stated.crop_share) == ("box", 0.5)
    assert stated.source == "interpolation by option, crop share by option"
    clip = {"resample": 3, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    assert own_of_preprocessor(clip) == OwnSettings("bicubic", 0.875)
    assert own_of_preprocessor({"resample": 2, "size": {"height": 224, "width": 224}}) == OwnSettings("bilinear", None)
    assert own_of_preprocessor({"resample": True, "size": "x", "crop_size": []}) == OwnSettings("lanczos", None)


def test_a_square_is_cut_and_reduced_as_asked():
    ramp = np.tile(np.arange(80, dtype=np.uint8), (40, 1))
    image = Image.fromarray(np.stack([ramp] * 3, axis=2))
    whole = centre_square(image, 20)
    half = centre_square(image, 20, "nearest", 0.5)
    assert (int(whole.min()), int(whole.max())) == (
        21,
        59,
    )  # of 80 columns the middle 40, two to a pixel
    assert half[0, 0].tolist() == list(range(30, 50))  # the middle 20 of them, pixel by pixel
    assert torch.equal(fit_square(image, 20, "crop", "nearest", 0.5), half)
    checks = Image.fromarray(np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    filters = ("bicubic", "bilinear", "lanczos", "box", "hamming", "nearest")
    assert len({centre_square(checks, 27, name).numpy().tobytes() for name in filters}) == len(filters)


def test_a_checkpoint_trained_on_other_pixels_is_right_only_with_its_own_normalisation(labelled, weights):
    """The victim sees what it was trained on: (x - mean) / std, by option; run.json says so."""
    options = {"model": MODEL, "checkpoint": weights["head"], "image_px": 64, "quality": "agreement"}
    plain = ImageFolder(str(labelled), **options)
    own = ImageFolder(str(labelled), **options, mean=[0, 0, 0], std=[1, 1, 1], interpolation="box", crop_share=0.8)
    images = own.split("evaluation").images()
    assert torch.equal(own.victim().normalise(images), images)
    assert not torch.equal(plain.split("evaluation").pixels, own.split("evaluation").pixels)
    read = own.reading().preprocessing
    assert (read.mean, read.std, read.crop_share, read.interpolation) == (ZERO, ONE, 0.8, "box, antialiased")
    assert read.source == "mean by option, std by option; interpolation by option, crop share by option"
    assert "mean 0 0 0" in own.victim().name
    assert "assumed from the name" in plain.victim().name
    assert "assumed" in plain.reading().preprocessing.source


BAD = {
    "mean": ([0.5], "imagenet"),
    "std": ([0, 1, 1], [1, 1, float("nan")]),
    "crop_share": (0, 1.1),
    "interpolation": ("cubic",),
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BAD.items() for value in values])
def test_bad_options_are_refused_before_anything_is_loaded(labelled, weights, option, value):
    given = {"path": str(labelled), "model": MODEL, "checkpoint": weights["head"], option: value}
    with pytest.raises(ConfigError, match=option):
        create("tasks", "imagefolder", given)


@pytest.mark.parametrize("name", ["resnet50", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224"])
def test_a_family_that_is_not_run_is_refused_at_once(name):
    with pytest.raises(ConfigError, match=r"no model that can be split.*vision transformer: ViT, DeiT"):
        check_model_name(name)


def test_no_advice_names_what_is_refused():
    with pytest.raises(ConfigError) as caught:
        check_model_name("eva02_tiny_patch14_223")
    close = str(caught.value).partition("did you mean '")[2].partition("'")[0]
    if close:
        check_model_name(close)
