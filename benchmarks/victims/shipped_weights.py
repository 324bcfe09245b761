"""Loading of the weights that this package ships."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from leakgauge.harness.errors import DataError

Network = TypeVar("Network", bound=nn.Module)


def load_shipped(build: Callable[[], Network], weights: str, script: str, path: Path | None) -> tuple[Network, str]:
    """Loads weights (fp16 on disk, fp32 in memory) into a network that is built for them.

    Args:
        build: Returns the untrained network.
        weights: File name of the shipped weights.
        script: The script that trained them, for messages.
        path: Other weights of the same architecture; None takes the shipped ones.

    Returns:
        The network in evaluation mode, and the SHA-256 of the file, first 16 hex digits.

    Raises:
        DataError: The file is missing, corrupt, or of another architecture.
    """
    where = str(path or f"benchmarks/victims/{weights}")
    try:
        data = path.read_bytes() if path else (files("leakgauge.benchmarks.victims") / weights).read_bytes()
        model = build()
        model.load_state_dict({name: tensor.float() for name, tensor in load_safetensors(data).items()})
    except FileNotFoundError as error:
        hint = f"reinstall, or run benchmarks/victims/{script}"
        raise DataError("victim weights are missing", where=where, hint=hint) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"victim weights cannot be loaded: {error}", where=where, hint="restore the file") from error
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise DataError("victim weights hold NaN or infinite values", where=where, hint="restore the file")
    return model.eval(), hashlib.sha256(data).hexdigest()[:16]
