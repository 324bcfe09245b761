"""The victim of task ``photos``: architecture, normalisation and loading of the shipped weights."""

from __future__ import annotations

from pathlib import Path

import timm
from torch import nn

from leakgauge.benchmarks.tasks.photo_crops.crops import CLASSES, CROP_PX
from leakgauge.benchmarks.victims.shipped_weights import load_shipped
from leakgauge.harness.contracts.victim import Victim

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
    model, digest = load_shipped(build_photos_vit, WEIGHTS, "train_photos_vit.py", path)
    return Victim(model, MEAN, STD, digest, "vit 192x6, 8-px patches, 64 px")
