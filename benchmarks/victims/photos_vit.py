"""The victim of task ``photos``: architecture, normalisation and loading of the shipped weights."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from benchmarks.tasks.photo_crops import CLASSES, CROP_PX
from harness.contracts import Victim
from harness.errors import DataError

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
PATCH_PX = 8
WEIGHTS = "photos_vit.safetensors"


def build_photos_vit(drop_path_rate: float = 0.0) -> nn.Module:
    """Returns the untrained network: timm ViT, 6 blocks of width 192, 3 heads, 64 patches and a class token."""
    model: nn.Module = timm.models.VisionTransformer(
        img_size=CROP_PX,
        patch_size=PATCH_PX,
        embed_dim=192,
        depth=6,
        num_heads=3,
        num_classes=len(CLASSES),
        drop_path_rate=drop_path_rate,
    )
    return model


def load_photos_vit(path: Path | None = None) -> Victim:
    """Loads the shipped weights (fp16 on disk, fp32 in memory).

    Args:
        path: Other weights of the same architecture; None takes the shipped ones.

    Raises:
        DataError: The file is missing, corrupt, or of another architecture.
    """
    where = str(path or f"benchmarks/victims/{WEIGHTS}")
    try:
        data = path.read_bytes() if path else (files("benchmarks.victims") / WEIGHTS).read_bytes()
        state = {name: tensor.float() for name, tensor in load_safetensors(data).items()}
        model = build_photos_vit()
        model.load_state_dict(state)
    except FileNotFoundError as error:
        raise DataError(
            "victim weights are missing", where=where, mend="reinstall, or run benchmarks/victims/train_photos_vit.py"
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"victim weights cannot be loaded: {error}", where=where, mend="restore the file") from error
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise DataError("victim weights hold NaN or infinite values", where=where, mend="restore the file")
    return Victim(model.eval(), MEAN, STD, hashlib.sha256(data).hexdigest()[:16], "vit 192x6, 8-px patches, 64 px")
