"""Weights of timm models, from files and downloads, and the linear probe."""

from pathlib import Path

import pytest
import timm
import torch
from picture_folders import MODEL, save_weights
from safetensors.torch import save_file

from leakgauge.benchmarks.victims.loading.linear_probe import fit_linear
from leakgauge.benchmarks.victims.loading.timm_model import load_timm_model
from leakgauge.harness.errors import DataError


def test_normalisation_and_size_come_from_timm(weights):
    loaded = load_timm_model(MODEL, Path(weights["head"]), image_px=64)
    assert loaded.mean == (0.5, 0.5, 0.5)
    assert (loaded.px, loaded.classes) == (64, 1000)
    assert not loaded.model.training


def test_position_embeddings_are_resized(weights):
    path = Path(weights["headless"])
    same = load_timm_model(MODEL, path, image_px=64)
    smooth = load_timm_model(MODEL, path, image_px=32)
    sharp = load_timm_model(MODEL, path, image_px=32, pos_embed_antialias=False)
    assert smooth.model.pos_embed.shape == (1, 5, 192)
    assert not torch.allclose(smooth.model.pos_embed, sharp.model.pos_embed)
    assert len({same.weights_hash, smooth.weights_hash, sharp.weights_hash}) == 3


def test_torch_files_are_read_as_tensors_only(weights, tmp_path):
    state = timm.create_model(MODEL, img_size=64, num_classes=5).state_dict()
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in state.items()}, "epoch": 3}, tmp_path / "a.pth")
    assert load_timm_model(MODEL, tmp_path / "a.pth", image_px=64).classes == 5
    torch.save({"head.weight": Path("danger")}, tmp_path / "b.pth")
    with pytest.raises(DataError, match="the checkpoint cannot be read"):
        load_timm_model(MODEL, tmp_path / "b.pth", image_px=64)


def test_unfit_checkpoints_are_refused(tmp_path, weights):
    (tmp_path / "text.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(DataError, match=r"text.safetensors: the checkpoint cannot be read"):
        load_timm_model(MODEL, tmp_path / "text.safetensors")
    with pytest.raises(DataError, match=r"do not fit 'vit_small_patch16_224': 'cls_token' is \(1, 1, 192\)"):
        load_timm_model("vit_small_patch16_224", Path(weights["head"]), image_px=64)
    shallow = save_weights(tmp_path / "shallow.safetensors", depth=2)
    with pytest.raises(DataError, match=r"do not fit .*: 'blocks.2.norm1.weight' is missing"):
        load_timm_model(MODEL, shallow, image_px=64)
    state = timm.create_model(MODEL, img_size=64).state_dict()
    save_file(state | {"extra": torch.ones(1)}, tmp_path / "extra.safetensors")
    with pytest.raises(DataError, match="'extra' is unknown"):
        load_timm_model(MODEL, tmp_path / "extra.safetensors", image_px=64)
    state["norm.bias"][0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(DataError, match="NaN"):
        load_timm_model(MODEL, tmp_path / "nan.safetensors", image_px=64)


def test_a_failed_download_names_the_way_out(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("leakgauge.benchmarks.victims.loading.timm_model.timm.create_model", refuse)
    with pytest.raises(DataError, match=r"cannot be downloaded: no route to host -- without network, .*`checkpoint`"):
        load_timm_model(MODEL, None)


def test_downloaded_weights_are_hashed_and_resized(monkeypatch, weights):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        torch.manual_seed(0)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr("leakgauge.benchmarks.victims.loading.timm_model.timm.create_model", offline)
    first, second = (load_timm_model(MODEL, None, image_px=64) for _ in range(2))
    assert first.weights_hash == second.weights_hash
    assert (first.classes, first.px) == (1000, 64)


def test_folding_the_standardisation_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(200, 8, generator=generator)
    features, labels = raw * torch.logspace(-2, 2, 8) + 5, raw[:, ::3].argmax(1)
    layer = fit_linear(features, labels, 3)
    again = fit_linear(features * 3 - 1, labels, 3)
    assert torch.allclose(layer(features).softmax(1), again(features * 3 - 1).softmax(1), atol=1e-3)
    assert (layer(features).argmax(1) == labels).float().mean() > 0.9
