"""Where a result comes from: code, packages, machine, data and weights."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, entry_points, version
from pathlib import Path

import torch

from leakgauge.harness.store import number_type
from leakgauge.harness.suite.registry import GROUPS
from leakgauge.harness.system.json_data import Json
from leakgauge.harness.system.machine import kernels, processor

PACKAGES = (
    "leakgauge",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "lpips",
    "torchmetrics",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "pillow",
    "constriction",
    "sionna-no-rt",
    "tokenizers",
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
    """Runs git beside the code; None where that is no checkout of this project.

    Installed into an environment that lies in a repository of the user's, or into its top (``pip install --target``),
    the code has no commit: that repository's is not its own. Its own tracks this very file.
    """
    root, here = Path(__file__).resolve().parents[2], Path(__file__).resolve()
    top = _run_git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root or not (root / "pyproject.toml").is_file():
        return None
    if _run_git(root, "ls-files", "--error-unmatch", "--", str(here.relative_to(root))) is None:
        return None
    return _run_git(root, *arguments)


_OF_HOOKS = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"})
"""Where git tells its hooks, and every git below them, which repository they are of; the code may lie in another."""


def _run_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={name: value for name, value in os.environ.items() if name not in _OF_HOOKS},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def installed_versions() -> dict[str, str]:
    """Returns the versions of all that leakgauge needs, needs of needs included, and of what brings plug-ins."""
    found: dict[str, str] = {}
    points = [point for group in GROUPS for point in entry_points(group=f"leakgauge.{group}")]
    waiting = ["leakgauge", *sorted({point.dist.name for point in points if point.dist})]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            own = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = own.version
        needs = [need for need in own.requires or () if "extra ==" not in need]
        waiting += [match[0] for need in needs if (match := re.match(r"[A-Za-z0-9._-]+", need))]
    return dict(sorted(found.items()))


def code_identity(provenance: Mapping[str, object]) -> str:
    """Names the code of a run in one word: its commit, or the version with the digest of its files."""
    commit = provenance.get("commit")
    if commit:
        return str(commit)
    version_, digest = provenance.get("version"), provenance.get("code")
    return f"{version_}+{digest}" if version_ and digest else ""


def device_name(device: torch.device) -> str:
    """Returns the name of the GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(processor()["processor"])


def collect(device: torch.device, code: str = "") -> dict[str, Json]:
    """Returns provenance as plain data.

    Args:
        device: Where the run computes.
        code: Digest of the code, which names it where there is no commit.

    Returns:
        ``commit`` and ``dirty`` are None where the code is no git checkout of this project.
    """
    status = _git("status", "--porcelain")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "version": package_versions()["leakgauge"],
        "code": code,
        "packages": {**installed_versions(), **package_versions()},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "device": str(device),
        "device_name": device_name(device),
        **processor(),
        **kernels(),
        "training_number_types": {**number_type.facts()}
        if device.type == "cpu"
        else {"all": "bfloat16 where the GPU has it"},
    }
