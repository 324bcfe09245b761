"""Where a result comes from: code, packages, machine, data and weights."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from harness import number_type

PACKAGES = (
    "leakgauge",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "lpips",
    "torchmetrics",
    "numpy",
    "scikit-image",
)


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git(*arguments: str) -> str | None:
    """Runs git beside the code; None where this is no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def collect(device: torch.device) -> dict[str, Any]:
    """Returns provenance as plain data; ``dirty`` is None where the code is no git checkout."""
    status = _git("status", "--porcelain")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "packages": package_versions(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "training_number_types": number_type.facts()
        if device.type == "cpu"
        else {"all": "bfloat16 where the GPU has it"},
    }
